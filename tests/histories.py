"""Reserved memory under histories that are as plausible as the predicted one: the same blocks, placed by other luck."""

from collections.abc import Iterator, Mapping

from memcalc.allocator import replay
from memcalc.timeline import Mark, Timeline
from tests.figures import Prediction, Row, predicted

_AHEAD = (1, 7, 14)  # weights that the loader may have read before they are packed; a layer has seven


def other_histories(row: Row, prediction: Prediction) -> Mapping[str, int]:
    """Reserved bytes by what was otherwise."""
    return dict(_other_histories(row, prediction.recording.timeline))


def _other_histories(row: Row, timeline: Timeline) -> Iterator[tuple[str, int]]:
    yield "each segment above the older ones", _reserved(timeline, descending=False)
    if row.workload.quant != "none":
        yield "no warm-up block", _reserved(_loaded(timeline, warm_up=False))
        for ahead in _AHEAD:
            yield f"weights read {ahead} ahead", _reserved(_loaded(timeline, ahead=ahead))
    if row.source == "peft":
        for length in (683, 688):
            other = predicted(Row(row.id, row.source, {**row.options, "seq_len": length}, row.measured, row.versions))
            assert isinstance(other, Prediction)
            yield f"{length} tokens", _reserved(other.recording.timeline)


def _reserved(timeline: Timeline, *, descending: bool = True) -> int:
    reserved = replay(timeline, descending=descending).peak_reserved
    assert reserved is not None
    return reserved


def _loaded(timeline: Timeline, *, warm_up: bool = True, ahead: int = 0) -> Timeline:
    """The same blocks with half-precision weights born `ahead` weights earlier than they are packed."""
    loaded = next(mark.at for mark in timeline.marks if mark.kind == "phase_end")
    moments = {event: float(number) for number, event in enumerate(timeline.events[:loaded])}
    halves = [row for row in moments if row >= 0 and timeline.labels[row + 1][1] == "absmax"]
    for place, row in enumerate(halves):
        moments[row] = moments[halves[max(0, place - ahead)]] + place / len(halves)
    if not warm_up:
        moments = {event: moment for event, moment in moments.items() if timeline.labels[_row(event)][1] != "warm-up"}
    order = sorted(moments, key=moments.__getitem__)
    return _rearranged(timeline, loaded, order, [moments[event] for event in order])


def _row(event: int) -> int:
    return event if event >= 0 else ~event


def _rearranged(timeline: Timeline, loaded: int, order: list[int], moments: list[float]) -> Timeline:
    """A timeline whose first `loaded` events are others, with its marks where they were."""
    other = Timeline()
    other.nbytes, other.categories, other.labels = timeline.nbytes, timeline.categories, timeline.labels
    other.events = [*order, *timeline.events[loaded:]]
    for mark in timeline.marks:
        before = sum(moment < mark.at for moment in moments) if mark.at < loaded else mark.at - loaded + len(order)
        other.marks.append(Mark(before, mark.kind, mark.name))
    return other

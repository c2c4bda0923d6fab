"""A timeline of any depth, from one of four layers: the very stream that writing all of them would give.

The layers between the first and the last do the same. A pass over the third of the four is copied for every layer
that was not written; what it frees is a block of its own, or the same block of the layer before or after.
"""

from collections import Counter
from collections.abc import Iterable
from operator import add

from memcalc.sections import Run, layers_of, runs_of, sections
from memcalc.timeline import Mark, Timeline

DEPTH = 4  # layers to write: a first, two in the middle, a last
_BEFORE, _MIDDLE, _LAST = 1, 2, 3

Place = tuple[int, int]  # a sweep over the layers, and a row's number among those born in its layer's pass


def repeated(timeline: Timeline, layers: str, depth: int) -> Timeline | None:
    """The timeline of `depth` > 4 layers; None where the four do not do the same, and all must be written.

    `layers` is the path of the repeated layers ("model.layers").
    """
    homes = layers_of(timeline, layers)
    runs = runs_of(sections(timeline, layers, DEPTH))
    places = _places(timeline, runs)
    if places is None or not _alike(timeline, runs, homes):
        return None
    return _Writer(timeline, layers, depth, homes, places).write(runs)


def _places(timeline: Timeline, runs: list[Run]) -> dict[int, Place] | None:
    """Where each row of layers 1 to 3 is born; None where a sweep does not pass all three, or with other blocks."""
    places: dict[int, Place] = {}
    for number, (layer, events) in enumerate(runs):
        born = _born(timeline, events)
        if layer != _MIDDLE or not born:
            continue
        neighbours = {
            side[0]: _born(timeline, side[1]) for side in (*runs[number - 1 : number], *runs[number + 1 :][:1])
        }
        for rows in (born, neighbours.get(_BEFORE, []), neighbours.get(_LAST, [])):
            if [timeline.nbytes[row] for row in rows] != [timeline.nbytes[row] for row in born]:
                return None
            places.update({row: (number, index) for index, row in enumerate(rows)})
    return places


def _born(timeline: Timeline, events: Iterable[int]) -> list[int]:
    return [timeline.events[at] for at in events if timeline.events[at] >= 0]


def _alike(timeline: Timeline, runs: list[Run], homes: list[int | None]) -> bool:
    """Whether layers 1 and 2 free the same blocks, seen from where they are, in every pass."""
    seen: dict[int, list[Counter[tuple[int, int, str]]]] = {_BEFORE: [], _MIDDLE: []}
    for layer, events in runs:
        if layer is None or layer not in seen:
            continue
        freed: Counter[tuple[int, int, str]] = Counter()
        for row in (~timeline.events[at] for at in events if timeline.events[at] < 0):
            home = homes[row]
            if home is None:
                return False
            freed[home - layer, timeline.nbytes[row], timeline.labels[row][1]] += 1
        seen[layer].append(freed)
    return seen[_BEFORE] == seen[_MIDDLE]


class _Writer:
    """The new timeline under way: rows are numbered anew, in order of birth.

    A sweep passes the layers one behind the other, so what its pass over a layer bears has rows that stand a layer's
    births further on for each layer: a block's new row is `first + slope * layer`.
    """

    def __init__(
        self, old: Timeline, layers: str, depth: int, homes: list[int | None], places: dict[int, Place]
    ) -> None:
        self.old, self.homes, self.places = old, homes, places
        self.prefix, self.last = f"{layers}.", depth - 1
        self.new = Timeline()
        self.rows: dict[int, int] = {}  # new rows by old ones, of what is written once
        self.sweeps: dict[int, tuple[int, int]] = {}  # by number: the row of what layer 0 would bear first, and a slope
        self.marks = iter([*old.marks, Mark(-1, "phase_end")])
        self.mark = next(self.marks)

    def write(self, runs: list[Run]) -> Timeline:
        copies = range(_MIDDLE, self.last)
        for number, (layer, events) in enumerate(runs):
            if layer == _MIDDLE:
                before = runs[number - 1][0] if number else None
                after = runs[number + 1][0] if number + 1 < len(runs) else None
                rising = before == _BEFORE or after == _LAST
                self._copies(number, events, copies if rising else copies[::-1])
            else:
                self._once(events, layer)
        while self.mark.at >= 0:
            self._next_mark()
        return self.new

    def _once(self, events: list[int], layer: int | None) -> None:
        """A pass over what is not repeated; layer 3 is the new model's last."""
        old, rows, new = self.old, self.rows, self.new
        beside = {_BEFORE: _MIDDLE, _LAST: self.last - 1}.get(layer or 0)  # the copy that it can free blocks of
        for at in events:
            while self.mark.at == at:
                self._next_mark()
            event = old.events[at]
            if event < 0:
                row = rows.get(~event)
                new.death(self._row(~event, beside) if row is None else row)
                continue
            module, op = old.labels[event]
            if layer == _LAST:
                module = self._moved(module, layer, self.last)
            rows[event] = new.birth(old.nbytes[event], old.categories[event], module, op)

    def _copies(self, number: int, events: list[int], copies: range) -> None:
        """The middle layer's pass for every layer between the second and the last."""
        old, new = self.old, self.new
        born = _born(old, events)
        nbytes, categories = [old.nbytes[row] for row in born], [old.categories[row] for row in born]
        labels = dict.fromkeys(old.labels[row] for row in born)
        modules = {module for module, _ in labels}
        order = {label: index for index, label in enumerate(labels)}
        wording = [order[old.labels[row]] for row in born]
        first, count = len(new.nbytes), len(born)
        self.sweeps[number] = first - copies.step * count * copies.start, copies.step * count
        emptied = self._emptied(events)
        # each event of the first copy, and by how much the next copy's differs
        line, further = [], []
        for event in map(old.events.__getitem__, events):
            if event >= 0:
                line.append(first + event - born[0])
                further.append(count)
            else:
                line.append(~self._row(~event, copies.start))
                further.append(-copies.step * self.sweeps[self.places[~event][0]][1])
        for copy in copies:
            moved = {module: self._moved(module, _MIDDLE, copy) for module in modules}
            words = [(moved[module], op) for module, op in labels]
            new.marks += [mark._replace(at=len(new.events) + mark.at) for mark in emptied]
            new.nbytes += nbytes
            new.categories += categories
            new.labels += map(words.__getitem__, wording)
            new.events += line
            line = list(map(add, line, further))

    def _emptied(self, events: list[int]) -> list[Mark]:
        """Where a pass empties the cache, counted from its beginning. A phase that begins there begins but once."""
        emptied = []
        while events[0] <= self.mark.at <= events[-1]:
            if self.mark.kind == "empty_cache":
                emptied.append(self.mark._replace(at=self.mark.at - events[0]))
                self.mark = next(self.marks)
            else:
                self._next_mark()
        return emptied

    def _row(self, row: int, copy: int | None) -> int:
        """The new row of what the middle layer's twin `copy` frees, which is `row` to the middle layer itself."""
        home = self.homes[row]
        assert home is not None
        assert copy is not None
        sweep, index = self.places[row]
        first, slope = self.sweeps[sweep]
        return first + slope * (copy + home - _MIDDLE) + index

    def _moved(self, module: str, layer: int, to: int) -> str:
        return module.replace(f"{self.prefix}{layer}", f"{self.prefix}{to}", 1)

    def _next_mark(self) -> None:
        self.new.marks.append(self.mark._replace(at=len(self.new.events)))
        self.mark = next(self.marks)

"""Other estimators beside ours, on the same rows: who is nearer, and what each refuses."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from memcalc.footprint import Footprint
from memcalc.reporting.accuracy import percent, signed
from memcalc.reporting.cases import Case
from memcalc.reporting.document import Section, Table
from memcalc.reporting.summary import accuracy, error
from memcalc.units import gib

_LEVELS = {"allocated": "peak_allocated", "device": "device_total"}  # a peer's word, and ours


_EXPLAINED = (
    "Each pair of lines is over the same rows: those that the peer answers and estimate writes; nearer says on how "
    "many of them each is. Allocated is the peer's total without its overhead, device with it; rows that tell reserved "
    "memory alone are not here, since no peer speaks of it. fitcheck-llm's overhead was fitted to its own measurements "
    "on the T4, which are among these rows, and memcalc takes that card's CUDA context from them."
)


class Answer(Protocol):
    """What a peer says of one case, in bytes; or why it says nothing."""

    @property
    def allocated(self) -> int | None: ...
    @property
    def device(self) -> int | None: ...
    @property
    def reason(self) -> str: ...


def section(cases: list[Case], answers: Mapping[str, Sequence[Answer]]) -> Section:
    """The peers' errors and ours, on the rows that each of them answers; then row by row; then what they refuse."""
    return Section(
        "Beside other estimators",
        [
            _EXPLAINED,
            Table(
                ("level", "estimator", "rows", "nearer", "mean error", "median", "worst", "bias"),
                list(_lines(cases, answers)),
                2,
            ),
            Table(("case", "level", "measured", "memcalc", *answers), list(_cases(cases, answers)), texts=2),
            Table(("estimator", "does not answer", "rows"), list(_refusals(answers)), texts=2),
        ],
    )


def _lines(cases: list[Case], answers: Mapping[str, Sequence[Answer]]) -> Iterator[tuple[str, ...]]:
    for level in _LEVELS:
        for name, answered in answers.items():
            triples = [
                (real, ours, theirs)
                for case, answer in zip(cases, answered, strict=True)
                if (theirs := getattr(answer, level)) is not None
                and (real := _measured(case, level))
                and (ours := _ours(case, level)) is not None
            ]
            pairs = {name: [(real, theirs, ours) for real, ours, theirs in triples], "memcalc, same rows": triples}
            for who, rows in pairs.items():
                known = accuracy((real, said) for real, said, _ in rows)
                if known is not None:
                    nearer = sum(abs(said - real) < abs(other - real) for real, said, other in rows)
                    sizes = (percent(value) for value in (known.mean, known.median, known.worst))
                    yield (level, who, str(known.figures), str(nearer), *sizes, signed(known.bias))


def _cases(cases: list[Case], answers: Mapping[str, Sequence[Answer]]) -> Iterator[tuple[str, ...]]:
    for at, case in enumerate(cases):
        for level in _LEVELS:
            real = _measured(case, level)
            said = [getattr(each[at], level) for each in answers.values()]
            if real and any(value is not None for value in said):
                yield (case.row.name, level, gib(real), *(_error(real, value) for value in (_ours(case, level), *said)))


def _refusals(answers: Mapping[str, Sequence[Answer]]) -> Iterator[tuple[str, ...]]:
    for name, said in answers.items():
        counted = Counter(answer.reason for answer in said if answer.reason)
        yield from ((name, reason, str(rows)) for reason, rows in counted.most_common())


def _error(measured: int, predicted: int | None) -> str:
    off = error(measured, predicted)
    return "–" if off is None else signed(off)


def _measured(case: Case, level: str) -> int | None:
    value: int | None = getattr(case.row.footprint, _LEVELS[level])
    return value


def _ours(case: Case, level: str) -> int | None:
    value: int | None = getattr(case.estimate, _LEVELS[level]) if isinstance(case.estimate, Footprint) else None
    return value

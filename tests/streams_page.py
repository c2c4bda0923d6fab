"""The stream comparison's report."""

from collections import Counter
from collections.abc import Iterable, Iterator

from memcalc.timeline import CATEGORIES
from tests import cases
from tests.cases import DIMENSIONS
from tests.comparison import Result, Run, cause
from tests.untraceable import REASONS

_EXAMPLES = 3  # cases named under one cause
_CONTEXT = 11  # births shown around a difference, a third of what the comparer gives


def summary(state: Run) -> str:
    """The figures that say it all, in a few lines."""
    results = state.results()
    count = Counter(result.verdict for result in results)
    births = sum(result.births for result in results)
    cover = state.cover
    assert cover is not None
    covered = cover.total - len(cover.impossible) - len(cover.given_up)
    same, compared = count["identical"], count["identical"] + count["differs"]
    return (
        f"- {same} of {compared} streams identical, block by block ({births:,} births).\n"
        f"- Pairs of values: {covered:,} of {cover.total:,} covered by {len(state.covered)} cases; "
        f"{len(cover.impossible)} cannot be, {len(cover.given_up)} only occurred where trace refuses.\n"
        f"- Random: {len(state.drawn)} cases of seed {state.seed}; {state.refused} further draws cannot be.\n"
        f"- Not run: {count['not run']} cases that trace refuses."
    )


def page(state: Run) -> str:
    """The whole report in Markdown."""
    return "\n".join(_sections(state)) + "\n"


def _sections(state: Run) -> Iterator[str]:
    results = state.results()
    yield "# Streams: estimate against trace"
    yield ""
    yield f"Made by `python -m tests.streams --random {len(state.drawn)} --seed {state.seed}`, over tiny models."
    yield "A case is identical when births agree in order and bytes, and the same blocks die between any two of them."
    yield "It is named by its labels (tests/cases.py) that are not the plain ones:"
    yield ", ".join(f"`{label}`" for label in cases.PLAIN[2:])
    yield ""
    yield summary(state)
    yield from _exceptions([result for result in results if result.verdict == "differs"])
    yield from _besides([result for result in results if result.besides and result.verdict == "identical"])
    yield from _not_run(state, [result for result in results if result.verdict == "not run"])
    yield from _by_dimension(results)
    yield from _all_cases(results)


def _exceptions(differing: list[Result]) -> Iterator[str]:
    yield from ("", "## Exceptions", "")
    if not differing:
        yield "None."
    causes: dict[str, list[Result]] = {}
    for result in sorted(differing, key=lambda result: len(cases.name(result.case))):
        causes.setdefault(cause(result), []).append(result)
    for found in sorted(causes.values(), key=len, reverse=True):
        yield f"### {len(found)} × {found[0].why}"
        yield ""
        yield from (f"- `{cases.name(result.case)}`: {result.why}" for result in found[:_EXAMPLES])
        if len(found) > _EXAMPLES:
            yield f"- and {len(found) - _EXAMPLES} more"
        if found[0].context:
            lines = found[0].context.splitlines()
            middle = next(index for index, line in enumerate(lines) if line.startswith("→"))
            yield from ("", "```", *lines[max(0, middle - _CONTEXT) : middle + _CONTEXT + 1], "```")
        yield ""


def _besides(results: list[Result]) -> Iterator[str]:
    yield from ("", "## Equal streams, other words", "")
    yield "Cases whose streams are identical while levels, categories or counts are not."
    yield ""
    said: dict[str, list[Result]] = {}
    for result in results:
        for difference in result.besides:
            said.setdefault(difference.partition(":")[0], []).append(result)
    for what, found in said.items():
        first = next(difference for difference in found[0].besides if difference.startswith(what))
        yield f"- {len(found)} × {first} (`{cases.name(found[0].case)}`)"
    if not said:
        yield "None."


def _not_run(state: Run, results: list[Result]) -> Iterator[str]:
    yield from ("", "## Not run", "")
    yield from (f"- Left out of the case space: {why}" for why in REASONS)
    reasons: dict[str, list[Result]] = {}
    for result in results:
        reasons.setdefault(result.why, []).append(result)
    for why, found in reasons.items():
        yield f"- {len(found)} × {why} (`{cases.name(found[0].case)}`)"
    assert state.cover is not None
    kinds = {"that cannot be": state.cover.impossible, "only where trace refuses": state.cover.given_up}
    for kind, pairs in kinds.items():
        names = sorted(f"{one} + {other}" for (_, one), (_, other) in pairs)
        yield f"- Pairs {kind}: {', '.join(names) or 'none'}"


def _by_dimension(results: list[Result]) -> Iterator[str]:
    yield from ("", "## By dimension", "", "| dimension | value | compared | identical |", "|---|---|---:|---:|")
    for axis, dimension in enumerate(DIMENSIONS):
        for label in dimension.values:
            count = Counter(result.verdict for result in results if result.case[axis] == label)
            yield f"| {dimension.name} | {label} | {count['identical'] + count['differs']} | {count['identical']} |"


def _all_cases(results: Iterable[Result]) -> Iterator[str]:
    yield from (
        "",
        "## Every case",
        "",
        "Levels in bytes as estimate / trace where they differ; categories at the peak, of trace.",
        "",
    )
    heads = ("case", "identical", "births", "live", "allocated", "reserved", *CATEGORIES)
    yield "| " + " | ".join(heads) + " |"
    yield "|---|---|" + "---:|" * (len(heads) - 2)
    for result in results:
        if result.verdict != "not run":
            verdict = "yes" if result.verdict == "identical" else f"no: {result.why}".replace("|", "¦")
            yield f"| {cases.name(result.case)} | {verdict} | {result.births} | " + " | ".join(_figures(result)) + " |"


def _figures(result: Result) -> Iterator[str]:
    if not result.footprints:
        yield from [""] * (3 + len(CATEGORIES))
        return
    mine, theirs = result.footprints
    for what in ("peak_live", "peak_allocated", "peak_reserved"):
        ours, real = getattr(mine, what), getattr(theirs, what)
        yield _number(ours) if ours == real else f"{_number(ours)} / {_number(real)}"
    assert theirs.at_peak is not None
    yield from (f"{theirs.at_peak[category]:,}" for category in CATEGORIES)


def _number(nbytes: int | None) -> str:
    return "none" if nbytes is None else f"{nbytes:,}"

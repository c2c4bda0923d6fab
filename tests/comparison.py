"""One case under both tiers, and the run over all cases: the pairwise cover, then random ones."""

import random
import re
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from memcalc.comparing import first_difference
from memcalc.errors import MemcalcError, NotModelled
from memcalc.footprint import Footprint
from memcalc.recording import Recording, footprint_of
from memcalc.timeline import CATEGORIES
from memcalc.workload import Workload
from tests import cases
from tests.cases import DIMENSIONS, Case
from tests.covering import Cover
from tests.producers import PRODUCERS
from tests.untraceable import possible

_TRIES = 200  # random cases of a method before it is left out
_NOT_WRITTEN = "estimate does not write it"  # and says so
Verdict = Literal["identical", "differs", "not run"]


@dataclass(frozen=True)
class Result:
    """One case, run by both tiers."""

    case: Case
    verdict: Verdict
    why: str = ""  # the first difference, or what the tiers said instead of a stream
    context: str = ""  # the births around it
    besides: tuple[str, ...] = ()  # what else is not equal, though no stream: levels, categories, counts
    births: int = 0
    footprints: tuple[Footprint, ...] = ()  # estimate's and trace's


@dataclass
class Run:
    """All that a call of the command compared."""

    seed: int
    covered: list[Result] = field(default_factory=list)
    drawn: list[Result] = field(default_factory=list)
    cover: Cover | None = None
    refused: int = 0  # random cases that were no workload

    def results(self) -> list[Result]:
        """Every case, run or not, each once."""
        return list({result.case: result for result in (*self.covered, *self.drawn)}.values())


def compare(case: Case) -> Result:
    """One case under both tiers. A case that trace refuses is not run, unless estimate has nothing to say either."""
    workload = cases.workload(case)
    mine = _attempt("estimate", workload)
    if isinstance(mine, str) and mine.startswith(_NOT_WRITTEN):
        return Result(case, "not run", mine)
    theirs = _attempt("trace", workload)
    if isinstance(theirs, str):
        return Result(case, "not run", theirs)
    if isinstance(mine, str):
        return Result(case, "differs", mine)
    difference = first_difference(mine.timeline, theirs.timeline, ("estimate", "trace"))
    both = (footprint_of(workload, mine, "estimate"), footprint_of(workload, theirs, "trace"))
    return Result(
        case,
        "identical" if difference is None else "differs",
        "" if difference is None else difference.summary,
        "" if difference is None else "\n".join(difference.context),
        tuple(_besides(*both)),
        len(theirs.timeline.nbytes),
        both,
    )


def _attempt(tier: str, workload: Workload) -> Recording | str:
    """What the tier makes of the workload, or what it says instead: a refusal, or a crash and where."""
    try:
        return PRODUCERS[tier](workload)
    except NotModelled as error:
        return f"{tier} does not write it: {error}" if tier == "estimate" else f"{tier} refuses: {error}"
    except MemcalcError as error:
        return f"{tier} refuses: {error}"
    except Exception as error:  # noqa: BLE001 - a crash is a result of the comparison, and is reported as one
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return f"{tier} crashes: {type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})"


def _besides(mine: Footprint, theirs: Footprint) -> Iterator[str]:
    """What is said differently beside the streams."""
    for what in ("total_params", "trainable_params", "checkpoint_bytes", "peak_phase", "phases"):
        if getattr(mine, what) != getattr(theirs, what):
            yield f"{what}: {getattr(mine, what)}, trace {getattr(theirs, what)}"
    kernels = [footprint.workload["attention_kernel"] for footprint in (mine, theirs)]
    if kernels[0] != kernels[1]:
        yield f"attention_kernel: {kernels[0]}, trace {kernels[1]}"
    for category in CATEGORIES:
        ours, real = [(footprint.at_peak or {})[category] for footprint in (mine, theirs)]
        if ours != real:
            yield f"{category} at the peak: {ours:,} B, trace {real:,} B"


def run(state: Run, random_cases: int) -> Iterator[None]:
    """The pairwise cover, then random cases of the run's seed; a pause after each.

    The methods that the folder lists, each with every model and more, would be too many pairs: they are among the
    random cases, each of them in one at least.
    """
    axes = [[value for value in dimension.values if value not in cases.FOUND] for dimension in DIMENSIONS]
    cover = Cover(axes, possible, cases.settled)
    state.cover = cover
    while (case := cover.draw()) is not None:
        result = compare(case)
        state.covered.append(result)
        if result.verdict == "not run":
            cover.refused()
        else:
            cover.ran(case)
        yield
    source = random.Random(state.seed)
    for method in sorted(cases.FOUND) if random_cases else ():
        case = next((case for case in _with(method, source) if possible(case)), None)
        if case is not None:
            state.drawn.append(compare(case))
            yield
    while sum(result.verdict != "not run" for result in state.drawn) < random_cases:
        case = cases.drawn(source)
        if possible(case):
            state.drawn.append(compare(case))
            yield
        else:
            state.refused += 1


def _with(method: str, source: random.Random) -> Iterator[Case]:
    """Random cases of a method, as many as are worth a try."""
    return (cases.drawn(source, method=method) for _ in range(_TRIES))


def cause(result: Result) -> str:
    """The difference without its numbers, so that cases of one cause fall together."""
    without_paths = re.sub(r"(\w+\.)+(?=\w+:)", "", result.why)
    return re.sub(r"\d[\d,.]*( (GiB|MiB|KiB|B)\b)?", "n", without_paths)

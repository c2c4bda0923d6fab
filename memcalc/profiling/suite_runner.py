"""The cases of a suite, one after another: what was measured is on the disk before the next one begins."""

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from memcalc.errors import BadFile, DeviceBusy, MemcalcError
from memcalc.footprint import Footprint
from memcalc.importers import peft
from memcalc.profiling import runner
from memcalc.profiling.case import Case
from memcalc.profiling.failing import Failure, failed
from memcalc.profiling.store import Store
from memcalc.profiling.suite import SuiteCase
from memcalc.workload import Workload

_MEASURED = ("gpu", "attention_kernel")  # what a footprint's workload has from the device, not from who asked
_LIMIT = "out_of_memory"

Began = Callable[[SuiteCase], None]
Ended = Callable[[SuiteCase, Footprint | None], None]  # None: it was there already


@dataclass(frozen=True)
class Plan:
    """What is to be done of a suite."""

    title: str
    cases: Sequence[SuiteCase]
    template: Case  # how each is measured
    versions: Mapping[str, str]
    timeout: float
    retry: bool = False  # run again what has failed


@dataclass
class Tally:
    """How the cases have ended: those that ran now by outcome, and those that were there already."""

    now: Counter[str] = field(default_factory=Counter)
    before: Counter[str] = field(default_factory=Counter)
    failed: int = 0

    def add(self, case: SuiteCase, outcome: str, *, already: bool) -> None:
        (self.before if already else self.now)[outcome] += 1
        self.failed += not _is_good(case, outcome)


def shard(cases: Sequence[SuiteCase], index: int, count: int) -> Sequence[SuiteCase]:
    """The `index`th (from 1) of `count` parts of a suite: every count-th case, so that each part has of all kinds."""
    return cases[index - 1 :: count]


def run(
    plan: Plan,
    store: Store,
    measure: runner.Measure,
    call: runner.Call | None,
    tally: Tally,
    began: Began,
    ended: Ended,
) -> None:
    """Run what is not in the store yet. Whatever becomes of a case is a line there, and in the tally.

    A case is there where a line has the same workload under the same versions of the libraries, on whatever card: a
    file is of one card. One that failed is there too, unless `plan.retry`. Raises DeviceBusy.
    """
    known = _known(store, plan.versions)
    for case in plan.cases:
        outcome = known.get(_key(runner.with_settings(case.workload).to_json()))
        if outcome is not None and (_is_good(case, outcome) or not plan.retry):
            tally.add(case, outcome, already=True)
            ended(case, None)
            continue
        began(case)
        footprint = _measured(plan, case, measure, call)
        store.append(footprint)
        tally.add(case, footprint.outcome or "ok", already=False)
        ended(case, footprint)


def _measured(plan: Plan, case: SuiteCase, measure: runner.Measure, call: runner.Call | None) -> Footprint:
    started = time.perf_counter()
    workload: Workload = runner.with_settings(case.workload)
    try:
        footprint = runner.run(replace(plan.template, workload=workload), measure, timeout=plan.timeout, call=call)
    except DeviceBusy:
        raise
    except MemcalcError as error:  # the machine or the libraries cannot do it: said in the file, not only here
        footprint = failed(workload, Failure("refused", str(error)), time.perf_counter() - started)
    return replace(
        footprint,
        versions=footprint.versions or plan.versions,
        measured={**footprint.measured, "suite": plan.title, "case": case.name},
    )


def _is_good(case: SuiteCase, outcome: str) -> bool:
    return outcome == "ok" or (case.to_the_limit and outcome == _LIMIT)


def _known(store: Store, versions: Mapping[str, str]) -> dict[str, str]:
    """The outcome of each workload that the store holds under these versions; the last line of several counts."""
    return {
        _key(footprint.workload): footprint.outcome or "ok"
        for footprint in _footprints(store)
        if footprint.producer == "profile" and _agree(footprint.versions, versions)
    }


def _footprints(store: Store) -> Iterable[Footprint]:
    return (each for _, each in store.footprints() if not isinstance(each, BadFile))


def _agree(left: Mapping[str, str], right: Mapping[str, str]) -> bool:
    return all(left.get(name) == version for name, version in right.items())


def _key(workload: Mapping[str, Any]) -> str:
    """A workload in one form. Options that came after a line was written have their defaults there."""
    with contextlib.suppress(MemcalcError):  # another version's may have options that are gone
        workload = peft.from_json(workload).to_json()
    return json.dumps({name: value for name, value in workload.items() if name not in _MEASURED}, sort_keys=True)

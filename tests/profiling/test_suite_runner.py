import dataclasses
from typing import Any

import pytest

from memcalc.errors import DeviceBusy
from memcalc.footprint import Footprint
from memcalc.profiling import suite_runner
from memcalc.profiling.case import Case
from memcalc.profiling.forking import ForkServer
from memcalc.profiling.store import Store
from memcalc.profiling.suite import SuiteCase
from memcalc.profiling.suite_runner import Plan, Tally
from tests.profiling import elsewhere
from tests.tiny import tiny

VERSIONS = {"torch": "1"}
CASES = tuple(SuiteCase(f"batch={batch}", tiny(batch=batch)) for batch in range(1, 6))


def plan(**changes: Any) -> Plan:
    return dataclasses.replace(Plan("t", CASES, Case(CASES[0].workload), VERSIONS, timeout=2.0), **changes)


def go(store: Store, what: Plan, measure: Any = elsewhere.by_batch, seen: list[str] | None = None) -> Tally:
    tally = Tally()
    began = [] if seen is None else seen
    with ForkServer("") as server:
        suite_runner.run(
            what, store, measure, server, tally, lambda case: began.append(case.name), lambda case, footprint: None
        )
    return tally


def footprints(store: Store) -> list[Footprint]:
    return [each for _, each in store.footprints() if isinstance(each, Footprint)]


def test_whatever_becomes_of_a_case_is_a_line_and_the_suite_goes_on(store: Store) -> None:
    tally = go(store, plan())
    lines = footprints(store)
    assert [line.outcome for line in lines] == ["ok", "crashed", "crashed", "refused", "timeout"]
    reasons = [line.unavailable.get("peak_allocated", "") for line in lines]
    assert "ZeroDivisionError: by zero" in reasons[1]
    assert "killed by SIGKILL: last words" in reasons[2]
    assert reasons[3].endswith("refused: no such device: use trace")
    assert "after 2 seconds" in reasons[4]
    assert [line.measured["case"] for line in lines] == [case.name for case in CASES]
    assert {line.measured["suite"] for line in lines} == {"t"}
    assert (tally.failed, sum(tally.now.values())) == (4, 5)

    seen: list[str] = []
    again = go(store, plan(), elsewhere.answers, seen)
    assert (seen, again.failed, sum(again.before.values())) == ([], 4, 5)
    retried = go(store, plan(retry=True), elsewhere.answers, seen)
    assert (seen, retried.failed) == ([case.name for case in CASES[1:]], 0)
    assert go(store, plan()).failed == 0  # the last line of a workload counts


def test_a_line_from_before_there_was_an_option_is_still_its_case(store: Store) -> None:
    older = {name: value for name, value in CASES[0].workload.to_json().items() if name != "neftune_alpha"}
    store.append(Footprint(producer="profile", workload=older, versions=VERSIONS))
    seen: list[str] = []
    go(store, plan(cases=CASES[:1]), elsewhere.answers, seen)
    assert seen == []


def test_other_versions_and_other_workloads_are_other_cases(store: Store) -> None:
    go(store, plan(cases=CASES[:2]), elsewhere.answers)
    seen: list[str] = []
    go(store, plan(cases=CASES[:3]), elsewhere.answers, seen)
    assert seen == ["batch=3"]
    go(store, plan(cases=CASES[:1], versions={"torch": "2"}), elsewhere.answers, seen)
    assert seen == ["batch=3", "batch=1"]


def test_out_of_memory_is_an_answer_where_the_limit_is_looked_for(store: Store) -> None:
    limit = dataclasses.replace(CASES[0], to_the_limit=True)
    assert go(store, plan(cases=[limit]), elsewhere.is_full).failed == 0
    assert footprints(store)[0].outcome == "out_of_memory"
    assert go(store, plan(cases=CASES[:1])).failed == 1


def test_a_busy_device_ends_the_suite(store: Store) -> None:
    with pytest.raises(DeviceBusy, match="others"):
        go(store, plan(), elsewhere.finds_others)
    assert not footprints(store)


def test_shards_are_all_cases_once() -> None:
    parts = [suite_runner.shard(CASES, index, 3) for index in (1, 2, 3)]
    assert [[case.workload.batch for case in part] for part in parts] == [[1, 4], [2, 5], [3]]

"""A suite of cases that take no time, to be killed at any moment: `python -m tests.profiling.killed OUT LOG`.

LOG gets the name of each case behind whose line the store has come back.
"""

import os
import sys

from memcalc.profiling import suite_runner
from memcalc.profiling.case import Case
from memcalc.profiling.forking import ForkServer
from memcalc.profiling.store import Store
from memcalc.profiling.suite import SuiteCase
from tests.profiling import elsewhere
from tests.tiny import tiny

COUNT = 150


def cases() -> list[SuiteCase]:
    return [SuiteCase(f"seq-len={length}", tiny(seq_len=length)) for length in range(1, COUNT + 1)]


def main(out: str, log: str) -> None:
    finished = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    store = Store(out)
    store.mend()
    of = cases()
    plan = suite_runner.Plan("killed", of, Case(of[0].workload), {"torch": "1"}, timeout=30)

    def ended(case: SuiteCase, footprint: object) -> None:
        if footprint is not None:
            os.write(finished, f"{case.name}\n".encode())

    with ForkServer("") as server:
        suite_runner.run(plan, store, elsewhere.answers, server, suite_runner.Tally(), lambda case: None, ended)
    store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What a test lets the other process do in place of measuring."""

import os
import signal
import sys
import time

from memcalc.errors import DeviceBusy, NotModelled
from memcalc.footprint import Footprint
from memcalc.profiling.case import Case
from memcalc.profiling.failing import Failure, failed


def answers(case: Case) -> Footprint:
    settings = {name: value for name, value in os.environ.items() if name.endswith("ALLOC_CONF")}
    measured = {"process": os.getpid(), "settings": settings}
    return Footprint("profile", case.workload.to_json(), peak_reserved=7, outcome="ok", measured=measured)


def refuses(case: Case) -> Footprint:
    raise NotModelled("no such device: use trace")


def raises(case: Case) -> Footprint:
    sys.stdout.write("a library's chatter\n")
    raise ZeroDivisionError("by zero")


def is_killed(case: Case) -> Footprint:
    sys.stderr.write("last words\n")
    sys.stderr.flush()
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def hangs(case: Case) -> Footprint:
    time.sleep(60)
    raise AssertionError


def is_full(case: Case) -> Footprint:
    return failed(case.workload, Failure("out_of_memory", "2 GiB too many", "forward"), 1.0)


def finds_others(case: Case) -> Footprint:
    raise DeviceBusy("others use it")


def by_batch(case: Case) -> Footprint:
    """One of the above, by the case's micro-batch."""
    return (answers, raises, is_killed, refuses, hangs)[case.workload.batch - 1](case)


def orphans(case: Case) -> Footprint:
    """Answers, and leaves a process behind."""
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)
    return answers(case)

"""What a test lets the other process do in place of measuring."""

import os
import signal
import sys
import time

from memcalc.errors import NotModelled
from memcalc.footprint import Footprint
from memcalc.profiling.case import Case


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

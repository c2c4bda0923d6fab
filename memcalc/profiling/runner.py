"""A case in a process of its own: a fresh allocator and context, and nothing that happens there ends the caller."""

import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from memcalc.errors import BadFile, DeviceBusy, InvalidWorkload, MemcalcError, NotModelled, RunFailed
from memcalc.footprint import Footprint
from memcalc.profiling.case import Case
from memcalc.profiling.failing import Failure, failed
from memcalc.workload import Workload

Measure = Callable[[Case], Footprint]  # picklable: it is called in the other process

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_CHILD = (  # the memcalc that runs here, and nothing that lies in the working directory
    "import sys; sys.argv[1] in sys.path or sys.path.insert(0, sys.argv[1]); from importlib import import_module; "
    "import_module('memcalc.profiling.' + sys.argv[2]).main(sys.argv[3])"
)
_CONF = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")  # c10/cuda/CUDAAllocatorConfig.h reads them in this order
_ERRORS: Mapping[int, type[MemcalcError]] = {2: InvalidWorkload, 3: NotModelled, 4: RunFailed}  # by exit code


class Called(NamedTuple):
    """What another process is called with, and where it leaves what it has to say."""

    answer: str  # file
    log: str  # file
    told: bytes  # a pickle of (measure, case)
    environment: Mapping[str, str]
    timeout: float | None  # seconds


Call = Callable[[Called], int | None]  # the exit status, None where time ran out


def run(case: Case, measure: Measure, *, timeout: float | None = None, call: "Call | None" = None) -> Footprint:
    """The footprint that `measure` makes of a case, elsewhere. A crash, a kill or a timeout is an outcome.

    `call` starts the other process and waits for it: a fresh interpreter unless it is said.

    The allocator's settings are the workload's, or where it has none those of this process's environment.
    Raises the MemcalcError that `measure` raised.
    """
    if case.snapshot is not None:
        _check_writable(case.snapshot)
    case = replace(case, workload=with_settings(case.workload))
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="memcalc-") as folder:
        answer, log = os.path.join(folder, "answer.json"), os.path.join(folder, "log.txt")
        status = (call or spawn)(Called(answer, log, pickle.dumps((measure, case)), _environment(case), timeout))
        seconds = time.perf_counter() - began
        if status is None:
            failure = Failure("timeout", f"it was stopped after {timeout:g} seconds")
            return failed(case.workload, failure, seconds)
        if not os.path.exists(answer):
            return failed(case.workload, Failure("crashed", _last_words(status, log)), seconds)
        with open(answer, encoding="utf-8") as file:
            said = json.load(file)
    if said.get("busy"):
        raise DeviceBusy(said["refused"])
    if "refused" in said:
        raise _ERRORS[said["exit_code"]](said["refused"])
    return Footprint.from_json(said["footprint"])


def spawn(called: Called) -> int | None:
    """Run a fresh interpreter to its end; its exit status, or None where time ran out."""
    with open(called.log, "wb") as output:
        process = interpreter("child", called.answer, called.environment, output, subprocess.STDOUT)
    try:
        process.communicate(called.told, timeout=called.timeout)
    except subprocess.TimeoutExpired:
        return None
    finally:
        end(process)
    return process.returncode


def interpreter(
    module: str, argument: str, environment: Mapping[str, str], out: Any, err: Any
) -> "subprocess.Popen[bytes]":
    """A fresh interpreter that runs `main` of one of this package's modules, in a session of its own."""
    return subprocess.Popen(  # noqa: S603 - this very interpreter
        [sys.executable, "-P", "-c", _CHILD, _ROOT, module, argument],
        stdin=subprocess.PIPE,
        stdout=out,
        stderr=err,
        env=environment,
        start_new_session=True,  # whatever it starts ends with it
    )


def end(process: "subprocess.Popen[bytes]") -> None:
    """Make sure that it has ended, and all that it started."""
    if process.poll() is None:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()


def _check_writable(path: str) -> None:
    """Before the run, not after it."""
    folder = os.path.dirname(path) or "."
    if os.path.isdir(path) or not os.access(path if os.path.exists(path) else folder, os.W_OK):
        raise BadFile(path, "cannot be written")


def with_settings(workload: Workload) -> Workload:
    """The workload with the allocator's settings under which it will run."""
    ambient = next((os.environ[name] for name in _CONF if os.environ.get(name)), "")
    return replace(workload, alloc_conf=workload.alloc_conf or ambient)


def _environment(case: Case) -> dict[str, str]:
    """This process's environment, with the workload's allocator settings."""
    environment = {name: value for name, value in os.environ.items() if name not in _CONF}
    if case.workload.alloc_conf:
        environment |= dict.fromkeys(_CONF, case.workload.alloc_conf)
    return environment


def _last_words(status: int, log: str) -> str:
    with open(log, encoding="utf-8", errors="replace") as file:
        lines = [line.strip() for line in file if line.strip()]
    if status < 0:
        name = signal.Signals(-status).name if -status in {s.value for s in signal.Signals} else str(-status)
        ending = f"killed by {name}"
    else:
        ending = f"exit status {status}"
    return f"{ending}: {lines[-1][:300]}" if lines else ending

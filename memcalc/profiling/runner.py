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
from typing import Any

from memcalc.errors import BadFile, InvalidWorkload, MemcalcError, NotModelled, RunFailed
from memcalc.footprint import Footprint
from memcalc.profiling.case import Case
from memcalc.profiling.failing import Failure, failed
from memcalc.workload import Workload

Measure = Callable[[Case], Footprint]  # picklable: it is called in the other process

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_CHILD = (  # the memcalc that runs here, and nothing that lies in the working directory
    "import sys; sys.argv[1] in sys.path or sys.path.insert(0, sys.argv[1]); "
    "from memcalc.profiling.child import main; main(sys.argv[2])"
)
_CONF = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")  # c10/cuda/CUDAAllocatorConfig.h reads them in this order
_ERRORS: Mapping[int, type[MemcalcError]] = {2: InvalidWorkload, 3: NotModelled, 4: RunFailed}


def run(case: Case, measure: Measure, *, timeout: float | None = None) -> Footprint:
    """The footprint that `measure` makes of a case, elsewhere. A crash, a kill or a timeout is an outcome.

    The allocator's settings are the workload's, or where it has none those of this process's environment.
    Raises the MemcalcError that `measure` raised.
    """
    if case.snapshot is not None:
        _check_writable(case.snapshot)
    case = replace(case, workload=_with_settings(case.workload))
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="memcalc-") as folder:
        answer, log = os.path.join(folder, "answer.json"), os.path.join(folder, "log.txt")
        with open(log, "wb") as output:
            status = _call(answer, pickle.dumps((measure, case)), _environment(case), output, timeout)
        seconds = time.perf_counter() - began
        if status is None:
            failure = Failure("timeout", f"it was stopped after {timeout:g} seconds")
            return failed(case.workload, failure, seconds)
        if not os.path.exists(answer):
            return failed(case.workload, Failure("crashed", _last_words(status, log)), seconds)
        with open(answer, encoding="utf-8") as file:
            said = json.load(file)
    if "refused" in said:
        raise _ERRORS[said["exit_code"]](said["refused"])
    return Footprint.from_json(said["footprint"])


def _call(answer: str, told: bytes, environment: Mapping[str, str], output: Any, timeout: float | None) -> int | None:
    """Run the child to its end; its exit status, or None where time ran out."""
    process = subprocess.Popen(  # noqa: S603 - this very interpreter
        [sys.executable, "-P", "-c", _CHILD, _ROOT, answer],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,  # whatever it starts ends with it
    )
    try:
        process.communicate(told, timeout=timeout)
    except subprocess.TimeoutExpired:
        return None
    finally:
        _end(process)
    return process.returncode


def _end(process: "subprocess.Popen[bytes]") -> None:
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


def _with_settings(workload: Workload) -> Workload:
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

"""A process that has the libraries imported, touches no device, and forks for every case.

Asked on stdin, answers on stdout, both by pickles: in comes a Called, out goes the exit status of the process forked
for it, or None where time ran out; REFUSED where it must not fork. When its parent is gone, so is all that it forked.
"""

import contextlib
import gc
import os
import pickle
import select
import signal
import sys
import time
import traceback
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from memcalc.profiling.child import answer_to
from memcalc.profiling.runner import Called

REFUSED = "refused"
LIBRARIES = "transformers.modeling_utils,accelerate,torch._dynamo,memcalc.profiling.measure"
TOUCHING = "peft,memcalc.tracing.record"  # peft.helpers imports bitsandbytes, which asks the card what it can

_BAD_FORK = 77  # exit status of a child that finds a card which its parent has touched


def main(modules: str) -> None:
    """Import these modules (commas between them), then fork for each Called on stdin until it ends."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no reply
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    _import(modules)
    gc.freeze()  # these objects are shared with every child, as long as nobody writes to them
    while True:
        try:
            called = pickle.load(requests)  # noqa: S301 - written by our own parent
        except EOFError:
            return
        status: object = _fork(called, requests, read_end)
        if status == _BAD_FORK and not os.path.exists(called.answer):
            status = REFUSED
        with contextlib.suppress(BrokenPipeError):
            pickle.dump(status, replies)
            replies.flush()


def _import(modules: str) -> None:
    """What cannot be imported here, its user finds missing in a process of its own, and says so."""
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # is_available() asks the driver's library, makes no context
    for name in filter(None, modules.split(",")):
        with contextlib.suppress(Exception):
            import_module(name)
    if modules == LIBRARIES and _nothing_to_touch():
        _import(TOUCHING)


def _nothing_to_touch() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and (find_spec("bitsandbytes") is None or torch.version.cuda is None)


def _fork(called: Called, requests: Any, wakeup: int) -> int | None:
    pid = os.fork()
    if pid == 0:
        _be_the_case(called)
    began, status = time.monotonic(), None
    while True:
        left = None if called.timeout is None else called.timeout - (time.monotonic() - began)
        ready, _, _ = select.select([requests, wakeup], [], [], None if left is None else max(left, 0))
        if wakeup in ready:
            os.read(wakeup, 4096)
        done, code = os.waitpid(pid, os.WNOHANG)
        if done:
            status = os.waitstatus_to_exitcode(code)
            break
        if requests in ready or (left is not None and left <= 0):  # nobody asks twice: the parent has left
            _kill(pid)
            os.waitpid(pid, 0)
            return None
    _kill(pid)  # what it has started
    return status


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _be_the_case(called: Called) -> None:
    """Never returns: measures, then leaves without what the server would do at its exit."""
    code = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log = os.open(called.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.clear()
        os.environ.update(called.environment)
        torch: Any = sys.modules.get("torch")
        if torch is not None and torch.cuda._is_in_bad_fork():  # noqa: SLF001 - torch asks it itself, nobody else may
            code = _BAD_FORK
        else:
            answer_to(called.told, called.answer)
            code = 0
    except BaseException:  # noqa: BLE001 - its last words go to the log, as an interpreter's would
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)

"""Cases in forks of a process that has the libraries imported already: seconds less for each of them."""

import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from typing import Self

from memcalc.profiling import runner
from memcalc.profiling.runner import Called


class ForkServer:
    """A runner.Call that forks where this system can, else starts an interpreter for every case.

    A server lives as long as its environment holds: the allocator reads its settings when libraries are loaded. macOS
    forks, but its frameworks do not survive it.
    """

    def __init__(self, modules: str) -> None:
        self.modules = modules
        self.forks = hasattr(os, "fork") and sys.platform != "darwin"
        self._server: subprocess.Popen[bytes] | None = None
        self._environment: Mapping[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, called: Called) -> int | None:
        """The exit status of the case's process; None where time ran out."""
        from memcalc.profiling.fork_server import REFUSED

        if not self.forks:
            return runner.spawn(called)
        try:
            said = self._asked(called)
        except (OSError, EOFError, pickle.UnpicklingError):  # it was killed; whether with the case, nobody knows
            self.close()
            return runner.spawn(called) if not os.path.exists(called.answer) else 0
        if said == REFUSED:  # a library has touched the card: a fork could not use it
            self.close()
            self.forks = False
            return runner.spawn(called)
        assert said is None or isinstance(said, int)
        return said

    def close(self) -> None:
        """End the server, and the case that it may be at."""
        if self._server is not None:
            server, self._server = self._server, None
            assert server.stdin is not None
            assert server.stdout is not None
            try:
                server.stdin.close()  # it kills what it has forked
                server.wait(timeout=10)
            except (subprocess.TimeoutExpired, OSError):
                runner.end(server)
            server.stdout.close()

    def _asked(self, called: Called) -> object:
        if self._server is None or self._environment != called.environment:
            self.close()
            self._environment = called.environment
            self._server = runner.interpreter(
                "fork_server", self.modules, called.environment, subprocess.PIPE, subprocess.DEVNULL
            )
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        pickle.dump(called, self._server.stdin)
        self._server.stdin.flush()
        return pickle.load(self._server.stdout)  # noqa: S301 - written by our own server

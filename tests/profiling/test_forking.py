import os
import time
from pathlib import Path

import pytest

from memcalc.profiling import runner
from memcalc.profiling.case import Case
from memcalc.profiling.forking import ForkServer
from tests.profiling import elsewhere
from tests.tiny import tiny

CASE = Case(tiny())


def test_cases_are_forks_of_one_server_each_a_process_of_its_own() -> None:
    with ForkServer("") as server:
        pids = [runner.run(CASE, elsewhere.answers, call=server).measured["process"] for _ in range(3)]
        assert server._server is not None
        first = server._server.pid
        assert len({*pids, first, os.getpid()}) == 5
        environment = {"PYTORCH_ALLOC_CONF": "max_split_size_mb:64"}
        assert environment.items() <= _settings(server, "max_split_size_mb:64").items()
        assert server._server.pid != first  # the allocator reads them when the libraries are loaded
        assert _settings(server, "") == {}


def _settings(server: ForkServer, conf: str) -> dict[str, str]:
    found: dict[str, str] = runner.run(Case(tiny(alloc_conf=conf)), elsewhere.answers, call=server).measured["settings"]
    return found


def test_without_fork_each_case_is_a_fresh_interpreter() -> None:
    with ForkServer("") as server:
        server.forks = False
        assert runner.run(CASE, elsewhere.answers, call=server).outcome == "ok"
        assert server._server is None


def test_a_server_that_was_killed_is_started_again() -> None:
    with ForkServer("") as server:
        runner.run(CASE, elsewhere.answers, call=server)
        assert server._server is not None
        server._server.kill()
        assert [runner.run(CASE, elsewhere.answers, call=server).outcome for _ in range(2)] == ["ok", "ok"]


def test_a_case_ends_with_its_server(tmp_path: Path) -> None:
    with ForkServer("") as server:
        runner.run(CASE, elsewhere.answers, call=server)
        with pytest.raises(KeyboardInterrupt):
            runner.run(CASE, elsewhere.hangs, call=_interrupted(server))
    assert server._server is None


def _interrupted(server: ForkServer) -> runner.Call:
    import signal
    import threading

    def call(called: runner.Called) -> int | None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs do not have
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        return server(called)

    return call


def test_what_a_case_leaves_behind_ends_with_it() -> None:
    began = time.monotonic()
    with ForkServer("") as server:
        assert runner.run(CASE, elsewhere.orphans, call=server).outcome == "ok"
    assert time.monotonic() - began < 20

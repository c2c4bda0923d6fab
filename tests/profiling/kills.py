"""Kills a suite at random points and looks at what is left; `python -m tests.profiling.kills` does it 100 times.

There it also kills profiles/suites/cpu.toml, run for real, three times.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from memcalc.footprint import Footprint
from memcalc.profiling.store import Store

REAL = "profiles/suites/cpu.toml"


def names(store: Store) -> list[str]:
    """The cases in a store."""
    return [each.measured["case"] for _, each in store.footprints() if isinstance(each, Footprint)]


def kill_and_resume(
    command: Sequence[str], store: Store, kills: int, after: float, finished: Callable[[], set[str]]
) -> int:
    """Start the command again and again, and kill it up to `after` seconds behind its next line; at last let it end.

    Returns how often it was killed. Fails where a case of `finished` is not in the store.
    """
    points, killed = random.Random(7), 0
    out = Path(store.path)
    for _ in range(kills):
        before = out.stat().st_size
        process = subprocess.Popen([sys.executable, *command])
        while out.stat().st_size == before and process.poll() is None:
            time.sleep(0.001)
        time.sleep(points.uniform(0, after))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.wait()
        lost = finished() - set(names(store))
        assert not lost, f"finished and lost: {lost}"
    assert subprocess.run([sys.executable, *command], check=False).returncode == 0
    found = [each for _, each in store.footprints()]
    assert all(isinstance(each, Footprint) for each in found), "a line that cannot be read"
    assert len(set(names(store))) == len(found), "a case that has run twice"
    return killed


def fake(folder: Path, kills: int) -> tuple[int, list[str]]:
    """Cases that take no time: how often they were killed, and what the store has in the end."""
    out, log = folder / "fake.jsonl", folder / "finished.txt"
    log.touch()
    store = Store(str(out))
    command = ("-m", "tests.profiling.killed", str(out), str(log))
    killed = kill_and_resume(command, store, kills, 0.01, lambda: set(log.read_text().split()))
    found = names(store)
    store.close()
    return killed, found


def real(folder: Path, kills: int) -> tuple[int, list[str]]:
    """The suite of the CPU."""
    store = Store(str(folder / "real.jsonl"))
    command = ("-m", "memcalc", "profile", "--suite", REAL, "--out", store.path)
    seen: set[str] = set()

    def finished() -> set[str]:
        seen.update(names(store))
        return seen

    killed = kill_and_resume(command, store, kills, 5, finished)
    found = names(store)
    store.close()
    return killed, found


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for what, (killed, found) in (("fake", fake(Path(folder), 100)), (REAL, real(Path(folder), 3))):
            sys.stdout.write(f"{what}: killed {killed} times, {len(found)} cases, none lost and none twice\n")


if __name__ == "__main__":
    main()

"""How long a command takes from nothing: whole processes, beside a bare Python. Prints a table; asserts nothing."""

import compileall
import os
import resource
import statistics
import subprocess
import sys
import time

import memcalc

RUNS = 15
ESTIMATE = ("-m", "memcalc", "estimate", "--model", "llama-3.1-8b", "--method", "qlora", "--batch", "8")
CASES = {
    "bare python": ("-c", "pass"),
    "import click": ("-c", "import click"),
    "import rich's console": ("-c", "import rich.console, rich.text"),
    "memcalc --version": ("-m", "memcalc", "--version"),
    "memcalc --help": ("-m", "memcalc", "--help"),
    "memcalc estimate --help": ("-m", "memcalc", "estimate", "--help"),
    "memcalc estimate --json": (*ESTIMATE, "--json"),
    "memcalc estimate": ESTIMATE,
}


def milliseconds(arguments: tuple[str, ...]) -> tuple[float, float]:
    """Wall-clock and processor time of a run; the latter hardly feels what else the machine does."""
    began, used = time.perf_counter(), _children()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return 1000 * (time.perf_counter() - began), 1000 * (_children() - used)


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    compileall.compile_dir(os.path.dirname(memcalc.__file__), quiet=2)  # as an installation does
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in CASES}
    for _ in range(RUNS):  # in turn, so that a slow minute is everyone's
        for name, arguments in CASES.items():
            runs[name].append(milliseconds(arguments))
    print(f"{'process':<26}{'best ms':>9}{'median ms':>11}{'cpu ms':>9}{'x bare':>8}")
    bare = [wall for wall, _ in runs["bare python"]]
    for name, measured in runs.items():
        wall = [one for one, _ in measured]
        ratio = statistics.median(one / base for one, base in zip(wall, bare, strict=True))
        cpu = min(one for _, one in measured)
        print(f"{name:<26}{min(wall):>9.1f}{statistics.median(wall):>11.1f}{cpu:>9.1f}{ratio:>8.1f}")

"""How long a command takes from nothing: whole processes, beside a bare Python. Prints a table; asserts nothing."""

import resource
import statistics
import subprocess
import sys
import time

RUNS = 15
ESTIMATE = ("-m", "memcalc", "estimate", "--model", "1.3b", "--method", "qlora", "--batch", "8")
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


def milliseconds(arguments: tuple[str, ...]) -> tuple[list[float], list[float]]:
    """Wall-clock and processor time of each run; the latter hardly feels what else the machine does."""
    wall, processor = [], []
    for _ in range(RUNS):
        began, used = time.perf_counter(), _children()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        wall.append(1000 * (time.perf_counter() - began))
        processor.append(1000 * (_children() - used))
    return wall, processor


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    print(f"{'process':<26}{'best ms':>9}{'median ms':>11}{'cpu ms':>9}{'x bare':>8}")
    bare = None
    for name, arguments in CASES.items():
        wall, processor = milliseconds(arguments)
        bare = bare or min(wall)
        print(
            f"{name:<26}{min(wall):>9.1f}{statistics.median(wall):>11.1f}{min(processor):>9.1f}{min(wall) / bare:>8.1f}"
        )

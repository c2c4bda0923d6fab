"""How long a command takes from nothing: whole processes, beside a bare Python. Prints a table; asserts nothing."""

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


def milliseconds(arguments: tuple[str, ...]) -> list[float]:
    taken = []
    for _ in range(RUNS):
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        taken.append(1000 * (time.perf_counter() - began))
    return taken


if __name__ == "__main__":
    print(f"{'process':<26}{'best ms':>9}{'median ms':>11}{'x bare':>8}")
    bare = None
    for name, arguments in CASES.items():
        taken = milliseconds(arguments)
        bare = bare or min(taken)
        print(f"{name:<26}{min(taken):>9.1f}{statistics.median(taken):>11.1f}{min(taken) / bare:>8.1f}")

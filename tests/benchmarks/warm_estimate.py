"""How long memcalc.estimate takes once everything is imported. Prints a table; asserts nothing."""

import statistics
import time
from typing import Any

import memcalc

RUNS = 10
CASES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("1.3b", {"method": "full", "dtype": "fp32"}),
    ("1.3b", {"method": "qlora", "batch": 8}),
    ("llama-3.1-8b", {"method": "lora", "batch": 4, "seq_len": 2048}),
    ("llama-3.1-8b", {"method": "qlora", "batch": 4, "seq_len": 2048}),
    ("llama-3.1-70b", {"method": "qlora"}),
    ("llama-3.1-405b", {"method": "lora", "target": "all-linear"}),
)


def milliseconds(model: str, options: dict[str, Any]) -> list[float]:
    taken = []
    for _ in range(RUNS):
        began = time.perf_counter()
        memcalc.estimate(model, **options)
        taken.append(1000 * (time.perf_counter() - began))
    return taken


if __name__ == "__main__":
    print(f"{'model':<18}{'options':<46}{'best ms':>9}{'median ms':>11}")
    for model, options in CASES:
        taken = milliseconds(model, options)
        words = ", ".join(f"{name}={value}" for name, value in options.items())
        print(f"{model:<18}{words:<46}{min(taken):>9.1f}{statistics.median(taken):>11.1f}")

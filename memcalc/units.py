"""Bytes in and out: integers in code, GiB in print."""

import re

KIB, MIB, GIB = 2**10, 2**20, 2**30

_SIZE = re.compile(r"\s*(\d{1,15}(?:\.\d{1,6})?)\s*(KiB|MiB|GiB|TiB|KB|MB|GB|TB|B)\s*", re.IGNORECASE)
_UNITS = {
    "b": 1, "kib": KIB, "mib": MIB, "gib": GIB, "tib": 2**40,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
}  # fmt: skip
_COUNT = re.compile(r"\s*(\d{1,15}(?:\.\d{1,6})?)\s*(k|M|B|G|)\s*", re.IGNORECASE)
_THOUSANDS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9}


def gib(nbytes: int) -> str:
    """Bytes as people read them: "12.34 GiB", small figures in MiB or KiB so that they do not read 0.00."""
    size = abs(nbytes)
    if size >= GIB / 10:
        return f"{nbytes / GIB:,.2f} GiB"
    if size >= MIB / 10:
        return f"{nbytes / MIB:,.1f} MiB"
    return f"{nbytes / KIB:,.1f} KiB" if size else "0 GiB"


def parse_size(text: str) -> int | None:
    """Bytes of a size with its unit ("24GiB", "512 MiB", "80GB"), or None where the text is none."""
    match = _SIZE.fullmatch(text)
    return round(float(match[1]) * _UNITS[match[2].lower()]) if match else None


def count(number: int) -> str:
    """A parameter count as people say it: "1.30 B", "12.6 M"."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:,.2f} {unit}"
    return str(number)


def flops(number: int) -> str:
    """Floating-point operations as people say them: "8.42 TFLOP"."""
    for size, unit in ((10**15, "P"), (10**12, "T"), (10**9, "G"), (10**6, "M")):
        if number >= size:
            return f"{number / size:,.2f} {unit}FLOP"
    return f"{number} FLOP"


def parse_count(text: str) -> int | None:
    """A number of parameters as people say it ("10M", "1.5 B", "250k", "1_000_000"), or None where the text is none."""
    match = _COUNT.fullmatch(text.replace("_", "").replace(",", ""))
    return round(float(match[1]) * _THOUSANDS[match[2].lower()]) if match else None

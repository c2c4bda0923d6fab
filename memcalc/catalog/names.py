"""Names match loosely: "Llama_3.1_8b" is "llama-3.1-8B", but "1.3b" is not "13b"."""

import re
from itertools import pairwise

_WORD_OR_NUMBER = re.compile(r"[a-z]+|[0-9]+")


def loose(name: str) -> str:
    """A name without case and separators, save that one stays between two numbers: "1_3 B" → "1.3b"."""
    parts = _WORD_OR_NUMBER.findall(name.lower())
    joined = parts[:1]
    for before, part in pairwise(parts):
        joined.append(f".{part}" if before[0].isdigit() and part[0].isdigit() else part)
    return "".join(joined)

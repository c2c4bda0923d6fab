"""Names match loosely: "Llama_3.1_8b" is "llama-3.1-8B", but "1.3b" is not "13b"."""

import re
from collections.abc import Iterable
from itertools import pairwise

_WORD_OR_NUMBER = re.compile(r"[a-z]+|[0-9]+")
_WORD_OR_DECIMAL = re.compile(r"[a-z]+|[0-9]+(?:\.[0-9]+)*")
_HUB_ID = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)


def loose(name: str) -> str:
    """A name without case and separators, save that one stays between two numbers: "1_3 B" → "1.3b"."""
    parts = _WORD_OR_NUMBER.findall(name.lower())
    joined = parts[:1]
    for before, part in pairwise(parts):
        joined.append(f".{part}" if before[0].isdigit() and part[0].isdigit() else part)
    return "".join(joined)


def is_hub_id(text: str) -> bool:
    """Whether it could be ORG/NAME on the hub."""
    return _HUB_ID.fullmatch(text) is not None and ".." not in text and "--" not in text


def mentions(words: Iterable[str], texts: Iterable[str]) -> bool:
    """Whether every word is found in one of the texts: "llama3" in "Llama-3.1-8B", "3b" not in "13b" or "1.3b"."""
    lowered = [text.lower() for text in texts]
    return all(any(pattern.search(text) for text in lowered) for pattern in map(_pattern, words))


def _pattern(word: str) -> re.Pattern[str]:
    """Matches the word however its parts are joined. A number matches whole, or up to a point: 3 in 3.1."""
    parts = _WORD_OR_DECIMAL.findall(word.lower())
    if not parts:
        return re.compile(re.escape(word.lower()))
    guarded = (rf"(?<![0-9.]){re.escape(part)}(?![0-9])" if part[0].isdigit() else part for part in parts)
    return re.compile(r"[^a-z0-9]*".join(guarded))

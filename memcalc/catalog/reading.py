"""A JSON object from a file that anybody may have written: read with limits, refused in one line."""

import json
import os
import stat
from typing import Any, Never

from memcalc.errors import BadFile, shown

LARGEST_FILE = 2**20  # bytes; configs are a few KiB
DEEPEST = 20  # levels; configs have three or four


def read_object(path: str, largest: int = LARGEST_FILE) -> dict[str, Any]:
    """The JSON object that stands in the file `path`.

    Raises BadFile for all that cannot be read as one: not a regular file, larger than `largest` bytes, and what
    `parse_object` refuses.
    """
    return parse_object(_read_bytes(path, largest), place(path))


def parse_object(data: bytes, where: str, line: int | None = None) -> dict[str, Any]:
    """The JSON object that `data` is; `where`, and `line` where it is one line of a file, are named in errors.

    Raises BadFile for all that is none: not UTF-8, not JSON, nested too deep, a key given twice, NaN or Infinity,
    something else than an object at the top.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadFile(where, "not UTF-8 text", line) from None

    def no_constant(name: str) -> Never:
        raise BadFile(where, f"{name} is not a JSON number", line)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise BadFile(where, f"the key {shown(key)} stands there twice", line)
            found[key] = value
        return found

    too_deep = BadFile(where, f"nested more than {DEEPEST} levels deep", line)
    try:
        value = json.loads(text, parse_constant=no_constant, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise BadFile(where, f"not JSON: {error.msg}", line or error.lineno) from None
    except RecursionError:
        raise too_deep from None
    except ValueError:  # Python refuses to convert integers of thousands of digits
        raise BadFile(where, "holds a number of too many digits", line) from None
    if not isinstance(value, dict):
        raise BadFile(where, "a JSON object, {...}, is needed at the top", line)
    if _is_deep(value):
        raise too_deep
    return value


def read_model_config(text: str) -> tuple[dict[str, Any], str]:
    """A model's config from a folder that holds config.json, or from the file itself; and the file's path."""
    given = os.path.expanduser(text)
    file = os.path.join(given, "config.json") if os.path.isdir(given) else given
    if file != given and not os.path.exists(file):
        raise BadFile(place(text), "this folder holds no config.json")
    config = read_object(file)
    if "peft_type" in config:
        raise BadFile(place(file), "an adapter's config, not a model's: give it with --peft-config")
    if not isinstance(config.get("model_type"), str):
        raise BadFile(place(file), 'not a model\'s config.json: "model_type" (such as "llama") is missing')
    return config, file


def place(path: str) -> str:
    """A path as an error names it: in one line, whatever characters it has."""
    return path if path.isprintable() else repr(path)


def check_regular(path: str) -> None:
    """Raises BadFile for what is no regular file: a pipe might never end, a device neither."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise BadFile(place(path), "not a regular file")
    except OSError as error:
        raise BadFile(place(path), f"cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise BadFile(place(path), "not a path: it holds a null byte") from None


def _read_bytes(path: str, largest: int) -> bytes:
    check_regular(path)
    try:
        with open(path, "rb") as file:
            data = file.read(largest + 1)
    except OSError as error:
        raise BadFile(place(path), f"cannot be read: {error.strerror or error}") from None
    if len(data) > largest:
        raise BadFile(place(path), f"larger than {largest:,} bytes: too large to be what it should be")
    return data


def _is_deep(value: object) -> bool:
    """Whether a JSON value has more levels than DEEPEST: what is deeper, repr() and json.dumps() may not survive."""
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ())
        ]
    return bool(level)

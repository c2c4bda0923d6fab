"""A JSON object from a file that anybody may have written: read with limits, refused in one line."""

import json
import os
import stat
from typing import Any, Never

from memcalc.errors import BadFile, shown

LARGEST_FILE = 2**20  # bytes; configs are a few KiB
DEEPEST = 20  # levels; configs have three or four


def read_object(path: str) -> dict[str, Any]:
    """The JSON object that stands in the file `path`.

    Raises BadFile for all that cannot be read as one: not a regular file, too large, not UTF-8, not JSON,
    nested too deep, a key given twice, NaN or Infinity, something else than an object at the top.
    """
    text = _read_text(path)

    def no_constant(name: str) -> Never:
        raise BadFile(place(path), f"{name} is not a JSON number")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise BadFile(place(path), f"the key {shown(key)} stands there twice")
            found[key] = value
        return found

    too_deep = BadFile(place(path), f"nested more than {DEEPEST} levels deep: not a config")
    try:
        value = json.loads(text, parse_constant=no_constant, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise BadFile(place(path), f"not JSON: {error.msg}", error.lineno) from None
    except RecursionError:
        raise too_deep from None
    except ValueError:  # Python refuses to convert integers of thousands of digits
        raise BadFile(place(path), "holds a number of too many digits") from None
    if not isinstance(value, dict):
        raise BadFile(place(path), "a JSON object, {...}, is needed at the top")
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


def _read_text(path: str) -> str:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe might never end, a device neither
            raise BadFile(place(path), "not a regular file")
        with open(path, "rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise BadFile(place(path), f"cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise BadFile(place(path), "not a path: it holds a null byte") from None
    if len(data) > LARGEST_FILE:
        raise BadFile(place(path), f"larger than {LARGEST_FILE:,} bytes: too large to be a config")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadFile(place(path), "not UTF-8 text") from None


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

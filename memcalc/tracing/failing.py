"""Whatever a run raises in the user's libraries becomes one line, with the exit code that it deserves."""

import contextlib
from collections.abc import Iterator

from memcalc.errors import MemcalcError, NotModelled, RunFailed
from memcalc.realize.versions import not_importable

_NEEDS_VALUES = {  # what torch says where a step cannot do without real tensors
    "meta device type tensor": "reads the values of a tensor",
    "copy out of meta tensor": "reads the values of a tensor",
    "no fake impl registered": "calls an operator of its own that has no meta kernel",
}


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Raise MemcalcError only, inside a `with` block: not modelled where meta is at fault, else the run failed."""
    try:
        yield
    except MemcalcError:
        raise
    except ImportError as error:
        raise not_importable(error) from error
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else "no message"
        for words, why in _NEEDS_VALUES.items():
            if words in first:
                raise NotModelled(
                    f"the step {why}: memcalc profile runs it with real tensors, on --device cpu where there is no GPU"
                ) from error
        raise RunFailed(f"the traced step failed: {type(error).__name__}: {first}") from error

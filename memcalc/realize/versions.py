"""Which versions are installed, and what differs between those of transformers that people have, 4.45 to 5.x."""

# ruff: noqa: SLF001 - some of it is private

import contextlib
import importlib.metadata
import platform
from functools import cache
from typing import Any

from memcalc.errors import MemcalcError, MissingPackage, NotModelled

OLDEST = (4, 45)
_PACKAGES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes")
_EXTRAS = {"torch": "trace", "transformers": "trace", "peft": "trace", "accelerate": "trace", "bitsandbytes": "quant"}


def installed() -> dict[str, str]:
    """The versions of Python and of the libraries that a run's memory depends on; none of them is imported."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def not_importable(error: ImportError) -> MemcalcError:
    """What to say where a library cannot be imported: a package is missing, or two do not go together."""
    cause: BaseException = error
    while isinstance(cause.__cause__, ImportError):
        cause = cause.__cause__
    name = getattr(cause, "name", None)
    if isinstance(cause, ModuleNotFoundError) and name in _EXTRAS:
        return MissingPackage(name, _EXTRAS[name])
    said = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
    return NotModelled(f"the installed libraries do not go together: {said}")


@cache
def transformers_version() -> tuple[int, int]:
    """Major and minor. Raises MissingPackage where it is not installed, NotModelled where it is too old."""
    try:
        import transformers
    except ImportError as error:
        raise not_importable(error) from None
    major, minor = transformers.__version__.split(".")[:2]
    if (int(major), int(minor)) < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        raise NotModelled(
            f"transformers {transformers.__version__} is too old for trace and profile: {wanted} or newer"
        )
    return int(major), int(minor)


def dtype_keyword() -> str:
    """from_config's name for the weights' dtype; torch_dtype before 4.56."""
    return "dtype" if transformers_version() >= (4, 56) else "torch_dtype"


def warms_the_allocator_up() -> bool:
    """Whether from_pretrained asks for one large block first (from 4.50 on)."""
    import transformers.modeling_utils

    return hasattr(transformers.modeling_utils, "caching_allocator_warmup")


def tied_names(model: Any) -> set[str]:
    """Names in the state dict that stand for another parameter."""
    if hasattr(model, "all_tied_weights_keys"):  # 5.x
        return set(model.all_tied_weights_keys)
    first: dict[int, str] = {}
    return {
        name
        for name, tensor in model.named_parameters(remove_duplicate=False)
        if first.setdefault(id(tensor), name) != name
    }


def unpacked_modules(model: Any) -> list[str]:
    """Names of the modules that bitsandbytes leaves as they are: the head, tied and fp32 ones."""
    from transformers.quantizers.base import HfQuantizer

    in_fp32 = list(getattr(model, "_keep_in_fp32_modules", None) or [])
    if hasattr(HfQuantizer, "get_modules_to_not_convert"):  # 4.52
        kept: list[str] = HfQuantizer.get_modules_to_not_convert(model, None, in_fp32)
        return kept
    from transformers.integrations import get_keys_to_not_convert

    return [*get_keys_to_not_convert(model), *in_fp32]


def mark_quantized(model: Any, config: Any) -> None:
    """Tell a model, and whoever asks it, that its weights are packed."""
    for module in model.modules():
        if hasattr(module, "config"):
            module.config._is_quantized = True
    model.is_quantized = True
    model.quantization_method = config.quant_method
    model.config.quantization_config = config


def natural_order(name: str) -> list[tuple[Any, ...]]:
    """A key by which names sort as from_pretrained loads them: numbers as numbers, at the end of words too.

    Source: transformers 5.24, core_model_loading.py, dot_natural_key.
    """
    key: list[tuple[Any, ...]] = []
    for part in name.split("."):
        word = part.rstrip("0123456789")
        number = part[len(word) :]
        if not word:
            key.append((0, int(number)))
        else:
            key.append((1, word, int(number)) if number else (1, word))
    return key

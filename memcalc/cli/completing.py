"""Values of options for the shell's completion, as in: eval "$(_MEMCALC_COMPLETE=bash_source memcalc)"."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Completer = Callable[[Any, Any, str], "list[CompletionItem]"]  # a context, a parameter, what is typed so far


def completer(flag: str, choices: Sequence[str] = ()) -> Completer:
    """What may follow `flag`: its choices, or the names of the things that it names. A model may be a path."""

    def complete(_context: Any, _parameter: Any, incomplete: str) -> "list[CompletionItem]":
        from click.shell_completion import CompletionItem

        known = _KNOWN[flag]() if flag in _KNOWN else choices
        found = [CompletionItem(name) for name in known if name.lower().startswith(incomplete.lower())]
        return found or ([CompletionItem(incomplete, type="file")] if flag == "--model" else [])

    return complete


def _models() -> Iterable[str]:
    from memcalc.catalog.tables import model_entries

    for key, entry in model_entries():
        yield from (key, *entry["names"], *entry.get("choices", ()))


def _gpus() -> Iterable[str]:
    from memcalc.catalog.tables import cards

    return cards()


def _methods() -> Iterable[str]:
    from memcalc import methods

    return methods.names()


def _optimizers() -> Iterable[str]:
    from memcalc.optimizers import OPTIMIZERS

    return OPTIMIZERS


_KNOWN = {"--model": _models, "--gpu": _gpus, "--method": _methods, "--optimizer": _optimizers}

"""The report on parameter counts."""

from collections.abc import Iterator

from tests.counting import Count


def summary(found: list[Count]) -> str:
    """How many are exact."""
    exact = sum(each.exact for each in found)
    models = len({each.model for each in found})
    return f"{exact} of {len(found)} counts exact, total and trainable: {models} models."


def page(found: list[Count]) -> str:
    """The whole report in Markdown."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: list[Count]) -> Iterator[str]:
    yield "# Parameter counts: estimate against transformers and peft"
    yield ""
    yield "Made by `python -m tests.counts`: the real model on meta, counted by peft's get_nb_trainable_parameters."
    yield ""
    yield summary(found)
    yield ""
    yield "| model | method | total | trainable | exact |"
    yield "|---|---|---:|---:|---|"
    for each in found:
        if isinstance(each.real, str):
            yield f"| {each.model} | {each.method} | | | **no**: {each.real} |"
            continue
        said = "yes" if each.exact else f"**no**: estimate {each.estimated.total:,} and {each.estimated.trainable:,}"
        yield f"| {each.model} | {each.method} | {each.real.total:,} | {each.real.trainable:,} | {said} |"

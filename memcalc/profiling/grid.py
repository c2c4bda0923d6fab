"""Cases of a suite as its tables name them: products of lists of options, less what is excluded."""

from collections.abc import Iterator, Mapping
from itertools import product
from math import prod
from typing import Any

from memcalc.errors import InvalidWorkload, shown

MOST = 2000  # cases of one suite

Options = Mapping[str, Any]  # by their names in Python


def normal(table: object, what: str) -> dict[str, Any]:
    """A table's options by their names in Python: as on the command line, with _ for -."""
    if not isinstance(table, Mapping):
        raise InvalidWorkload(f"{what} must be a table of options, not {shown(table)}")
    found = {name.removeprefix("--").replace("-", "_"): value for name, value in table.items()}
    if len(found) < len(table):
        raise InvalidWorkload(f"{what} gives an option twice, once with - and once with _")
    return found


def combinations(table: Options, excluded: object, variants: object) -> Iterator[dict[str, Any]]:
    """Every combination of a grid, in order, the last option changing fastest.

    A list is an axis, anything else holds for all. `variants` is an axis whose items are tables of options. Of
    `excluded` each table takes away the combinations that have all that it says, where a list means any of these.
    Raises InvalidWorkload.
    """
    axes = [[{name: each} for each in (value if isinstance(value, list) else [value])] for name, value in table.items()]
    rules = [normal(rule, "an item of exclude") for rule in _tables(excluded, "exclude")]
    if variants is not None:
        axes.append([normal(each, "an item of variants") for each in _tables(variants, "variants")])
    count = prod(map(len, axes))
    if not count:
        raise InvalidWorkload("an empty list leaves no case")
    if count > MOST:
        raise InvalidWorkload(f"{count:,} combinations: a suite holds at most {MOST:,}")
    used = set()
    for parts in product(*axes):
        options = {name: value for part in parts for name, value in part.items()}
        against = [at for at, rule in enumerate(rules) if _meets(options, rule)]
        used.update(against)
        if not against:
            yield options
    for at, rule in enumerate(rules):
        if at not in used:
            raise InvalidWorkload(f"exclude {shown(rule)} meets no combination")


def _tables(value: object, what: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list) or not value or not all(isinstance(each, dict) and each for each in value):
        raise InvalidWorkload(f"{what} must be a list of tables of options, not {shown(value)}")
    return value


def _meets(options: Options, rule: Options) -> bool:
    return all(name in options and _is_one_of(options[name], wanted) for name, wanted in rule.items())


def _is_one_of(value: object, wanted: object) -> bool:
    return any(
        type(value) is type(each) and value == each for each in (wanted if isinstance(wanted, list) else [wanted])
    )

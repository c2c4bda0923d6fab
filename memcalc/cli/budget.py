"""`memcalc budget`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

import memcalc
from memcalc.cli.fields import reader
from memcalc.cli.options import MethodsCommand
from memcalc.cli.show import printed, progress
from memcalc.errors import InvalidWorkload

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

EXAMPLES = (
    "memcalc budget --model llama-3.1-8b --params 10M",
    "memcalc budget --model 1.3b --percent 0.1 --target all-linear --only lora,dora,oft",
    "memcalc budget --model 1.3b --method lora --rank 16",
)


@click.command(cls=MethodsCommand, examples=EXAMPLES)
@click.option("--params", metavar="N", help="at most so many trained parameters: 10M, 1.5B, 250k")
@click.option(
    "--percent", type=reader(frozenset((float,))), metavar="X", help="at most so many in a hundred of the model's own"
)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
@click.version_option(memcalc.__version__, prog_name="memcalc", message="%(prog)s %(version)s")
def budget(
    model: str | None,
    only: Sequence[str],
    options: Mapping[str, Any],
    params: str | None,
    percent: float | None,
    as_json: bool,
) -> None:
    """What a budget of trained parameters buys: each method at the largest size within it, and what that needs.

    Without --params and --percent each method is taken as it is given, which tells what a size costs.
    """
    from memcalc import methods
    from memcalc.planning.budget import budget as plan

    if model is None:
        raise InvalidWorkload("--model is missing: give a name (--model llama-3.1-8b), a size (7b) or a path")
    names = only or methods.names()
    with progress(len(names)) as tell:
        found = plan(model, names, options, params, percent, tell)
    if as_json:
        click.echo(json.dumps(found.to_json()))
        return
    from memcalc.reporting.budget import bought

    printed(bought(found, on_gpu="gpu" in options))

"""`memcalc levers`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

import memcalc
from memcalc.cli.options import WorkloadCommand
from memcalc.cli.show import printed, trying_levers

if TYPE_CHECKING:
    from memcalc.planning.levers import Effect
    from memcalc.workload import Workload

EXAMPLES = (
    "memcalc levers --model llama-3.1-8b --method lora --batch 8 --seq-len 2048",
    "memcalc levers --model 1.3b --method full --optimizer adamw_torch --gpu rtx4090",
    "memcalc levers --model mistral-7b --method qlora --json",
)


@click.command(cls=WorkloadCommand, examples=EXAMPLES)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
@click.version_option(memcalc.__version__, prog_name="memcalc", message="%(prog)s %(version)s")
def levers(workload: Workload, as_json: bool) -> None:
    """What every single lever saves or costs on this workload, each really estimated."""
    from memcalc.estimating import estimate
    from memcalc.planning.levers import effects

    base = estimate(workload)
    with trying_levers():
        found = effects(workload, base)
    if as_json:
        told = {"workload": base.workload, "peak_reserved": base.peak_reserved, "peak_allocated": base.peak_allocated}
        click.echo(json.dumps({**told, "levers": [_entry(effect) for effect in found]}))
        return
    from memcalc.reporting.changes import waterfall

    named = click.get_current_context().get_parameter_source("gpu") is ParameterSource.COMMANDLINE
    printed(waterfall(base, found, str(base.workload["gpu"]) if named else None))


def _entry(effect: Effect) -> dict[str, Any]:
    return {
        "lever": effect.lever.name,
        "price": effect.lever.price,
        "costs": effect.lever.costs,
        "options": dict(effect.options),
        "flags": effect.flags,
        "peak_reserved": effect.footprint.peak_reserved,
        "peak_allocated": effect.footprint.peak_allocated,
        "saved": effect.saved,
    }

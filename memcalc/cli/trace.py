"""`memcalc trace`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from memcalc.cli.options import WorkloadCommand
from memcalc.cli.show import Show, footprint_options

if TYPE_CHECKING:
    from memcalc.workload import Workload

EXAMPLES = (
    "memcalc trace --model llama-3.1-8b --method qlora --batch 4",
    "memcalc trace --model ./my-model --peft-config ./adapter_config.json --top 20",
    "memcalc trace --model 7b --method lora --attention flash --gpu h100 --json",
)


@click.command(cls=WorkloadCommand, examples=EXAMPLES)
@footprint_options
def trace(workload: Workload, show: Show) -> None:
    """Replay the real transformers and peft step on meta tensors: no GPU, with the versions that are installed."""
    import warnings

    from rich.console import Console

    warnings.simplefilter("ignore", FutureWarning)  # of the libraries among themselves
    with Console(stderr=True).status("importing torch and transformers") as status:  # silent in a pipe
        from memcalc.tracing.record import trace

        footprint = trace(workload, top=show.top, progress=status.update)
    show(footprint)

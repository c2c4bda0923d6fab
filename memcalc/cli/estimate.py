"""`memcalc estimate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from memcalc.cli.options import WorkloadCommand
from memcalc.cli.show import Show, footprint_options, trying_levers

if TYPE_CHECKING:
    from memcalc.planning.advice import Advice
    from memcalc.workload import Workload

EXAMPLES = (
    "memcalc estimate --model 1.3b --method qlora --batch 8",
    "memcalc estimate --model llama-3.1-8b --rank 16 --target all-linear --gpu rtx4090",
    "memcalc estimate --model llama-3.1-8b --method full --optimizer adamw_torch --checkpointing",
    "memcalc estimate --model ./my-model --quant nf4 --gpu 24GiB --check --json",
)


@click.command(cls=WorkloadCommand, examples=EXAMPLES)
@footprint_options
def estimate(workload: Workload, show: Show) -> None:
    """Predict GPU memory and trainable parameters in closed form. Needs neither torch nor a GPU."""
    from memcalc.estimating import estimate

    footprint = estimate(workload, top=show.top)

    def ways() -> Advice:
        from memcalc.planning.advice import advise

        with trying_levers():
            return advise(workload, footprint)

    show(footprint, ways)

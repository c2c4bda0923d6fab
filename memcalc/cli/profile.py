"""`memcalc profile`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from memcalc.cli.options import WorkloadCommand
from memcalc.cli.show import Show, footprint_options
from memcalc.cli.suites import suite_options
from memcalc.errors import InvalidWorkload, RunFailed

if TYPE_CHECKING:
    from memcalc.workload import Workload

EXAMPLES = (
    "memcalc profile --model llama-3.1-8b --method qlora --batch 4 --out ./runs.jsonl",
    "memcalc profile --model ./my-model --pretrained --method lora --snapshot ./peak.pickle",
    "memcalc profile --model ./my-model --dtype fp32 --device cpu --json",
    "memcalc profile --suite ./profiles/suites/core.toml --out ./core.jsonl",
)


_WITH_SUITE = ("suite", "shard", "list_cases", "retry", "shared", "out", "timeout", "warmup", "steps", "top")


class ProfileCommand(WorkloadCommand):
    """One workload by its options, or with --suite those that a file names."""

    def invoke(self, ctx: click.Context) -> Any:
        source = ctx.get_parameter_source
        given = [param for param in self.get_params(ctx) if source(param.name or "") is ParameterSource.COMMANDLINE]
        if ctx.params["suite"] is None:
            for param in given:
                if param.name in ("shard", "list_cases", "retry", "shared"):
                    raise InvalidWorkload(f"{param.opts[0]} goes with --suite only")
            for name in ("suite", "shard", "list_cases", "retry", "shared"):
                del ctx.params[name]
            return super().invoke(ctx)
        for param in given:
            if param.name not in _WITH_SUITE:
                raise InvalidWorkload(f"{param.opts[0]} cannot go with --suite: the file names each case's options")
        from memcalc.cli import suites

        return suites.run(**{name: ctx.params[name] for name in _WITH_SUITE})


@click.command(cls=ProfileCommand, examples=EXAMPLES)
@suite_options
@footprint_options
@click.option("--pretrained", is_flag=True, help="load the checkpoint's weights (safetensors), not random ones")
@click.option(
    "--warmup", type=click.IntRange(0), default=1, show_default=True, metavar="N", help="steps before the timed ones"
)
@click.option(
    "--steps", type=click.IntRange(0), default=3, metavar="N", help="steps to time, behind the measured one  [3]"
)
@click.option("--snapshot", metavar="FILE", help="write PyTorch's memory snapshot, for pytorch.org/memory_viz")
@click.option("--out", metavar="FILE", help="append the footprint as a JSON line, whatever the outcome")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), metavar="S", help="stop the run after S seconds")
def profile(workload: Workload, show: Show, **how: Any) -> None:
    """Measure the step on a real device, in a process of its own: torch's counters per phase, NVML, the context.

    Without --gpu the card is the one that is there; with it, the verdict is about the card that it names.
    """
    import memcalc

    footprint = memcalc.profile(workload, top=show.top, **how)
    if click.get_current_context().get_parameter_source("gpu") is ParameterSource.COMMANDLINE:
        footprint = replace(footprint, workload={**footprint.workload, "gpu": workload.to_json()["gpu"]})
    if footprint.outcome == "ok":
        show(footprint)
        return
    show._replace(check=False, verdict=False)(footprint)
    raise RunFailed(footprint.unavailable["peak_allocated"])

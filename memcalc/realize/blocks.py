"""BAdam's optimizer around another one: it trains one block of the parameters at a time, in fp32 copies."""

import contextlib
from collections.abc import Mapping
from typing import Any

import torch

from memcalc.errors import MissingPackage
from memcalc.methods.base import SWITCH_EVERY
from memcalc.realize.freezing import anatomy_of
from memcalc.realize.watch import Watch
from memcalc.workload import Workload


def in_blocks(optimizer: torch.optim.Optimizer, model: Any, workload: Workload, watch: Watch) -> Any:
    """badam's BlockOptimizer over the method's blocks, which ends the measured step with the lowest one's switch."""
    try:
        from badam import BlockOptimizer
    except ImportError:
        raise MissingPackage("badam", "optim") from None

    class Watched(BlockOptimizer):  # type: ignore[misc]
        """Tells whoever watches what it does, and says nothing on standard output."""

        @property
        def state(self) -> Mapping[torch.Tensor, Mapping[str, Any]]:
            """What is kept for the block: the copies themselves too."""
            kept = self.base_optimizer.state
            return {copy: {"copy": copy, **kept.get(copy, {})} for copy in self.param_idx2hp.values()}

        @state.setter
        def state(self, value: Any) -> None:
            """torch's constructor sets it; the optimizer inside has the states."""

        def step(self, *args: Any, **kwargs: Any) -> None:
            with contextlib.redirect_stdout(None):
                super().step(*args, **kwargs)

        def step_single_gpu(self, *args: Any, **kwargs: Any) -> None:
            """What comes before the cache is emptied and the block is switched."""
            super().step_single_gpu(*args, **kwargs)
            watch.settle()
            watch.empty_cache()

    anatomy = anatomy_of(model)
    prefixes = [[f"{anatomy.layers}.{index}."] for index in range(anatomy.depth)]
    rounds = sum(item != "empty" for item in workload.history)
    with contextlib.redirect_stdout(None):
        return Watched(
            optimizer,
            list(model.named_parameters()),
            prefixes,
            switch_block_every=SWITCH_EVERY,
            start_block=rounds % anatomy.depth,
        )

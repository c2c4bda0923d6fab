"""Optimizers, a row each, under Hugging Face's names: the states that they keep and what a step allocates."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple


class Optimizer(NamedTuple):
    """How one optimizer touches memory in a step."""

    torch_class: str
    states: tuple[str, ...]  # full-sized, per trained tensor, in order of creation
    source: str
    torch_options: Mapping[str, Any] = {}
    takes_grad_scale: bool = False  # GradScaler hands it the scale (torch: _step_supports_amp_scaling)
    step_on_device: bool = False  # an fp32 scalar `step` per tensor, made before the states; else it is on the host
    temporaries: Literal["none", "all at once", "one by one"] = "none"  # the square root of the second moment
    born_from_gradient: bool = False  # states are made of the first gradient inside the step (and only with momentum)


_ADAMW = ("exp_avg", "exp_avg_sq")

OPTIMIZERS: Mapping[str, Optimizer] = {
    "adamw_torch": Optimizer(
        torch_class="torch.optim.AdamW",
        torch_options={"foreach": True},
        states=_ADAMW,
        temporaries="all at once",
        source="PyTorch 2.13, torch/optim/adam.py, _multi_tensor_adam",
    ),
    "adamw_torch_fused": Optimizer(
        torch_class="torch.optim.AdamW",
        torch_options={"fused": True},
        states=_ADAMW,
        takes_grad_scale=True,
        step_on_device=True,
        source="PyTorch 2.13, torch/optim/adam.py, _fused_adam",
    ),
    "adamw_torch_forloop": Optimizer(
        torch_class="torch.optim.AdamW",
        torch_options={"foreach": False},
        states=_ADAMW,
        temporaries="one by one",
        source="PyTorch 2.13, torch/optim/adam.py, _single_tensor_adam",
    ),
    "sgd": Optimizer(
        torch_class="torch.optim.SGD",
        states=("momentum_buffer",),
        born_from_gradient=True,
        source="PyTorch 2.13, torch/optim/sgd.py, _multi_tensor_sgd",
    ),
}


def canonical_optimizer(text: str) -> str:
    """Hugging Face's name for what a user wrote: case, `-` and `_` do not matter; adamw is adamw_torch."""
    name = text.strip().lower().replace("-", "_")
    return {"adamw": "adamw_torch"}.get(name, name)


# Hugging Face's other names (transformers 5.24.0, training_args.py, OptimizerNames), without a row here yet.
AWAITED = frozenset(
    (  # noqa: SIM905 - a list of words reads better in lines
        "adamw_torch_xla adamw_torch_npu_fused adafactor adamw_anyprecision adamw_torch_4bit adamw_torch_8bit "
        "ademamix adagrad adamw_bnb_8bit adamw_8bit ademamix_8bit lion_8bit lion_32bit paged_adamw_32bit "
        "paged_adamw_8bit paged_ademamix_32bit paged_ademamix_8bit paged_lion_32bit paged_lion_8bit rmsprop "
        "rmsprop_bnb rmsprop_bnb_8bit rmsprop_bnb_32bit galore_adamw galore_adamw_8bit galore_adafactor "
        "galore_adamw_layerwise galore_adamw_8bit_layerwise galore_adafactor_layerwise lomo adalomo grokadamw "
        "schedule_free_radam schedule_free_adamw schedule_free_sgd apollo_adamw apollo_adamw_layerwise "
        "stable_adamw "
    ).split()
)

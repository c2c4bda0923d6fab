"""Optimizers, a row each, under Hugging Face's names: the states that they keep and what a step allocates."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

Temporaries = Literal[  # what a step allocates besides states: each is a function of memcalc/step/updates.py
    "none",
    "all at once",  # the square root of the second moment, of all tensors of a dtype
    "one by one",  # the square root of the second moment and its quotient, tensor by tensor
    "all at once on a GPU",  # as "all at once"; tensor by tensor on the CPU
    "roots and numerators",  # the same, and the gradients times the learning rate
    "update in fp32",  # Adafactor's, tensor by tensor, with fp32 copies of gradient and parameter
]


class Trained(NamedTuple):
    """A trained parameter, as an optimizer sees it."""

    shape: tuple[int, ...]
    dtype: str
    in_32_bits: bool = False  # Trainer asks 8-bit optimizers to spare embeddings


class State(NamedTuple):
    """A tensor that an optimizer keeps for a parameter."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    by_update: bool = False  # made anew by every step, not before the first


States = Callable[[Trained], tuple[State, ...]]  # in order of creation


class Optimizer(NamedTuple):
    """How one optimizer touches memory in a step."""

    torch_class: str
    states: States
    source: str
    torch_options: Mapping[str, Any] = {}
    momentum: str = ""  # the state that it keeps if it is given a --momentum
    takes_grad_scale: bool = False  # GradScaler hands it the scale (torch: _step_supports_amp_scaling)
    temporaries: Temporaries = "none"
    made: Literal["at first step", "from gradients", "at once"] = "at first step"  # at once: in its constructor

    def state_names(self) -> tuple[str, ...]:
        """What it keeps for a large matrix."""
        return tuple(state.name for state in self.states(Trained((4096, 4096), "bf16")))


def _like(*names: str) -> States:
    """States of the parameter's own shape and dtype."""
    return lambda trained: tuple(State(name, trained.shape, trained.dtype) for name in names)


def _fused(*names: str) -> States:
    """As _like, behind a count of steps on the device."""
    return lambda trained: (State("step", (), "fp32"), *_like(*names)(trained))


def _factored(trained: Trained) -> tuple[State, ...]:
    """Adafactor's second moment in fp32: means over the last dimension and over the one before, where there are two."""
    shape = trained.shape
    scale = State("RMS", (), "fp32", by_update=True)
    if len(shape) < 2:
        return State("exp_avg_sq", shape, "fp32"), scale
    return (
        State("exp_avg_sq_row", shape[:-1], "fp32"),
        State("exp_avg_sq_col", shape[:-2] + shape[-1:], "fp32"),
        scale,
    )


_ADAMW = ("exp_avg", "exp_avg_sq")

OPTIMIZERS: Mapping[str, Optimizer] = {
    "adamw_torch": Optimizer(
        torch_class="torch.optim.AdamW",
        torch_options={"foreach": True},
        states=_like(*_ADAMW),
        temporaries="all at once",
        source="PyTorch 2.13, torch/optim/adam.py, _multi_tensor_adam",
    ),
    "adamw_torch_fused": Optimizer(
        torch_class="torch.optim.AdamW",
        torch_options={"fused": True},
        states=_fused(*_ADAMW),
        takes_grad_scale=True,
        source="PyTorch 2.13, torch/optim/adam.py, _fused_adam",
    ),
    "adamw_torch_forloop": Optimizer(
        torch_class="torch.optim.AdamW",
        torch_options={"foreach": False},
        states=_like(*_ADAMW),
        temporaries="one by one",
        source="PyTorch 2.13, torch/optim/adam.py, _single_tensor_adam",
    ),
    "sgd": Optimizer(
        torch_class="torch.optim.SGD",
        states=_like(),
        momentum="momentum_buffer",
        made="from gradients",
        source="PyTorch 2.13, torch/optim/sgd.py, _multi_tensor_sgd",
    ),
    "adagrad": Optimizer(
        torch_class="torch.optim.Adagrad",
        states=_like("sum"),
        temporaries="roots and numerators",
        made="at once",
        source="PyTorch 2.13, torch/optim/adagrad.py, _multi_tensor_adagrad",
    ),
    "rmsprop": Optimizer(
        torch_class="torch.optim.RMSprop",
        states=_like("square_avg"),
        momentum="momentum_buffer",
        temporaries="all at once on a GPU",
        source="PyTorch 2.13, torch/optim/rmsprop.py, _multi_tensor_rmsprop",
    ),
    "adafactor": Optimizer(
        torch_class="transformers.optimization.Adafactor",
        torch_options={"scale_parameter": False, "relative_step": False},
        states=_factored,
        temporaries="update in fp32",
        source="transformers 5.24.0, optimization.py, Adafactor; trainer_optimizer.py, _get_adafactor",
    ),
}


def canonical_optimizer(text: str) -> str:
    """Hugging Face's name for what a user wrote: case, `-` and `_` do not matter; adamw is adamw_torch."""
    name = text.strip().lower().replace("-", "_")
    return {"adamw": "adamw_torch"}.get(name, name)


# Hugging Face's other names (transformers 5.24.0, training_args.py, OptimizerNames), without a row here yet.
AWAITED = frozenset(
    (  # noqa: SIM905 - a list of words reads better in lines
        "adamw_torch_xla adamw_torch_npu_fused adamw_anyprecision adamw_torch_4bit adamw_torch_8bit "
        "ademamix adamw_bnb_8bit adamw_8bit ademamix_8bit lion_8bit lion_32bit paged_adamw_32bit "
        "paged_adamw_8bit paged_ademamix_32bit paged_ademamix_8bit paged_lion_32bit paged_lion_8bit "
        "rmsprop_bnb rmsprop_bnb_8bit rmsprop_bnb_32bit galore_adamw galore_adamw_8bit galore_adafactor "
        "galore_adamw_layerwise galore_adamw_8bit_layerwise galore_adafactor_layerwise lomo adalomo grokadamw "
        "schedule_free_radam schedule_free_adamw schedule_free_sgd apollo_adamw apollo_adamw_layerwise "
        "stable_adamw "
    ).split()
)

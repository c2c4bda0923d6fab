"""Optimizers, a row each, under Hugging Face's names: the states that they keep and what a step allocates."""

from collections.abc import Callable, Collection, Iterable, Mapping
from math import prod
from typing import Any, Literal, NamedTuple

from memcalc.errors import InvalidWorkload
from memcalc.formats import ITEMSIZE
from memcalc.units import gib

Temporaries = Literal[  # what a step allocates besides states: each is a function of memcalc/step/updates.py
    "none",
    "all at once",  # the square root of the second moment, of all tensors of a dtype
    "one by one",  # the square root of the second moment and its quotient, tensor by tensor
    "all at once on a GPU",  # as "all at once"; tensor by tensor on the CPU
    "roots and numerators",  # the same, and the gradients times the learning rate
    "group at once",  # the root of the second moment, of all tensors of a group
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
    shared: bool = False  # one for all parameters, made for the first that needs it
    paged: bool = False  # in CUDA's managed memory, outside of torch's allocator

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * ITEMSIZE[self.dtype]


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
    projects: bool = False  # gradients of the weights that a method names
    layer_by_layer: bool = False  # steps each parameter in backward, as soon as its gradient is there
    without_bf16: bool = False  # no kernel for bf16 gradients of a parameter whose states are in 32 bits
    made: Literal["at first step", "from gradients", "at once"] = "at first step"  # at once: in its constructor

    @property
    def package(self) -> str:
        """Whose it is: torch, transformers, …"""
        return self.torch_class.partition(".")[0]

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


_QUANTIZED_FROM = 4096  # elements: min_8bit_size
_PAGED_FROM = 100_000  # elements
_BLOCK = 256  # elements with one scale


def _bitsandbytes(bits: Literal[8, 32], count: Literal[1, 2], *, paged: bool = False, doubled: bool = False) -> States:
    """`count` states of 8 or 32 bits; `doubled`: two moments lie in the first.

    In 8 bits a state is codes, an fp32 scale for each block, and a map of 256 values; small parameters stay in 32.
    Source: bitsandbytes 0.50.2, optim/optimizer.py, Optimizer1State and Optimizer2State (init_state,
    get_state_buffer); optim/ademamix.py, AdEMAMix.init_state.
    """

    def states(trained: Trained) -> tuple[State, ...]:
        elements = prod(trained.shape)
        lead = (2,) if doubled else ()
        numbered = [(1, (*lead, *trained.shape), lead), (2, trained.shape, ())][:count]
        managed = paged and elements >= _PAGED_FROM
        dtype = "fp32" if bits == 32 or elements < _QUANTIZED_FROM or trained.in_32_bits else "uint8"
        codes = tuple(State(f"state{n}", shape, dtype, paged=managed) for n, shape, _ in numbered)
        if dtype == "fp32":
            return codes
        maps = tuple(State(f"qmap{n}", (256,), "fp32", shared=True) for n, _, _ in numbered)
        blocks = -(-elements // _BLOCK)
        scales = tuple(State(f"absmax{n}", (*lead, blocks), "fp32") for n, _, lead in numbered)
        return maps + (scales + codes if doubled else codes + scales)

    return states


def _of_bitsandbytes(
    name: str, bits: Literal[8, 32], count: Literal[1, 2], *, doubled: bool = False, paged: bool = False
) -> Optimizer:
    options: dict[str, Any] = {"optim_bits": bits}
    return Optimizer(
        torch_class=f"bitsandbytes.optim.{name}",
        torch_options=options | {"is_paged": True} if paged else options,
        states=_bitsandbytes(bits, count, paged=paged, doubled=doubled),
        without_bf16=name == "RMSprop",
        source="bitsandbytes 0.50.2, optim/optimizer.py; transformers 5.24.0, trainer_optimizer.py",
    )


_ADAMW = ("exp_avg", "exp_avg_sq")

_GALORE = Optimizer(
    torch_class="galore_torch.GaLoreAdamW",
    torch_options={"no_deprecation_warning": True},
    states=_like(*_ADAMW),
    projects=True,
    source="galore_torch 1.0, adamw.py, AdamW.step",
)

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
    "schedule_free_adamw": Optimizer(
        torch_class="schedulefree.AdamWScheduleFree",
        states=_like("z", "exp_avg_sq"),
        temporaries="group at once",
        source="schedulefree 1.4.1, adamw_schedulefree.py, AdamWScheduleFree.step",
    ),
    "schedule_free_radam": Optimizer(
        torch_class="schedulefree.RAdamScheduleFree",
        states=_like("z", "exp_avg_sq"),
        temporaries="group at once",
        source="schedulefree 1.4.1, radam_schedulefree.py, RAdamScheduleFree.step, from the sixth step on",
    ),
    "schedule_free_sgd": Optimizer(
        torch_class="schedulefree.SGDScheduleFree",
        states=_like("z"),
        source="schedulefree 1.4.1, sgd_schedulefree.py, SGDScheduleFree.step",
    ),
    "galore_adamw": _GALORE,
    "galore_adamw_layerwise": _GALORE._replace(layer_by_layer=True),
    "adamw_8bit": _of_bitsandbytes("AdamW", 8, 2),
    "adamw_bnb_8bit": _of_bitsandbytes("AdamW", 8, 2),
    "paged_adamw_32bit": _of_bitsandbytes("AdamW", 32, 2, paged=True),
    "paged_adamw_8bit": _of_bitsandbytes("AdamW", 8, 2, paged=True),
    "ademamix": _of_bitsandbytes("AdEMAMix", 32, 2, doubled=True),
    "ademamix_8bit": _of_bitsandbytes("AdEMAMix", 8, 2, doubled=True),
    "paged_ademamix_32bit": _of_bitsandbytes("AdEMAMix", 32, 2, doubled=True, paged=True),
    "paged_ademamix_8bit": _of_bitsandbytes("AdEMAMix", 8, 2, doubled=True, paged=True),
    "lion_32bit": _of_bitsandbytes("Lion", 32, 1),
    "lion_8bit": _of_bitsandbytes("Lion", 8, 1),
    "paged_lion_32bit": _of_bitsandbytes("Lion", 32, 1, paged=True),
    "paged_lion_8bit": _of_bitsandbytes("Lion", 8, 1, paged=True),
    "rmsprop_bnb": _of_bitsandbytes("RMSprop", 32, 1),
    "rmsprop_bnb_32bit": _of_bitsandbytes("RMSprop", 32, 1),
    "rmsprop_bnb_8bit": _of_bitsandbytes("RMSprop", 8, 1),
}


def canonical_optimizer(text: str) -> str:
    """Hugging Face's name for what a user wrote: case, `-` and `_` do not matter; adamw is adamw_torch."""
    name = text.strip().lower().replace("-", "_")
    return {"adamw": "adamw_torch"}.get(name, name)


def check_trained(name: str, trained: Collection[Trained], *, scaled: bool, clipped: bool) -> None:
    """Refuse parameters that the optimizer's kernels cannot step, or GradScaler not unscale.

    scaled: whether there is a GradScaler; clipped: whether gradients are unscaled before the optimizer's step, of
    which a fused one unscales those of half precision too.
    Source: bitsandbytes 0.50.2, backends/cuda/ops.py, str2optimizer32bit; PyTorch 2.13, torch/amp/grad_scaler.py,
    _unscale_grads_, step.
    """
    row = OPTIMIZERS[name]
    if scaled and (clipped or not row.takes_grad_scale) and any(one.dtype == "fp16" for one in trained):
        raise InvalidWorkload(
            "--amp fp16 cannot go with trained fp16 weights: GradScaler refuses to unscale fp16 gradients; "
            "use --dtype fp32 with it, or --amp none"
        )
    if row.without_bf16 and any(one.dtype == "bf16" and "absmax1" not in _names(row.states(one)) for one in trained):
        raise InvalidWorkload(
            f"--optimizer {name} cannot step bf16 parameters whose states are in 32 bits: bitsandbytes has no kernel "
            "of RMSprop for them; use --dtype fp32"
        )


def about_managed_memory(name: str, nbytes: int) -> tuple[str, ...]:
    """What a footprint says of states that torch's allocator does not hold."""
    if not nbytes:
        return ()
    text = f"{name} keeps {gib(nbytes)} of optimizer states in managed memory, outside of torch's allocator: no level "
    return (text + "here counts them; the device holds those that are paged in, at most all",)


def _names(states: Iterable[State]) -> set[str]:
    return {state.name for state in states}


# Hugging Face's other names (transformers 5.24.0, training_args.py, OptimizerNames), without a row here yet.
AWAITED = frozenset(
    (  # noqa: SIM905 - a list of words reads better in lines
        "adamw_torch_xla adamw_torch_npu_fused adamw_anyprecision adamw_torch_4bit adamw_torch_8bit "
        "galore_adamw galore_adamw_8bit galore_adafactor "
        "galore_adamw_layerwise galore_adamw_8bit_layerwise galore_adafactor_layerwise lomo adalomo grokadamw "
        "apollo_adamw apollo_adamw_layerwise "
        "stable_adamw "
    ).split()
)

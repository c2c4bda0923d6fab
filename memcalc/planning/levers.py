"""The levers that move memory: what each changes in a workload, what it costs besides, and what it saves here and now.

A lever is a row of LEVERS. Its `changes` gives the options to set, mildest first, or none where it does nothing to
this workload. Nothing is guessed: each change is a workload of its own, estimated in full.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.estimating import estimate
from memcalc.footprint import Footprint
from memcalc.importers import peft
from memcalc.optimizers import OPTIMIZERS
from memcalc.workload import Workload

Options = Mapping[str, Any]
PRICES = ("free", "time", "precision", "capacity", "context")  # what a lever is paid with, cheapest first


class Lever(NamedTuple):
    """One thing that people do to save memory."""

    name: str
    price: str  # one of PRICES
    costs: str  # what happens besides
    changes: Callable[[Workload], Iterable[Options]]


@dataclass(frozen=True)
class Effect:
    """A lever pulled: the changed workload and its footprint."""

    lever: Lever
    options: Options
    workload: Workload
    footprint: Footprint
    saved: int  # bytes of reserved memory; negative where it costs memory
    flags: str  # the change as it is written on the command line


def changed(w: Workload, options: Options) -> Workload:
    """The workload with some options changed; raises InvalidWorkload where they cannot go with the others."""
    dropped = w.method.options() if "method" in options else {}
    return peft.from_json({**{name: value for name, value in w.to_json().items() if name not in dropped}, **options})


def effects(w: Workload, base: Footprint) -> list[Effect]:
    """Every change that every lever makes to a workload, the most saving first.

    What estimate does not write, and what cannot be, is left out.
    """
    found = [effect for lever in LEVERS for effect in pulled(w, base, lever)]
    return sorted(found, key=lambda effect: -effect.saved)


def pulled(w: Workload, base: Footprint, lever: Lever) -> Iterator[Effect]:
    """The effects of one lever, mildest first."""
    for options in lever.changes(w):
        try:
            other = changed(w, options)
            footprint = estimate(other)
        except (InvalidWorkload, NotModelled):
            continue
        yield Effect(lever, options, other, footprint, base.held - footprint.held, flags(_said(w, options)))


def _said(w: Workload, options: Options) -> Options:
    """What has to be said: not what is so already, nor what quantization and qlora imply (resolving.py)."""
    already = w.to_json()
    implied = {"load"} if "quant" in options else set()
    if options.get("kbit_prepare") == "peft":
        implied |= {"kbit_prepare", "checkpointing"}
    if options.get("method") == "qlora":
        implied |= {"quant", "double_quant"}
    return {name: value for name, value in options.items() if name not in implied and already.get(name) != value}


def flags(options: Options) -> str:
    """Options as they are written on the command line."""
    words = []
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, list | tuple):
            words.append(f"{flag} {','.join(map(str, value))}")
        else:
            words.append(f"{flag} {value}")
    return " ".join(words)


# ---- one function each: the options to change, mildest first -------------------------------------
def _kernel(w: Workload) -> Iterator[Options]:
    if w.attention in ("eager", "math"):
        yield {"attention": "auto"}


def _output(w: Workload) -> Iterator[Options]:
    if w.training and w.keep_logits != "none":
        yield {"keep_logits": "none"}


def _gradients(w: Workload) -> Iterator[Options]:
    if w.training and w.zero_grad == "zero":
        yield {"zero_grad": "none"}


def _cache(w: Workload) -> Iterator[Options]:
    if w.training and w.use_cache:
        yield {"use_cache": False}


def _fused(w: Workload) -> Iterator[Options]:
    if w.training and w.optimizer in ("adamw_torch", "adamw_torch_forloop"):
        yield {"optimizer": "adamw_torch_fused"}


def _checkpointing(w: Workload) -> Iterator[Options]:
    if w.training and not w.checkpointing and w.method.takes_checkpointing:
        yield {"checkpointing": True, "use_cache": False}


def _chunks(w: Workload) -> Iterator[Options]:
    if w.training and w.loss == "nll" and not w.method.holds_forward:
        yield {"loss": "chunked-nll", "use_cache": False}


def _micro_batch(w: Workload) -> Iterator[Options]:
    """Halved as often as it divides: the effective batch stays."""
    batch, accumulated = w.batch, w.grad_accum
    while batch % 2 == 0:
        batch, accumulated = batch // 2, accumulated * 2
        yield {"batch": batch, "grad_accum": accumulated} if w.training else {"batch": batch}


def _lean_optimizer(w: Workload) -> Iterator[Options]:
    if w.training and w.optimizer.startswith("adamw_torch"):
        for name in ("adamw_8bit", "paged_adamw_8bit", "adafactor"):
            if not w.method.clash(OPTIMIZERS[name]):
                yield {"optimizer": name}


def _half(w: Workload) -> Iterator[Options]:
    if w.dtype == "fp32" and w.quant == "none":
        half = "bf16" if w.gpu.capability >= (8, 0) else "fp16"
        if w.amp == "none":
            yield {"amp": half}
        yield {"dtype": half, "amp": "none"}


def _packed(w: Workload) -> Iterator[Options]:
    if w.quant == "none" and w.method.adds:
        for quant in ("int8", "nf4"):
            packed = {"quant": quant, "double_quant": quant == "nf4", "load": "device-map"}
            yield {**packed, "kbit_prepare": "none"}
            if w.training:  # as QLoRA does it: all that is not packed in fp32
                again = w.method.takes_checkpointing
                yield {**packed, "kbit_prepare": "peft", "checkpointing": again, "use_cache": False}


def _packed_twice(w: Workload) -> Iterator[Options]:
    if w.quant in ("nf4", "fp4") and not w.double_quant:
        yield {"double_quant": True}


def _adapters(w: Workload) -> Iterator[Options]:
    if w.training and not w.method.adds:
        own = {"optimizer": "adamw_torch_fused"} if OPTIMIZERS[w.optimizer].projects else {}  # that is GaLore's alone
        yield {"method": "lora", **own}
        packed = {"quant": "nf4", "double_quant": True, "load": "device-map", "kbit_prepare": "peft"}
        yield {"method": "qlora", **own, **packed, "checkpointing": True, "use_cache": False}


def _smaller_adapters(w: Workload) -> Iterator[Options]:
    rank = w.method.options().get("rank")
    if w.training and isinstance(rank, int) and rank > 1:
        yield {"rank": rank // 2}
    if w.training and w.method.options().get("target"):
        yield {"target": []}


def _shorter(w: Workload) -> Iterator[Options]:
    length = w.seq_len
    while length % 2 == 0 and length > 128:
        length //= 2
        yield {"seq_len": length}


LEVERS: tuple[Lever, ...] = (
    Lever("a fused attention kernel", "free", "the same result, faster", _kernel),
    Lever("output released before backward", "free", "a loop that does not keep the model's output", _output),
    Lever("gradients set to None", "free", "optimizer.zero_grad() as it is by default", _gradients),
    Lever("no KV cache", "free", "training never reads it", _cache),
    Lever("the fused optimizer", "free", "the same update, faster", _fused),
    Lever("gradient checkpointing", "time", "each layer's forward runs again in backward", _checkpointing),
    Lever("the loss in chunks", "time", "TRL's: the head's product runs again in backward", _chunks),
    Lever("a smaller micro-batch", "time", "the same effective batch in more, smaller steps", _micro_batch),
    Lever("lean optimizer states", "precision", "states in 8 bits, or factored", _lean_optimizer),
    Lever("half precision", "precision", "16-bit arithmetic, or weights", _half),
    Lever("a quantized base", "precision", "frozen weights in 8 or 4 bits", _packed),
    Lever("double quantization", "precision", "the quantization's own constants in 8 bits", _packed_twice),
    Lever("adapters", "capacity", "trains small matrices beside frozen weights", _adapters),
    Lever("smaller adapters", "capacity", "fewer trainable parameters", _smaller_adapters),
    Lever("shorter sequences", "context", "the model sees less at a time", _shorter),
)

"""What options imply, and which cannot go together: the contract's rules, in one place each."""

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from memcalc.allocator import parse_alloc_conf
from memcalc.errors import InvalidWorkload, NotModelled, UnknownName, shown
from memcalc.formats import GGUF_TYPES, HALF
from memcalc.optimizers import AWAITED, OPTIMIZERS, canonical_optimizer
from memcalc.options import LARGEST

if TYPE_CHECKING:
    from memcalc.methods.base import Method
    from memcalc.workload import Workload

LOOPS: Mapping[str, Mapping[str, Any]] = {
    "trainer": {"keep_logits": "none", "zero_grad": "none", "clip": 1.0},
    "plain": {"keep_logits": "next", "zero_grad": "none", "clip": None},
}
QUANTS = ("none", "nf4", "fp4", "int8", "gptq", "awq")
_KBIT = ("nf4", "fp4", "int8")


def resolve(own: Mapping[str, Any], model_config: Mapping[str, Any], method: "Method") -> dict[str, Any]:
    """`own` options with what they imply and the loop's preset filled in; explicit ones win over both."""
    resolved = dict(own)
    training = resolved.setdefault("mode", "train") == "train"
    quant = resolved.setdefault("quant", "none")
    resolved.setdefault("kbit_prepare", "peft" if training and quant in _KBIT else "none")
    prepared = training and resolved["kbit_prepare"] != "none"
    resolved.setdefault("checkpointing", prepared and method.takes_checkpointing)
    for name, value in LOOPS[resolved.setdefault("loop", "trainer")].items():
        resolved.setdefault(name, value)
    configured = model_config.get("use_cache", True) is not False
    whole_logits = resolved.setdefault("loss", "nll") != "chunked-nll"
    cached = configured and resolved["loop"] == "plain" and not resolved["checkpointing"] and whole_logits
    resolved.setdefault("use_cache", cached if training else True)
    resolved["history"] = _history(resolved.get("history", ("same",) if training else ()))
    resolved.setdefault("load", "to" if quant == "none" else "device-map")
    if "optimizer" in resolved:
        resolved["optimizer"] = canonical_optimizer(resolved["optimizer"])
    return resolved


def _history(items: tuple[str, ...]) -> tuple[str, ...]:
    if items == ("none",):
        return ()
    for item in items:
        length = int(item[:10]) if item.isascii() and item.isdigit() else 0
        if item not in ("same", "empty") and not 1 <= length <= LARGEST:
            raise InvalidWorkload(
                f"--history {shown(item)}: each item is same, a sequence length or empty, or all is none"
            )
    return items


def check(w: "Workload") -> None:
    """Refuse what cannot be, naming both options."""
    _check_names(w)
    _check_quantization(w)
    _check_mode(w)
    _check_attention(w)
    with suppress(NotModelled):  # a setting that the replay does not know can still be measured
        parse_alloc_conf(w.alloc_conf)


def _check_names(w: "Workload") -> None:
    if w.optimizer in AWAITED - OPTIMIZERS.keys():
        raise NotModelled(f"--optimizer {w.optimizer} is not written yet: use one of {', '.join(OPTIMIZERS)}")
    if w.optimizer not in OPTIMIZERS:
        raise UnknownName("optimizer", w.optimizer, OPTIMIZERS, "memcalc optimizers lists them")
    if w.quant not in QUANTS and w.quant.removeprefix("gguf:").upper() not in GGUF_TYPES:
        raise UnknownName("quantization", w.quant, (*QUANTS, *(f"gguf:{kind}" for kind in GGUF_TYPES)))
    clash = w.method.clash(OPTIMIZERS[w.optimizer])
    if w.training and clash:
        raise InvalidWorkload(f"--method {w.method_name} cannot go with --optimizer {w.optimizer}: {clash}")
    if w.training and OPTIMIZERS[w.optimizer].layer_by_layer:
        _check_layer_by_layer(w)
    if w.momentum and not OPTIMIZERS[w.optimizer].momentum:
        takers = " and ".join(name for name, row in OPTIMIZERS.items() if row.momentum)
        raise InvalidWorkload(f"--momentum belongs to --optimizer {takers}, not to {w.optimizer}")


def _check_layer_by_layer(w: "Workload") -> None:
    if w.grad_accum > 1:
        raise InvalidWorkload(
            f"--optimizer {w.optimizer} steps as soon as a gradient is there: it cannot go with --grad-accum"
        )
    if w.amp == "fp16":
        raise InvalidWorkload(
            f"--optimizer {w.optimizer} drops gradients before GradScaler sees them: it cannot go with --amp fp16"
        )


def _check_quantization(w: "Workload") -> None:
    if w.double_quant and w.quant not in ("nf4", "fp4"):
        raise InvalidWorkload(f"--double-quant needs --quant nf4 or fp4, not --quant {w.quant}")
    if w.kbit_prepare != "none" and w.quant == "none":
        raise InvalidWorkload(f"--kbit-prepare {w.kbit_prepare} needs a quantized base: give --quant as well")
    if w.kbit_prepare == "trl" and "bf16" not in (w.dtype, w.amp):
        raise InvalidWorkload("--kbit-prepare trl casts to bf16: it goes with --dtype bf16 or --amp bf16 only")
    if w.quant != "none" and w.load == "to":
        raise InvalidWorkload(f"--quant {w.quant} is loaded by from_pretrained: it cannot go with --load to")
    if w.quant != "none" and w.training and not w.method.adds:
        raise InvalidWorkload(
            f"--quant {w.quant} freezes the base, which needs adapters: it cannot go with --method {w.method_name}"
        )


def _check_mode(w: "Workload") -> None:
    if w.training and w.merged:
        raise InvalidWorkload("--merged goes with --mode inference only")
    if w.merged and not w.method.merges:
        needed = "adapters that can be merged into weights" if w.method.adds else "adapters"
        raise InvalidWorkload(f"--merged needs {needed}: it cannot go with --method {w.method_name}")
    if not w.training and w.checkpointing:
        raise InvalidWorkload("--checkpointing needs a backward: it cannot go with --mode inference")
    if not w.training and w.history:
        raise InvalidWorkload("--history is of training steps: it cannot go with --mode inference")
    if not w.training and w.neftune_alpha is not None:
        raise InvalidWorkload("--neftune-alpha is noise of training steps: it cannot go with --mode inference")
    if not w.training and w.loss != "nll":
        raise InvalidWorkload(f"--loss {w.loss} is of training steps: it cannot go with --mode inference")
    if w.use_cache and w.training and w.loss == "chunked-nll":
        raise InvalidWorkload("--use-cache cannot go with --loss chunked-nll: TRL's forward fills no cache")
    check_method(w)
    if w.use_cache and w.checkpointing:
        raise InvalidWorkload("--use-cache cannot go with --checkpointing: transformers drops the cache to recompute")
    if w.checkpoint_every != 1 and not w.checkpointing:
        raise InvalidWorkload("--checkpoint-every needs --checkpointing")


def check_method(w: "Workload") -> None:
    """Refuse what the method does not take."""
    if w.checkpointing and not w.method.takes_checkpointing:
        raise InvalidWorkload(f"--checkpointing cannot go with --method {w.method_name}: {w.method.not_checkpointed}")
    if w.loss != "nll" and w.method.holds_forward:
        raise InvalidWorkload(
            f"--loss {w.loss} cannot go with --method {w.method_name}: it replaces the model's forward, which the "
            "method needs as it is"
        )


def _check_attention(w: "Workload") -> None:
    half = {w.dtype, w.amp} & HALF
    if w.attention in ("flash", "sdpa-flash", "cudnn") and not half:
        raise InvalidWorkload(
            f"--attention {w.attention} computes in half precision: it cannot go with --dtype fp32 and --amp none"
        )
    if w.attention in ("flash", "sdpa-flash") and w.device == "cuda" and w.gpu.capability < (8, 0):
        major, minor = w.gpu.capability
        raise InvalidWorkload(
            f"--attention {w.attention} needs compute capability 8.0: --gpu {w.gpu.key} has {major}.{minor}"
        )
    if w.attention == "sdpa-flash" and w.padded:
        raise InvalidWorkload("--attention sdpa-flash takes no mask: it cannot go with --padded")

"""What the contract names and trace cannot run, each with another way, in one line."""

from collections.abc import Mapping
from typing import Any

from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.methods.p_tuning import LSTM_ON_CPU
from memcalc.optimizers import OPTIMIZERS
from memcalc.workload import Workload

_PACKED = ("none", "nf4", "fp4", "int8")
_LOSSES = {
    "liger": "liger's kernels run on a GPU only: use --loss nll as an upper bound",
    "cce": "cut cross-entropy's kernels run on a GPU only: use --loss nll as an upper bound",
}


_WAY_OUT = "memcalc profile runs it with real tensors, on --device cpu where there is no GPU"
_NEEDING_VALUES = {  # of peft 0.21
    "ADAMSS": "clusters the weights' values (sklearn's KMeans over aten::svd_lowrank), which decides its shapes",
    "FROD": "decomposes the weights' values on the CPU (aten::_to_copy out of meta)",
}


_WITH_KERNELS_OF_THEIR_OWN = {"SHIRA": "adds matrices by their entries"}


def refuse(w: Workload, *, real: bool = False) -> None:
    """Raise NotModelled for a workload that trace cannot run; with `real` tensors it runs what has values."""
    if w.loss in _LOSSES:
        raise NotModelled(f"trace cannot run --loss {w.loss}: {_LOSSES[w.loss]}")
    if w.quant not in _PACKED:
        raise NotModelled(f"trace cannot build --quant {w.quant}: it has bitsandbytes' nf4, fp4 and int8")
    config = w.method.peft_config() or {}
    peft_type = str(config.get("peft_type"))
    if config.get("init_lora_weights") == "loftq":
        _refuse_quantizing(w, config.get("loftq_config") or {})
    if peft_type in _NEEDING_VALUES and not real:
        raise NotModelled(f"trace cannot run {peft_type}: it {_NEEDING_VALUES[peft_type]}; {_WAY_OUT}")
    if peft_type == "SUPERTUNING" and w.quant == "int8":  # meta multiplies numbers of any kinds
        raise InvalidWorkload(
            "--quant int8 cannot go with SUPERTUNING: peft multiplies by the codes of a packed weight"
        )
    if w.device not in ("cuda", "cpu"):
        raise NotModelled(f"trace knows the allocators of cuda and cpu: use profile on a machine with {w.device}")
    if w.device == "cpu":
        _refuse_on_cpu(w)
    if w.device == "cpu" and w.training and config.get("encoder_reparameterization_type") == "LSTM" and not real:
        raise NotModelled(LSTM_ON_CPU)
    if w.device == "cpu" and peft_type in _WITH_KERNELS_OF_THEIR_OWN and not real:
        why = _WITH_KERNELS_OF_THEIR_OWN[peft_type]
        raise NotModelled(f"trace knows CUDA's kernels only for {peft_type}, which {why}; {_WAY_OUT}")


def _refuse_quantizing(w: Workload, config: Mapping[str, Any]) -> None:
    """What LoftQ, which quantizes weights on a GPU itself, cannot do, and its quantization to 8 bits."""
    for option, refused in ((f"--quant {w.quant}", w.quant != "none"), ("--device cpu", w.device == "cpu")):
        if refused:
            raise InvalidWorkload(f"--init-lora-weights loftq cannot go with {option}: it quantizes weights on a GPU")
    if config.get("loftq_bits") == 8:
        raise NotModelled(f"trace cannot run LoftQ's quantization to 8 bits: {_WAY_OUT}")


def _refuse_on_cpu(w: Workload) -> None:
    """PyTorch's CPU kernels other than the plain ones allocate for themselves, where no recorder sees it."""
    refused = {
        f"--amp {w.amp}": w.amp != "none",
        f"--dtype {w.dtype}": w.dtype == "fp16",
        f"--quant {w.quant}": w.quant != "none",
        f"--loss {w.loss}": w.loss != "nll",  # sorts
        f"--attention {w.attention}": w.attention not in ("auto", "eager"),
        f"--optimizer {w.optimizer}": w.training and OPTIMIZERS[w.optimizer].package == "bitsandbytes",
    }
    for option, present in refused.items():
        if present:
            raise NotModelled(
                f"{option} cannot go with --device cpu in trace: "
                "it follows fp32 or bf16 with eager attention and --loss nll, without autocast, quantization or "
                "bitsandbytes"
            )

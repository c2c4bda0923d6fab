"""vramcalc 0.1.2: its total leaves the CUDA context out, and its own bench holds it against max_memory_allocated."""

from typing import Any

import vramcalc

_TARGETS = {"q_proj", "k_proj", "v_proj", "o_proj"}  # the only ones it knows (vramcalc/memory.py)
_ATTENTION = {"eager": "eager", "math": "eager", "flash": "flash"}  # it tells no kernels of sdpa apart
_OPTIMIZERS = {"adamw_torch": "adamw", "adamw_torch_fused": "adamw", "sgd": "sgd"}


def answer(w: dict[str, Any]) -> dict[str, int]:
    """Bytes for a workload of full fine-tuning, LoRA or inference."""
    if w["quant"] != "none":
        raise ValueError("it knows no quantization")
    if w["method"] not in {"full", "lora"}:
        raise ValueError("it knows full fine-tuning and LoRA")
    if w["method"] == "lora" and set(w["target"]) != _TARGETS:
        raise ValueError("it knows LoRA on q, k, v and o only")
    said = vramcalc.estimate(
        w["model_config"],
        mode=w["mode"] if w["mode"] == "train" else "inference",
        dtype=w["dtype"],
        batch=w["batch"],
        seq_len=w["seq_len"],
        lora_rank=w.get("rank"),
        grad_checkpoint=w["checkpointing"],
        optimizer=_OPTIMIZERS[w["optimizer"]],
        precision="pure" if w["amp"] == "none" else "amp",
        attn_impl=_ATTENTION.get(w["attention"], "sdpa"),
    )
    return {"allocated": said.total, "device": said.total + said.overhead}

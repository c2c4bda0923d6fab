"""ftuneai 0.4.1: its total holds an overhead for CUDA; the parameter count is the true one, which it takes as given."""

from typing import Any

from ftuneai.core.memory import MemoryEstimator
from ftuneai.core.models import FineTuneMethod, LoRATarget, ModelSpec, OptimizerType, Quantization, TrainingConfig

_QUANTIZED = {"none": "none", "nf4": "4bit", "fp4": "4bit", "int8": "8bit"}
_OPTIMIZERS = {"adamw_torch": "adamw", "adamw_torch_fused": "adamw", "adamw_8bit": "adam_8bit", "sgd": "sgd"}
_TARGETS = {
    frozenset({"q_proj", "v_proj"}): "attention",
    frozenset({"q_proj", "k_proj", "v_proj", "o_proj"}): "attention_all",
    frozenset({"all-linear"}): "all_linear",
}


def answer(w: dict[str, Any]) -> dict[str, int]:
    """Bytes for a training step. Its GB are GiB (ftuneai/core/memory.py, BYTES_TO_GB)."""
    if w["mode"] != "train":
        raise ValueError("it knows training only")
    if w["method"] not in {"full", "lora", "qlora"} or w["quant"] not in _QUANTIZED:
        raise ValueError("it knows full fine-tuning and LoRA, in 4 or 8 bits or without")
    target = frozenset(w.get("target") or ["q_proj", "v_proj"])
    if target not in _TARGETS:
        raise ValueError("it knows LoRA on q and v, on q, k, v and o, or on all linears")
    c = w["model_config"]
    method = FineTuneMethod("qlora" if w["method"] == "lora" and w["quant"] in {"nf4", "fp4"} else w["method"])
    model = ModelSpec(
        name=w["model"],
        parameters=w["total_params"],
        hidden_size=c["hidden_size"],
        num_layers=c["num_hidden_layers"],
        num_attention_heads=c["num_attention_heads"],
        num_kv_heads=c.get("num_key_value_heads", c["num_attention_heads"]),
        intermediate_size=c["intermediate_size"],
        vocab_size=c["vocab_size"],
        max_seq_length=c.get("max_position_embeddings", w["seq_len"]),
        default_dtype={"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}[w["dtype"]],
    )
    training = TrainingConfig(
        model=w["model"],
        method=method,
        quantization=Quantization(_QUANTIZED[w["quant"]]),
        batch_size=w["batch"],
        seq_length=w["seq_len"],
        gradient_checkpointing=w["checkpointing"],
        optimizer=OptimizerType(_OPTIMIZERS[w["optimizer"]]),
        lora_rank=w.get("rank", 16),
        lora_target=LoRATarget(_TARGETS[target]),
        flash_attention=w["attention"] not in {"eager", "math"},
    )
    said = MemoryEstimator(model, training).estimate()
    return {"allocated": int((said.total_gb - said.overhead_gb) * 2**30), "device": int(said.total_gb * 2**30)}

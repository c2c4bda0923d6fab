"""accelerate's estimate-memory: the largest of model, gradients and optimizer for a batch of 1, from the parameters."""

from typing import Any

from accelerate.commands.estimate import estimate_training_usage


def answer(w: dict[str, Any]) -> dict[str, int]:
    """Bytes for full fine-tuning with Adam (accelerate 1.15, commands/estimate.py, estimate_training_usage)."""
    if w["method"] != "full" or w["mode"] != "train":
        raise ValueError("it knows full fine-tuning only")
    mixed = (
        "bfloat16" if "bf16" in {w["amp"], w["dtype"]} else "float16" if "fp16" in {w["amp"], w["dtype"]} else "float32"
    )
    return {"allocated": int(max(estimate_training_usage(4 * w["total_params"], mixed).values()))}

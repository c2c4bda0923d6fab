"""fitcheck-llm 0.3.1: its total is of the whole device, its overhead was fitted to measurements on the T4."""

import json
import tempfile
from pathlib import Path
from typing import Any

from fitcheck import config_parser, estimator, gpu_db

_OPTIMIZERS = {"adamw_torch": "adamw", "adamw_torch_fused": "adamw", "adamw_8bit": "adam8bit", "sgd": "sgd"}


def answer(w: dict[str, Any]) -> dict[str, int]:
    """Bytes for a training step; the model's config is read as its own command reads a downloaded one."""
    if w["mode"] != "train":
        raise ValueError("it knows inference by its KV cache alone")
    if w["method"] not in {"full", "lora", "qlora"}:
        raise ValueError("it knows full fine-tuning and LoRA")
    training = estimator.TrainingConfig(
        precision=w["dtype"],
        quantization=w["quant"],
        double_quant=w["double_quant"] and w["quant"] == "nf4",
        optimizer=_OPTIMIZERS[w["optimizer"]],
        batch_size=w["batch"],
        seq_len=w["seq_len"],
        lora_rank=w.get("rank"),
        lora_targets=w.get("target") or ["q_proj", "v_proj"],
        grad_checkpoint=w["checkpointing"],
        flash_attn=w["attention"] not in {"eager", "math"},
        grad_accum_steps=w["grad_accum"],
    )
    said = estimator.estimate(_model(w["model_config"]), training, gpu_db.GPU_DB.get(w["gpu"], gpu_db.GPU_DB["t4"]))
    return {"allocated": int((said.total_mib - said.overhead_mib) * 2**20), "device": int(said.total_mib * 2**20)}


def _model(config: dict[str, Any]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(config))
        config_parser.hf_hub_download = lambda **_: str(path)
        config_parser._reported_param_count = lambda *_: None  # noqa: SLF001 - else it asks the hub
        return config_parser.fetch_model_config("a/model")

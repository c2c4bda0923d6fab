import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from memcalc.catalog.find import Model, find_model
from memcalc.errors import BadFile, InvalidWorkload
from memcalc.profiling import weights
from memcalc.realize.loading import build_base
from memcalc.workload import Workload
from tests.tracing.steps import CONFIGS


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("checkpoint")
    model: Any = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**CONFIGS["llama"]))
    model.save_pretrained(folder)
    return folder


def workload(folder: Path, **options: Any) -> Workload:
    return Workload.of(str(folder), "lora", batch=1, seq_len=8, **options)


def test_the_checkpoints_weights_take_the_place_of_random_ones(checkpoint: Path) -> None:
    w = workload(checkpoint, dtype="bf16")
    base = build_base(w, "cpu")
    weights.fill(base, w.model)
    saved = transformers.AutoModelForCausalLM.from_pretrained(checkpoint).get_parameter("model.norm.weight")
    embedding = transformers.AutoModelForCausalLM.from_pretrained(checkpoint).get_input_embeddings().weight
    assert base.values["model.embed_tokens.weight"].dtype == torch.bfloat16
    assert base.values["model.embed_tokens.weight"].equal(embedding.bfloat16())
    assert base.values["model.norm.weight"].equal(saved.bfloat16())
    assert base.model.model.embed_tokens.weight.equal(embedding.bfloat16())


def test_a_quantized_base_is_filled_before_it_is_packed(checkpoint: Path) -> None:
    w = workload(checkpoint, quant="nf4")
    base = build_base(w, "cpu")
    before = base.values["model.layers.0.mlp.up_proj.weight"].clone()
    weights.fill(base, w.model)
    assert not base.values["model.layers.0.mlp.up_proj.weight"].equal(before)


def test_only_safetensors_are_read(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((checkpoint / "config.json").read_text())
    torch.save({}, tmp_path / "pytorch_model.bin")
    w = workload(tmp_path)
    with pytest.raises(BadFile, match="no weights for --pretrained"):
        weights.fill(build_base(w, "cpu"), w.model)


def test_weights_of_another_shape_are_refused_in_one_line(checkpoint: Path, tmp_path: Path) -> None:
    for name in os.listdir(checkpoint):
        os.symlink(checkpoint / name, tmp_path / name)
    (tmp_path / "config.json").unlink()
    other = {**CONFIGS["llama"], "vocab_size": 500}
    (tmp_path / "config.json").write_text(json.dumps(other))
    w = workload(tmp_path)
    with pytest.raises(BadFile, match=r"^[^\n]*no weights for --pretrained[^\n]*$"):
        weights.fill(build_base(w, "cpu"), w.model)


def test_where_a_models_weights_lie(checkpoint: Path) -> None:
    assert weights.checkpoint_of(find_model(str(checkpoint))) == str(checkpoint)
    assert weights.checkpoint_of(find_model(str(checkpoint / "config.json"))) == str(checkpoint)
    assert weights.checkpoint_of(find_model("llama-3.1-8b")) == "meta-llama/Llama-3.1-8B"
    assert weights.checkpoint_of(Model("someone/something", {}, "")) == "someone/something"
    with pytest.raises(InvalidWorkload, match="no checkpoint"):
        weights.checkpoint_of(find_model("1.3b"))

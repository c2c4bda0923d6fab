import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from memcalc.catalog.find import Model
from memcalc.errors import BadFile, InvalidWorkload, MemcalcError, NotModelled
from memcalc.importers import peft
from memcalc.importers.peft import FromConfig
from memcalc.methods.lora import Lora
from tests.tracing.steps import CONFIGS

MODEL = Model("tiny", CONFIGS["llama"], "test")
C3A = {"peft_type": "C3A", "block_size": 16, "target_modules": ["q_proj"], "block_size_pattern": {"k_proj": 8}}
SAVED: Final[dict[str, Any]] = {  # as peft writes it: all fields, most of them at their defaults
    "alpha_pattern": {}, "auto_mapping": None, "base_model_name_or_path": "some/model", "bias": "none",
    "corda_config": None, "eva_config": None, "exclude_modules": None, "fan_in_fan_out": False, "inference_mode": True,
    "init_lora_weights": True, "layer_replication": None, "layers_pattern": None, "layers_to_transform": None,
    "loftq_config": {}, "lora_alpha": 32, "lora_bias": False, "lora_dropout": 0.05, "megatron_config": None,
    "megatron_core": "megatron.core", "modules_to_save": None, "peft_type": "LORA", "qalora_group_size": 16, "r": 16,
    "rank_pattern": {}, "revision": None, "target_modules": ["v_proj", "q_proj"], "target_parameters": None,
    "task_type": "CAUSAL_LM", "trainable_token_indices": None, "use_dora": False, "use_qalora": False,
    "use_rslora": False,
}  # fmt: skip


def _saved(tmp_path: Path, config: Any) -> str:
    (tmp_path / "adapter_config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return str(tmp_path)


def test_a_lora_that_peft_saved_is_a_method_of_ours(tmp_path: Path) -> None:
    workload = peft.workload(MODEL, _saved(tmp_path, SAVED))
    assert workload.method_name == "lora"
    assert workload.method == Lora(rank=16, alpha=32.0, target=("v_proj", "q_proj"), lora_dropout=0.05)


@pytest.mark.parametrize(
    "more",
    [
        {"init_lora_weights": "olora"}, {"target_modules": ".*proj"},
        {"layers_to_transform": [0], "layers_pattern": ["layers"]}, {"rank_pattern": {r"\d{1,2}\..*v_proj": 2}},
    ],
)  # fmt: skip
def test_a_lora_that_says_more_stays_a_config(more: dict[str, Any]) -> None:
    workload = peft.workload(MODEL, {**SAVED, **more})
    assert isinstance(workload.method, FromConfig)
    assert workload.method.config == {**SAVED, **more}


@pytest.mark.parametrize(
    ("more", "options"),
    [
        ({"modules_to_save": ["lm_head", "embed_tokens"]}, {"modules_to_save": ("lm_head", "embed_tokens")}),
        ({"layers_to_transform": [0, 2]}, {"layers_to_transform": ("0", "2")}),
        ({"layers_to_transform": 1}, {"layers_to_transform": ("1",)}),
        ({"rank_pattern": {"q_proj": 4, r"0\..*v_proj": 2}}, {"rank_pattern": ("q_proj=4", r"0\..*v_proj=2")}),
        ({"alpha_pattern": {"q_proj": 8}, "bias": "all"}, {"alpha_pattern": ("q_proj=8",), "bias": "all"}),
    ],
)  # fmt: skip
def test_what_a_lora_says_of_layers_and_modules_is_said_by_ours(more: dict[str, Any], options: dict[str, Any]) -> None:
    workload = peft.workload(MODEL, {**SAVED, **more})
    plain = Lora(rank=16, alpha=32.0, target=("v_proj", "q_proj"), lora_dropout=0.05)
    assert workload.method == replace(plain, **options)
    given = workload.method.peft_config()
    assert given is not None
    key, value = next(iter(more.items()))
    assert given[key] == ([value] if isinstance(value, int) else value)
    assert peft.from_json(json.loads(json.dumps(workload.to_json()))).method == workload.method


def test_a_config_that_only_peft_can_run_is_refused_by_estimate_and_names_trace() -> None:
    from memcalc.estimating import estimate

    workload = peft.workload(MODEL, C3A)
    assert workload.method_name == "c3a"
    with pytest.raises(NotModelled, match="memcalc trace"):
        estimate(workload)


def test_qlora_is_its_own_quantization_under_a_config() -> None:
    workload = peft.workload(MODEL, SAVED, "qlora")
    assert (workload.method_name, workload.quant, workload.double_quant) == ("qlora", "nf4", True)


def test_a_workload_survives_json() -> None:
    for config in (SAVED, C3A):
        workload = peft.workload(MODEL, config, batch=3)
        again = peft.from_json(workload.to_json())
        assert again.to_json() == workload.to_json()
        assert again.method == workload.method


@pytest.mark.parametrize(
    ("config", "told"),
    [("{", "not JSON"), ("[]", "a JSON object"), ({"r": 8}, "peft_type"), ({"peft_type": 3}, '"peft_type" is 3')],
)  # fmt: skip
def test_a_file_that_is_no_adapters_config_is_refused_in_one_line(config: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=told) as refused:
        peft.workload(MODEL, _saved(tmp_path, config))
    assert "\n" not in str(refused.value)


def test_a_folder_without_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="holds no adapter_config"):
        peft.read(str(tmp_path))


@pytest.mark.parametrize("options", [{"rank": 4}, {"method": "full"}, {"lora_alpha": 3}])
def test_options_that_contradict_a_config_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidWorkload, match="--peft-config"):
        peft.workload(MODEL, C3A, **options)


def test_nothing_of_a_hostile_config_is_executed_or_fetched() -> None:
    from memcalc.realize.adapters import wrap
    from memcalc.realize.model import build

    hostile = {
        "peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4, "prompt_tuning_init": "TEXT",
        "tokenizer_name_or_path": "http://example.invalid/x", "auto_mapping": {"base_model_class": "os.system"},
    }  # fmt: skip
    workload = peft.workload(MODEL, hostile, dtype="fp32")
    model: Any = wrap(build(workload, "meta"), workload, "meta")
    assert model.get_nb_trainable_parameters()[0] == 4 * 64
    mixed = peft.workload(MODEL, {"peft_type": "XLORA", "adapters": {"0": "someone/adapter"}})
    with pytest.raises(MemcalcError, match="folders"):
        wrap(build(mixed, "meta"), mixed, "meta")


_OWN: Final[dict[str, dict[str, Any]]] = {
    "OFT": {}, "BOFT": {"boft_block_size": 8}, "HRA": {"apply_GS": True}, "MISS": {"r": 16, "init_weights": "mini"},
    "FOURIERFT": {"n_frequency": 10}, "BEFT": {}, "IA3": {"feedforward_modules": ["v_proj"]},
    "TRAINABLE_TOKENS": {"token_indices": [3, 4]},
    "VBLORA": {"vector_length": 16, "save_only_topk_weights": True}, "RANDLORA": {"r": 8, "save_projection": False},
    "LOHA": {"r": 4, "alpha": 16},
    "ADALORA": {"init_r": 6, "total_step": 50, "deltaT": 2, "lora_alpha": 16},
    "LOKR": {"r": 4, "decompose_both": True, "decompose_factor": 8},
    "VERA": {"r": 8, "d_initial": 0.2, "save_projection": False},
    "HIRA": {"r": 4, "hira_dropout": 0.1},
    "ROAD": {"variant": "road_2", "group_size": 8},
    "PVERA": {"r": 8, "sample_at_inference": True, "save_projection": False},
    "DELORA": {"r": 4, "delora_lambda": 8, "module_dropout": 0.1},
    "SHIRA": {"r": 2, "random_seed": 5},
    "C3A": {"block_size": 8},
    "TINYLORA": {"r": 3, "u": 10, "weight_tying": 0.5, "save_projection": False},
    "UNILORA": {"r": 2, "theta_d_length": 40, "save_indices": True},
    "WAVEFT": {"n_frequency": 10, "wavelet_family": "sym3", "use_idwt": False},
    "GRALORA": {"r": 12, "gralora_k": 3, "hybrid_r": 2, "alpha": 8, "gralora_dropout": 0.1},
    "GLORA": {"r": 4, "config_A_B": "vector", "config_C": "none", "config_D_E": "constant"},
    "PEANUT": {"r": 4, "depth": 2, "act_fn": "gelu", "scaling": 0.5},
    "PSOFT": {"r": 4, "psoft_alpha": 8, "psoft_svd": "lowrank", "psoft_mag_a": False, "use_cayley_neumann": True},
    "DEFT": {"r": 4, "decomposition_method": "qr", "alpha": 8, "para": True, "deft_dropout": 0.1},
    "LILY": {"r": 4, "stride_A": 2, "num_B": 3, "scaling": 0.5},
    "SUPERTUNING": {"sparsity": 0.9, "r": 4, "lora_alpha": 16.0, "select_top": False},
    "POLY": {"r": 4, "n_tasks": 3, "n_skills": 2, "n_splits": 2},
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Specified to not save")
@pytest.mark.parametrize("peft_type", _OWN)
@pytest.mark.parametrize("saved", [False, True])
def test_what_peft_saves_of_a_method_is_ours(peft_type: str, saved: bool) -> None:
    """As it is written by hand, and as save_pretrained writes all of it; ours says the same again."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    given = {"peft_type": peft_type, "target_modules": ["embed_tokens" if "TOKENS" in peft_type else "v_proj"]}
    real: Any = PEFT_TYPE_TO_CONFIG_MAPPING[peft_type]
    config = {**given, **_OWN[peft_type]}
    plain = json.loads(json.dumps({**real(**config).to_dict(), **given} if saved else config, default=list))
    name, method = peft.method_of(peft.checked(plain, "test"))
    assert name == peft_type.lower()
    again = method.peft_config()
    assert again is not None
    assert {key: again[key] for key in config if key != "init_weights"} == {
        key: value for key, value in config.items() if key != "init_weights"
    }

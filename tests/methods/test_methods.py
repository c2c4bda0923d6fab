"""Every file in methods/ against peft on meta: a new file is tested before its author writes a test."""

import contextlib
import warnings
from collections.abc import Mapping
from typing import Any, Final

import pytest
import torch

from memcalc import estimating, methods
from memcalc.anatomy import Anatomy
from memcalc.comparing import first_difference
from memcalc.errors import MemcalcError
from memcalc.methods.base import Method
from memcalc.optimizers import OPTIMIZERS
from memcalc.options import options_of
from memcalc.realize.freezing import anatomy_of
from memcalc.step.declaring import parameter_order
from memcalc.tape.builder import Builder
from memcalc.tracing import likeness
from memcalc.workload import Workload
from tests.producers import estimated, traced
from tests.tiny import taken, tiny

METHODS: Final = methods.names()
_METHOD: Final = pytest.mark.parametrize("method", METHODS)
_FAMILIES: Final = ("llama", "bloom", "qwen2")  # without biases, with them everywhere, with some
_DTYPES: Final = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}

# Options beside the defaults that a method is compared under; a method without a row has the defaults alone.
VARIED: Final[Mapping[str, Mapping[str, Mapping[str, Any]]]] = {
    "prompt_tuning": {"one token": {"virtual_tokens": 1}, "over fp32": {"dtype": "fp32"}},
    "cpt": {
        "examples": {"cpt_tokens_type_mask": "1,2,3,4,5,6,7,8", "virtual_tokens": 8, "opt_weighted_loss_type": "decay"},
        "over fp32": {"dtype": "fp32", "virtual_tokens": 1},
    },
    "prefix_tuning": {"a narrow projection": {"encoder_hidden_size": 24}, "over fp32": {"dtype": "fp32"}},
    "multitask_prompt_tuning": {"tasks": {"num_tasks": 3, "num_ranks": 2}, "over fp32": {"dtype": "fp32"}},
    "adaption_prompt": {"the last one": {"adapter_layers": 1, "adapter_len": 3}, "over fp32": {"dtype": "fp32"}},
    "p_tuning": {"a narrow MLP": {"encoder_hidden_size": 24, "virtual_tokens": 3}, "over fp32": {"dtype": "fp32"}},
    "p_tuning_v2": {"one token": {"virtual_tokens": 1}},
    "cartridge": {"none frozen": {"num_frozen_tokens": 0}, "over fp32": {"dtype": "fp32", "virtual_tokens": 3}},
    "lora": {
        "all-linear": {"target": "all-linear", "rank": 3},
        "rank-stabilized": {"use_rslora": True},
        "all biases": {"bias": "all"},
        "its own biases": {"bias": "lora_only"},
        "adapters as the base": {"autocast_adapter_dtype": False},
        "fp32": {"dtype": "fp32"},
        "head and embedding": {"modules_to_save": "lm_head,embed_tokens,word_embeddings"},
        "norms, and their like": {"modules_to_save": "norm"},
        "ranks by name": {"rank_pattern": "v_proj=2,layers.1.self_attn.q_proj=5,h.0.self_attention.query_key_value=3"},
        "some layers": {"layers_to_transform": "0,2"},
    },
    "longlora": {
        "norms alone": {"trainable_params": "norm,ln_", "target": "all-linear"},
        "biases too": {"bias": "all", "autocast_adapter_dtype": False, "dtype": "fp32"},
    },
    "dora": {
        "all-linear, dropout": {"target": "all-linear", "lora_dropout": 0.1},
        "all biases": {"bias": "all"},
        "adapters as the base": {"autocast_adapter_dtype": False},
    },
    "houlsby": {
        "norms too": {"train_norms": True},
        "as the base": {"bottleneck": 3, "target": "all-linear", "autocast_adapter_dtype": False},
    },
    "pfeiffer": {"a layer dropped": {"drop_layers": 1, "reduction_factor": 3}},
    "pissa": {"fast": {"init_lora_weights": "pissa_niter_1", "target": "all-linear", "dtype": "fp32"}},
    "adapter_fusion": {"two as the base": {"adapters": 2, "autocast_adapter_dtype": False}},
    "diff_pruning": {
        "by matrix": {"structured": True},
        "one layer's": {"target": "layers.1.mlp.down_proj,h.1.mlp.dense_4h_to_h"},
    },
    "parallel_adapter": {"narrow": {"bottleneck": 3, "scaling": 1.0, "autocast_adapter_dtype": False}},
    "loftq": {"of two rounds": {"loftq_iter": 2, "target": "all-linear"}},
    "freeze": {
        "one layer": {"layers": 1},
        "all layers": {"layers": 3},
        "the head as well": {"layers": 1, "extra": "lm_head,norm,ln_f,word_embeddings"},
    },
    "galore": {"few": {"rank": 4, "target": "q_proj,query_key_value"}},
    "lisa": {"a layer at a time": {"lisa_layers": 1}, "dropped states": {"lisa_states": "dropped"}},
    "ln_tuning": {
        "the last norm": {"target": "norm,ln_f"},
        "linear layers": {"target": "all-linear"},
        "the head": {"target": "lm_head"},
    },
    "fourierft": {
        "as it is": {"n_frequency": 100},
        "all-linear": {"n_frequency": 10, "target": "all-linear", "bias": "fourier_only"},
        "adapters as the base": {"autocast_adapter_dtype": False},
    },
    "ia3": {
        "all-linear": {"target": "all-linear"},
        "outputs alone": {"feedforward_modules": "none", "autocast_adapter_dtype": False},
        "inputs alone": {"target": "all-linear", "feedforward_modules": "q_proj,down_proj,query_key_value"},
    },
    "beft": {"all-linear": {"target": "all-linear"}, "adapters as the base": {"autocast_adapter_dtype": False}},
    "trainable_tokens": {"one token": {"token_indices": "7"}, "fp32": {"dtype": "fp32"}},
    "boft": {
        "blocks by count": {"boft_block_num": 2, "target": "all-linear", "bias": "boft_only"},
        "adapters as the base": {"boft_block_size": 8, "autocast_adapter_dtype": False},
    },
    "osf": {"a share": {"effective_rank": 0.25}, "all-linear": {"effective_rank": 8, "target": "all-linear"}},
    "vblora": {
        "mixtures alone": {"vector_length": 8, "num_vectors": 300, "save_only_topk_weights": True, "topk": 3},
        "adapters as the base": {"autocast_adapter_dtype": False, "bias": "vblora_only"},
    },
    "randlora": {
        "bases of many widths": {"rank": 10, "target": "all-linear"},
        "without its bases": {"rank": 8, "save_projection": False, "autocast_adapter_dtype": False},
    },
    "lokr": {"all-linear": {"target": "all-linear", "rank": 2}, "both": {"rank": 1, "decompose_both": True}},
    "adalora": {
        "one rank": {"init_r": 1, "bias": "lora_only"},
        "all-linear": {"init_r": 5, "target": "all-linear", "autocast_adapter_dtype": False},
    },
    "loha": {"all-linear": {"target": "all-linear", "rank": 3}},
    "vera": {
        "matrices of many widths": {"rank": 10, "target": "all-linear"},
        "without its matrices": {"rank": 8, "save_projection": False, "autocast_adapter_dtype": False},
        "all biases": {"bias": "all"},
    },
    "shira": {
        "as it is": {"rank": 4},
        "all-linear": {"rank": 2, "target": "all-linear"},
        "adapters as the base": {"rank": 3, "autocast_adapter_dtype": False},
    },
    "supertuning": {
        "all-linear": {"sparsity": 0.5, "target": "all-linear"},
        "with LoRA, as the base": {"rank": 3, "autocast_adapter_dtype": False},
        "without its places": {"rank": 2, "save_precomputed_indices": False},
    },
    "hira": {
        "all-linear": {"rank": 3, "target": "all-linear", "hira_dropout": 0.1},
        "adapters as the base": {"autocast_adapter_dtype": False},
    },
    "road": {
        "a pair of its own for each": {"variant": "road_4", "target": "all-linear"},
        "adapters as the base": {"variant": "road_2", "autocast_adapter_dtype": False},
    },
    "pvera": {
        "matrices of many widths": {"rank": 10, "target": "all-linear"},
        "without its matrices": {"rank": 8, "save_projection": False, "autocast_adapter_dtype": False},
    },
    "c3a": {
        "all-linear": {"block_size": 8, "target": "all-linear", "bias": "c3a_only"},
        "adapters as the base": {"autocast_adapter_dtype": False},
    },
    "tinylora": {
        "numbers in common": {"rank": 3, "u": 5, "weight_tying": 0.4, "bias": "tinylora_only"},
        "without what is drawn": {"save_projection": False, "autocast_adapter_dtype": False},
    },
    "unilora": {
        "matrices of many widths": {"rank": 3, "target": "all-linear", "bias": "unilora_only"},
        "with what is picked": {"save_indices": True, "autocast_adapter_dtype": False},
    },
    "waveft": {
        "all-linear": {"n_frequency": 10, "target": "all-linear", "bias": "waveft_only", "wavelet_family": "db4"},
        "untransformed": {"use_idwt": False, "autocast_adapter_dtype": False},
    },
    "gralora": {
        "all-linear": {"rank": 8, "gralora_k": 4, "target": "all-linear", "bias": "gralora_only"},
        "a LoRA beside it": {"hybrid_r": 3, "autocast_adapter_dtype": False},
    },
    "delora": {
        "all-linear": {"rank": 3, "target": "all-linear", "bias": "delora_only"},
        "adapters as the base": {"autocast_adapter_dtype": False, "module_dropout": 0.1},
    },
    "lily": {
        "all-linear": {"rank": 3, "stride_a": 2, "num_b": 3, "target": "all-linear"},
        "adapters as the base": {"autocast_adapter_dtype": False},
    },
    "glora": {
        "vectors": {"config_a_b": "vector", "config_c": "vector", "config_d_e": "vector", "target": "all-linear"},
        "numbers": {"config_a_b": "constant", "config_c": "none", "config_d_e": "none", "bias": "all"},
        "adapters as the base": {"rank": 3, "autocast_adapter_dtype": False},
    },
    "peanut": {
        "deep": {"rank": 3, "depth": 2, "target": "all-linear"},
        "adapters as the base": {"depth": 1, "autocast_adapter_dtype": False},
    },
    "poly": {
        "all-linear": {"target": "all-linear", "rank": 3, "n_tasks": 5, "n_splits": 2},
        "adapters as the base": {"n_skills": 1, "autocast_adapter_dtype": False},
    },
    "psoft": {
        "few": {"rank": 3, "target": "all-linear"},
        "adapters as the base": {"rank": 4, "psoft_orth": False, "psoft_mag_b": False, "autocast_adapter_dtype": False},
    },
    "deft": {
        "an orthonormal basis": {"rank": 3, "decomposition_method": "qr", "target": "all-linear"},
        "taking alone": {"para": True, "bias": "deft_only", "autocast_adapter_dtype": False},
    },
    "hra": {"an odd rank": {"rank": 3, "bias": "hra_only"}, "adapters as the base": {"autocast_adapter_dtype": False}},
    "miss": {
        "as it is": {"rank": 16},
        "all-linear": {"rank": 16, "target": "all-linear"},
        "mini": {"rank": 16, "init_weights": "mini", "mini_r": 4, "bias": "MiSS_only"},
    },
    "oft": {
        "blocks by count": {"r": 4, "target": "all-linear"},
        "one block for all": {"oft_block_size": 8, "block_share": True, "bias": "all"},
        "the nearest divisor": {"oft_block_size": 12, "num_cayley_neumann_terms": 2},
    },
}
# What a family must be given to suit a method at all.
SUITED: Final[Mapping[tuple[str, str], Mapping[str, Any]]] = {("bitfit", "llama"): {"mlp_bias": True}}
CASES: Final = [(method, name, options) for method in METHODS
                for name, options in {"as it is": {}, **VARIED.get(method, {})}.items()]  # fmt: skip
_CASE: Final = pytest.mark.parametrize(
    ("method", "options"), [case[::2] for case in CASES], ids=[f"{case[0]}: {case[1]}" for case in CASES]
)


def _workload(model_type: str, method: str, **options: Any) -> Workload:
    family = taken(model_type, method)
    return tiny(family, method, config_changes=SUITED.get((method, family)), **options)


_OF_VALUES: Final = {"shira"}  # not made on meta without a recorder that knows values


def _real(w: Workload, device: str = "") -> Any:
    """The real model under the real method. A quantized base has the shapes of one that is not."""
    device = device or ("cpu" if w.method_name in _OF_VALUES else "meta")
    from memcalc.realize.adapters import wrap
    from memcalc.realize.model import build

    on_meta = likeness.libraries(None, w) if device == "meta" else contextlib.nullcontext()
    with on_meta, warnings.catch_warnings(action="ignore"):  # peft warns of norms and tied heads
        return wrap(build(w, device), w, device)


def _own_name(name: str, model: Any) -> str:
    """A parameter's name in peft's wrapper → in the base model; prompts are put before a model without a tuner."""
    tuned = not getattr(model, "_is_prompt_learning", False)
    plain = name.removeprefix("base_model.model." if tuned else "base_model.")
    plain = plain.replace("attn.model.", "attn.")  # an attention module inside of another
    return plain.replace(".base_layer.", ".").replace(".original_module.", ".")


@_CASE
@pytest.mark.parametrize("model_type", _FAMILIES)
def test_its_parameters_are_pefts(model_type: str, method: str, options: dict[str, Any]) -> None:
    """By name, shape and order; which of them train, and in which dtype adapters are."""
    w = _workload(model_type, method, **options)
    _, m, loaded = estimating.write(w, *estimating.family_of(w))
    base, parameters = loaded.model.base, m.parameters
    mine = [
        (name, parameters[name].shape, name in loaded.trained, "" if name in base else parameters[name].dtype)
        for name in parameter_order(loaded.model)
        if name in parameters and (base | loaded.model.adapters)[name].kind != "buffer"
    ]
    packed = {f"{name}.weight" for name in _linears(base) if w.quant != "none"} - {"lm_head.weight"}
    model = _real(w)
    named = [(_own_name(name, model), x) for name, x in model.named_parameters()]
    assert mine == [
        (name, tuple(x.shape), x.requires_grad, "" if name in base else _DTYPES[x.dtype])
        for name, x in named
        if name not in packed
    ]


def _linears(base: Mapping[str, Any]) -> list[str]:
    return [name.removesuffix(".weight") for name, declared in base.items() if declared.kind == "linear"]


@_CASE
@pytest.mark.parametrize("model_type", _FAMILIES)
def test_its_counts_are_pefts(model_type: str, method: str, options: dict[str, Any]) -> None:
    w = _workload(model_type, method, **options)
    model, recording = _real(w), estimated(w)
    if hasattr(model, "get_nb_trainable_parameters"):
        trainable, total = model.get_nb_trainable_parameters()
    else:
        total = sum(x.numel() for x in model.parameters())
        anatomy = anatomy_of(model)
        part = w.method.turns(anatomy)[-1:] or w.method.blocks(anatomy)[:1]  # of the measured step
        trainable = sum(
            x.numel() for name, x in model.named_parameters() if x.requires_grad and (not part or name in part[0])
        )
    assert (recording.trainable_params, recording.total_params) == (trainable, total)


@_CASE
@pytest.mark.parametrize("model_type", _FAMILIES)
def test_its_checkpoint_is_what_save_pretrained_writes(model_type: str, method: str, options: dict[str, Any]) -> None:
    from memcalc.realize.modules.around import added

    w = _workload(model_type, method, **options)
    model = _real(w, "meta" if method == "loftq" else "cpu")  # prompts are computed to be saved; LoftQ needs a GPU
    ids = {id(x) for x in (*(x for x, _ in added(model)), *getattr(model, "thawed", ()))}
    ours = {name: x for name, x in model.named_parameters() if id(x) in ids}
    if hasattr(model, "peft_config"):
        from peft import get_peft_model_state_dict

        state = {**get_peft_model_state_dict(model, save_embedding_layers=False), **ours}
    else:
        state = {name: x for name, x in model.named_parameters() if not ours or name in ours or x.requires_grad}
    raised = w.kbit_prepare != "none"  # biases and norms have been raised to fp32 before peft saw them
    assert estimated(w).checkpoint_bytes == sum(
        x.numel() * (4 if raised and ("lora" not in name) else x.element_size()) for name, x in state.items()
    )


@_METHOD
@pytest.mark.parametrize("model_type", ["llama", "bloom"])
def test_its_stream_is_traces(model_type: str, method: str) -> None:
    w = _workload(model_type, method)
    difference = first_difference(estimated(w).timeline, traced(w).timeline, ("estimate", "trace"))
    assert difference is None, difference


@_METHOD
def test_its_file_defines_a_method(method: str) -> None:
    file = methods.load(method)
    assert issubclass(file.METHOD, Method)
    assert file.METHOD().options().keys() == options_of(file.METHOD).keys()
    assert file.METHOD.__doc__ is not None


@_METHOD
def test_pefts_config_takes_what_it_is_given(method: str) -> None:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    plain = methods.load(method).METHOD().peft_config()
    if plain is None:
        pytest.skip("peft takes no part")
    peft_type = plain.pop("peft_type")
    fields = PEFT_TYPE_TO_CONFIG_MAPPING[peft_type].__dataclass_fields__
    assert set(plain) <= set(fields)


@_METHOD
def test_what_its_name_implies_is_an_option_of_the_workload_or_its_own(method: str) -> None:
    file = methods.load(method)
    assert set(file.IMPLIES) <= {*options_of(Workload), *options_of(file.METHOD)}


def test_the_hooks_do_nothing_by_default() -> None:
    class Nothing:
        def linear(self, x: str) -> str:
            return f"W {x}"

    base: Any = Method()
    builder: Any = Builder
    model = Anatomy("llama", ("q_proj.weight",), ("q_proj",), "lm_head", "layers", 1)
    assert base.targets(model) == frozenset()
    assert base.trained(model, frozenset()) == frozenset()
    assert base.turns(model) == ()
    assert base.thawed(model) == frozenset()
    assert base.blocks(model) == ()
    assert not base.drops_states
    assert all((base.clash(row) == "") is not row.projects for row in OPTIMIZERS.values())
    assert base.projected_rank is None
    assert not base.restarts
    assert base.restart(builder, "q_proj") is None
    assert base.finish(builder, ["q_proj"]) is None
    assert base.layers_alike
    assert base.stack(base.deeper(3)) == [0, 1, 2]
    assert base.copy_of("q_proj", frozenset()) == ""
    assert base.default_targets("llama") == ()
    assert base.linear(builder, "x", Nothing(), "q_proj") == "W x"
    assert base.attention_groups is None
    assert base.attend(builder, "q", "k", "v", None, lambda *given: given) == ("q", "k", "v", None)
    assert base.peft_config() is None
    assert base.graft() is None
    assert not base.adds


@pytest.mark.parametrize(("text", "name"), [("LoRA", "lora"), (" QLORA ", "qlora"), ("full", "full")])
def test_a_name_is_written_as_one_likes(text: str, name: str) -> None:
    assert methods.canonical_name(text) == name


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(MemcalcError, match="did you mean lora"):
        methods.canonical_name("lorra")

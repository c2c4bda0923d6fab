from typing import Any

import pytest

from memcalc import estimating
from memcalc.comparing import first_difference
from memcalc.importers import peft as importer
from memcalc.timeline import CATEGORIES, Timeline
from memcalc.tracing.record import record
from memcalc.workload import Workload
from tests.tiny import tiny as of_any_family
from tests.tracing.steps import steps_of, tiny

LOOPS: dict[str, dict[str, Any]] = {
    "full": {"method": "full"},
    "full, half precision": {"method": "full", "dtype": "bf16"},
    "lora": {},
    "lora over bf16": {"dtype": "bf16"},
    "checkpointed": {"method": "full", "checkpointing": True},
    "checkpointed, reentrant": {"checkpointing": True, "reentrant": True},
    "plain, accumulated, padded": {"loop": "plain", "grad_accum": 2, "padded": True, "use_cache": False},
    "accumulated, zeroed": {"grad_accum": 3, "zero_grad": "zero", "optimizer": "sgd", "momentum": 0.9},
    "for-loop AdamW": {"optimizer": "adamw_torch_forloop", "clip": "none"},
    "inference": {"mode": "inference"},
}


METHODS: dict[str, dict[str, Any]] = {
    "IA3": {"feedforward_modules": []},
    "VERA": {"r": 8},
    "LN_TUNING": {},
    "HRA": {"r": 4},
    "OFT": {"oft_block_size": 16},
    "MISS": {"r": 4},
    "LOHA": {"r": 4},
    "ADALORA": {"total_step": 10},
    "FOURIERFT": {"n_frequency": 32},
}
TARGETS = {"bloom": ["query_key_value"]}


def _assert_same_stream(workload: Workload) -> None:
    """On meta and with real tensors, once the model is loaded; nothing of CUDA's own on either side."""
    meta, real = record(workload, "meta"), record(workload, "cpu")
    difference = first_difference(steps_of(meta.timeline), steps_of(real.timeline), ("meta", "cpu"))
    assert difference is None, difference


@pytest.mark.parametrize("options", LOOPS.values(), ids=LOOPS)
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_meta_and_real_cpu_tensors_give_the_same_stream(family: str, options: dict[str, Any]) -> None:
    _assert_same_stream(tiny(family, **{"dtype": "fp32", "device": "cpu", **options}))


@pytest.mark.parametrize("method", ["full", "ln_tuning", "lora"])
@pytest.mark.parametrize("family", ["gpt2", "bloom", "opt"])
def test_statistics_of_layer_norm_over_bf16_are_as_the_cpu_keeps_them(family: str, method: str) -> None:
    workload = of_any_family(family, method, dtype="bf16", device="cpu", attention="eager")
    _assert_same_stream(workload)
    difference = first_difference(estimating.record(workload).timeline, record(workload).timeline)
    assert difference is None, difference


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "checkpointed"])
@pytest.mark.parametrize("peft_type", METHODS)
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "bloom"])
def test_every_method_is_recorded_as_it_runs(family: str, peft_type: str, checkpointing: bool) -> None:
    targets = {} if peft_type == "LN_TUNING" else {"target_modules": TARGETS.get(family, ["q_proj", "v_proj"])}
    config = {"peft_type": peft_type, **targets, **METHODS[peft_type]}
    options: dict[str, Any] = {"batch": 2, "seq_len": 16, "dtype": "fp32", "device": "cpu", "history": "none"}
    model = tiny(family).model
    _assert_same_stream(importer.workload(model, config, checkpointing=checkpointing, **options))


def test_after_the_step_only_weights_states_and_what_the_loop_keeps_are_alive() -> None:
    timeline = record(tiny()).timeline
    alive = timeline.alive_at(len(timeline.events))
    assert "gradients" not in {timeline.categories[row] for row in alive}
    kept = sorted(timeline.nbytes[row] for row in alive if timeline.categories[row] in ("activations", "logits_loss"))
    scalars, batch = kept[:-2], kept[-2:]
    assert batch == [2 * 32 * 8] * 2
    assert max(scalars) <= 8
    assert len(scalars) <= 4  # the losses of this step and of all, the number of labels


def test_two_recordings_in_one_process_are_equal() -> None:
    workload = tiny(method="qlora")
    first, second = record(workload).timeline, record(workload).timeline
    assert (first.nbytes, first.events, first.labels) == (second.nbytes, second.events, second.labels)


def test_every_category_is_one_of_the_eight_and_all_appear() -> None:
    assert set(record(tiny(method="qlora")).timeline.categories) == set(CATEGORIES)


def test_each_thread_that_multiplies_has_one_workspace() -> None:
    def workspaces(timeline: Timeline) -> int:
        return sum(op.startswith("cublas workspace") for _, op in timeline.labels)

    assert workspaces(record(tiny()).timeline) == 2
    assert workspaces(record(tiny(mode="inference")).timeline) == 1


def test_parameters_are_counted_as_peft_counts_them() -> None:
    import peft
    import transformers

    config = transformers.AutoConfig.for_model(**tiny().model.config)
    model = peft.get_peft_model(
        transformers.AutoModelForCausalLM.from_config(config),
        peft.LoraConfig(task_type="CAUSAL_LM", r=8, target_modules=["q_proj", "v_proj"]),
    )
    trainable, total = model.get_nb_trainable_parameters()
    for method in ("lora", "qlora"):
        recording = record(tiny(method=method))
        assert (recording.trainable_params, recording.total_params) == (trainable, total)
        assert recording.checkpoint_bytes == 4 * trainable


@pytest.mark.parametrize(
    ("attention", "kernel"),
    [("auto", "flash"), ("eager", "eager"), ("efficient", "efficient"), ("math", "math"), ("flash", "flash")],
)
def test_the_kernel_taken_is_named(attention: str, kernel: str) -> None:
    assert record(tiny(attention=attention)).attention_kernel == kernel


@pytest.mark.parametrize("checkpointing", [{}, {"checkpointing": True}, {"checkpointing": True, "reentrant": True}])
@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_autocast_halves_the_logits_and_checkpointing_recomputes_under_it(
    amp: str, checkpointing: dict[str, Any]
) -> None:
    timeline = record(tiny(dtype="fp32", amp=amp, **checkpointing)).timeline
    logits = [size for size, label in zip(timeline.nbytes, timeline.labels, strict=True) if label == ("lm_head", "mm")]
    assert set(logits) == {2 * 32 * 1000 * 2}


def test_history_is_one_phase_whatever_happens_in_it() -> None:
    marks = record(tiny(history="16,empty,same")).timeline.marks
    names = [mark.name or mark.kind for mark in marks if mark.kind != "phase_end"]
    assert names == ["load", "history", "empty_cache", "forward", "backward", "optimizer"]

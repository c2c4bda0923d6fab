"""Hugging Face's Trainer itself, run on meta, against the loop that stands for it."""

import warnings
from typing import Any

import pytest
import torch

from memcalc.comparing import first_difference
from memcalc.optimizers import OPTIMIZERS
from memcalc.realize.freezing import anatomy_of
from memcalc.realize.grafting import graft
from memcalc.realize.restarting import restart
from memcalc.timeline import Timeline
from memcalc.tracing.own_step import TracedStep
from memcalc.tracing.record import record
from tests.tracing.steps import CONFIGS, tiny

CASES: dict[str, dict[str, Any]] = {
    "full": {"method": "full", "dtype": "bf16"},
    "lora, foreach": {"dtype": "bf16", "optimizer": "adamw_torch"},
    "lora, bf16 autocast, accumulated": {"dtype": "fp32", "amp": "bf16", "grad_accum": 2},
    "full, fp16 autocast, accumulated": {"method": "full", "dtype": "fp32", "amp": "fp16", "grad_accum": 2},
    "lora, checkpointed": {"dtype": "bf16", "amp": "bf16", "checkpointing": True},
    "full, sgd, checkpointed reentrant": {
        "method": "full", "dtype": "fp32", "optimizer": "sgd", "checkpointing": True, "reentrant": True,
    },
    "lora, adafactor": {"dtype": "bf16", "optimizer": "adafactor"},
    "full, adagrad": {"method": "full", "dtype": "bf16", "optimizer": "adagrad"},
    "full, 8-bit AdamW, but for embeddings": {"method": "full", "dtype": "bf16", "optimizer": "adamw_8bit"},
    "full, paged Lion": {"method": "full", "dtype": "bf16", "optimizer": "paged_lion_8bit"},
    "full, schedule-free": {"method": "full", "dtype": "bf16", "optimizer": "schedule_free_adamw"},
    "lisa": {"method": "lisa", "lisa_layers": 1, "dtype": "bf16"},
    "lisa, dropped states": {"method": "lisa", "lisa_layers": 1, "lisa_states": "dropped", "dtype": "fp32"},
    "relora": {"method": "relora", "dtype": "bf16"},
    "mixture of depths": {"method": "mixture_of_depths", "dtype": "bf16"},
    "badam": {"method": "badam", "dtype": "bf16"},
    "galore": {"method": "galore", "rank": 8, "dtype": "bf16"},
    "galore, layer by layer, fp32": {
        "method": "galore", "rank": 8, "dtype": "fp32", "optimizer": "galore_adamw_layerwise",
    },
    "full, rmsprop, fp16 autocast": {"method": "full", "dtype": "fp32", "amp": "fp16", "optimizer": "rmsprop"},
}  # fmt: skip


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_every_block_of_trainers_own_last_step_is_born_and_freed_as_in_ours(
    options: dict[str, Any], tmp_path: Any
) -> None:
    workload = tiny(**options)
    pytest.importorskip(OPTIMIZERS[workload.optimizer].package)
    recording = record(workload)
    forward = next(mark.at for mark in recording.timeline.marks if mark.name == "forward")
    ours = _from(recording.timeline, forward)
    theirs = _last_step(workload, str(tmp_path))
    assert theirs.nbytes == ours.nbytes
    difference = first_difference(_up_to_the_last_birth(ours), _up_to_the_last_birth(theirs), ("ours", "trainer"))
    assert difference is None, difference


def _last_step(w: Any, folder: str) -> Timeline:
    import transformers
    from peft import LoraConfig, get_peft_model

    class Watched(transformers.Trainer):  # type: ignore[misc]
        """Notes where its steps begin."""

        began: tuple[int, ...] = ()

        def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
            self.began += (len(traced.timeline.events),)
            return super().get_batch_samples(*args, **kwargs)

    config = transformers.AutoConfig.for_model(**CONFIGS["llama"])
    data = [{"input_ids": torch.arange(w.seq_len), "labels": torch.arange(w.seq_len)} for _ in range(16)]
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[w.dtype]
    with warnings.catch_warnings(), TracedStep(gpu="a100-80gb") as traced:
        warnings.simplefilter("ignore")
        model: Any = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).to("cuda")
        if w.method_name in ("lora", "relora"):
            model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"]))
        if w.method_name == "mixture_of_depths":
            graft(model, w)
        turns = w.method.turns(anatomy_of(model)) or ((None, None) if w.method_name == "badam" else (None,))
        arguments = transformers.TrainingArguments(
            folder,
            per_device_train_batch_size=w.batch,
            gradient_accumulation_steps=w.grad_accum,
            max_steps=len(turns) + 1,
            optim=w.optimizer,
            optim_target_modules=["attn", "mlp"] if w.method_name == "galore" else None,
            optim_args=f"rank={w.method.rank},update_proj_gap=1" if w.method_name == "galore" else None,
            gradient_checkpointing=w.checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": w.reentrant} if w.checkpointing else None,
            bf16=w.amp == "bf16",
            fp16=w.amp == "fp16",
            report_to=[],
            logging_strategy="no",
            save_strategy="no",
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        trainer = Watched(model=model, args=arguments, train_dataset=data, optimizers=(_own_optimizer(w, model), None))
        if w.method_name == "lisa":
            trainer.add_callback(_turning(model, turns, trainer, drops_states=w.method.drops_states))
        if w.method_name == "relora":
            trainer.add_callback(_restarting(model, trainer))
        trainer.train()
    return _from(traced.timeline, trainer.began[-1])


def _own_optimizer(w: Any, model: Any) -> torch.optim.Optimizer | None:
    """badam's, as its documentation puts it around another; Trainer makes the others."""
    if w.method_name != "badam":
        return None
    from badam import BlockOptimizer

    fused = torch.optim.AdamW([p for n, p in model.named_parameters() if ".layers." in n], fused=True)
    blocks = [[f"model.layers.{index}."] for index in range(model.config.num_hidden_layers)]
    block_optimizer: torch.optim.Optimizer = BlockOptimizer(
        fused, list(model.named_parameters()), blocks, switch_block_every=2, start_block=1
    )
    return block_optimizer


def _turning(model: Any, turns: Any, trainer: Any, *, drops_states: bool) -> Any:
    """LISA as a callback: other layers train from a step on, as in LMFlow's DynamicLayerActivationCallback."""
    import transformers

    class Turning(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            turn = turns[min(state.global_step, len(turns) - 1)]
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name in turn)
                if drops_states and name not in turn:
                    trainer.optimizer.state.pop(parameter, None)

    return Turning()


def _restarting(model: Any, trainer: Any) -> Any:
    """ReLoRA as a callback: the last step's end restarts the adapters."""
    import transformers

    class Restarting(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == state.max_steps:
                restart(model, trainer.optimizer)

    return Restarting()


def _from(timeline: Timeline, start: int) -> Timeline:
    """What is born from `start` on."""
    kept, rows = Timeline(), dict[int, int]()
    for event in timeline.events[start:]:
        if event >= 0:
            rows[event] = kept.birth(timeline.nbytes[event], timeline.categories[event], *timeline.labels[event])
        elif ~event in rows:
            kept.death(rows[~event])
    return kept


def _up_to_the_last_birth(timeline: Timeline) -> Timeline:
    """Without what dies at the end of the run: train() returns, ours goes on."""
    last = max(at for at, event in enumerate(timeline.events) if event >= 0)
    kept = Timeline()
    for at, event in enumerate(timeline.events[: last + 1]):
        if event >= 0:
            kept.birth(timeline.nbytes[event], timeline.categories[event], *timeline.labels[event])
        elif at <= last:
            kept.death(~event)
    return kept

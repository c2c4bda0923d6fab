"""What a step leaves alive: weights, optimizer states, and what the loop keeps."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import pytest

from memcalc import methods
from memcalc.errors import MemcalcError
from memcalc.timeline import Timeline
from memcalc.workload import Workload
from tests.producers import estimated
from tests.tiny import taken, tiny, written

LOOPS: Final[Mapping[str, Mapping[str, Any]]] = {
    "trainer": {},
    "trainer, padded, accumulated": {"padded": True, "grad_accum": 3},
    "trainer, gradients zeroed": {"zero_grad": "zero", "optimizer": "adamw_torch"},
    "trainer, output kept": {"keep_logits": "next"},
    "trainer, output kept until backward": {"keep_logits": "backward"},
    "trainer, checkpointed": {"checkpointing": True},
    "trainer, checkpointed, reentrant": {"checkpointing": True, "reentrant": True},
    "trainer, autocast": {"dtype": "fp32", "amp": "bf16", "optimizer": "adamw_torch_forloop"},
    "plain": {"loop": "plain"},
    "plain, output dropped": {"loop": "plain", "keep_logits": "none", "clip": 1.0},
    "plain, output kept, no cache": {"loop": "plain", "use_cache": False, "optimizer": "sgd", "momentum": 0.9},
    "plain, accumulated, autocast": {"loop": "plain", "grad_accum": 2, "dtype": "fp32", "amp": "fp16"},
}
_LASTING: Final = {"weights", "quantization_state", "adapter"}


def _alive(timeline: Timeline) -> list[int]:
    return timeline.alive_at(len(timeline.events))


def _loaded(timeline: Timeline) -> list[int]:
    """Rows alive when loading has ended."""
    return timeline.alive_at(next(mark.at for mark in timeline.marks if mark.kind == "phase_end"))


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("model_type", written())
def test_after_the_step_only_weights_states_and_what_the_loop_keeps_are_alive(model_type: str, loop: str) -> None:
    for method in methods.names():
        if (method, model_type) == ("hira", "gpt2"):
            continue  # peft makes a new parameter of Conv1D's weight: its gradient lives as long as the output's graph
        try:
            w = tiny(model_type, method, **LOOPS[loop])
            timeline = estimated(w).timeline
        except MemcalcError:
            continue  # this method does not go with this loop, or with this model
        _check(w, timeline)


def _check(w: Workload, timeline: Timeline) -> None:
    alive = _alive(timeline)
    by_category: dict[str, list[int]] = {}
    for row in alive:
        by_category.setdefault(timeline.categories[row], []).append(row)
    assert {row for category in _LASTING for row in by_category.get(category, ())} <= set(_lasting(timeline))
    workspaces = [timeline.labels[row][1] for row in by_category.get("workspace", ())]
    assert workspaces.count("cuBLAS workspace") == 2
    assert all(timeline.nbytes[row] <= 8 for row in by_category["workspace"] if "cuBLAS" not in timeline.label(row))
    gradients_stay = w.zero_grad == "zero" or w.loop == "plain"  # a plain loop drops them before its next forward
    taken = w.method_name == "badam"  # by its optimizer, as it steps
    assert bool(by_category.get("gradients")) == (gradients_stay and not taken)
    large = [row for row in by_category.get("logits_loss", ()) if timeline.nbytes[row] > 8]
    assert bool(large) == (w.keep_logits == "next")
    found, expected = Counter(_inputs_and_more(w, timeline, by_category.get("activations", []))), _expected_inputs(w)
    assert expected <= found
    more = found - expected
    if w.keep_logits == "next" and w.checkpointing and w.method_name != "full":
        assert more.total() == 2  # the embedding's output, made a leaf: the output's graph keeps it and its gradient
    else:
        assert not more


def _lasting(timeline: Timeline) -> list[int]:
    """What was loaded; a quantized layer's bias is cast in the first forward, for good, and CPT's prompt is projected
    anew in each.
    """
    put_in_place = {"bias", "prompt_encoder.default: clone"}
    later = [row for row, (_, op) in enumerate(timeline.labels) if {op, timeline.label(row)} & put_in_place]
    return [*_loaded(timeline), *later]


def _inputs_and_more(w: Workload, timeline: Timeline, rows: list[int]) -> list[str]:
    """Ops of the activations left alive: scalars of the loop's own aside, and a KV cache that the output keeps."""
    filled = w.use_cache or not w.method.takes_checkpointing  # a prefix is put into a cache
    cached = filled and w.keep_logits == "next"
    return [
        timeline.labels[row][1]
        for row in rows
        if timeline.nbytes[row] > 8 and not (cached and timeline.labels[row][1] == "cat")
    ]


def _expected_inputs(w: Workload) -> Counter[str]:
    if w.loop == "plain":
        return Counter()  # the batch is a function's local
    also = {"attention_mask": w.padded, "task_ids": w.method.wants_tasks}
    names = ["input_ids", "labels", *(name for name, there in also.items() if there)]
    return Counter(names * w.grad_accum)


@pytest.mark.parametrize("method", methods.names())
def test_steady_steps_leave_the_same_alive(method: str) -> None:
    """A second step of the history changes nothing: what a step leaves is what the next one replaces."""
    sizes = []
    for history in ("same", "same,same"):
        timeline = estimated(tiny(taken("bloom", method), method, history=history)).timeline
        sizes.append(sorted(timeline.nbytes[row] for row in _alive(timeline)))
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("method", methods.names())
def test_after_inference_only_weights_and_the_workspace_are_alive(method: str) -> None:
    timeline = estimated(tiny(taken("bloom", method), method, mode="inference")).timeline
    left = [row for row in _alive(timeline) if timeline.categories[row] not in _LASTING]
    assert [timeline.labels[row][1] for row in left if timeline.nbytes[row] > 2 * 24 * 8] == ["cuBLAS workspace"]


def test_history_is_one_phase_and_the_measured_step_three() -> None:
    marks = estimated(tiny(history="16,empty,same")).timeline.marks
    names = [mark.name or mark.kind for mark in marks if mark.kind != "phase_end"]
    assert names == ["load", "history", "empty_cache", "forward", "backward", "optimizer"]


def test_each_micro_step_has_its_phases() -> None:
    marks = estimated(tiny(history="none", grad_accum=2)).timeline.marks
    names = [mark.name for mark in marks if mark.kind == "phase"]
    assert names == ["load", "forward", "backward", "forward", "backward", "optimizer"]


def test_lengths_of_the_history_are_steps_of_that_length() -> None:
    timeline = estimated(tiny(history="16")).timeline
    ids = [nbytes for nbytes, (_, op) in zip(timeline.nbytes, timeline.labels, strict=True) if op == "input_ids"]
    assert ids == [2 * 16 * 8, 2 * 24 * 8]

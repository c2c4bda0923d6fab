"""The tape's word is the same whatever else the interpreter is doing, and nothing is left behind."""

import cProfile
import gc
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from math import prod
from types import FrameType
from typing import Any, Final

import pytest

from memcalc import estimating
from memcalc.allocator import live_levels
from memcalc.comparing import first_difference
from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.tape import blocks
from memcalc.tape.tape import tape
from memcalc.timeline import Timeline
from memcalc.workload import Workload
from tests.tiny import tiny

HARD: Final = {
    "checkpointed, packed": tiny("llama", "qlora", target="all-linear", lora_dropout=0.1),
    "reentrant, autocast": tiny("bloom", "full", checkpointing=True, reentrant=True, dtype="fp32", amp="fp16"),
    "eager, output kept": tiny("qwen2", attention="eager", loop="plain", grad_accum=2, padded=True),
}
_HARD: Final = pytest.mark.parametrize("w", HARD.values(), ids=HARD)


def _stream(w: Workload) -> tuple[list[int], list[int], list[tuple[str, str]], list[str]]:
    timeline = estimating.record(w).timeline
    return timeline.nbytes, timeline.events, timeline.labels, timeline.categories


@contextmanager
def _collecting_always() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def _without_collector() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _stepping(look: Callable[[FrameType], object]) -> Callable[[], Any]:
    """A debugger that stops at every line and looks at the frame."""

    @contextmanager
    def stepping() -> Iterator[None]:
        def trace(frame: FrameType, event: str, arg: object) -> Any:
            look(frame)
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            yield
        finally:
            sys.settrace(before)

    return stepping


INTERPRETERS: Final[dict[str, Callable[[], Any]]] = {
    "collecting at every allocation": _collecting_always,
    "never collecting": _without_collector,
    "stepping": _stepping(lambda _: None),
    "stepping and looking at locals": _stepping(lambda frame: len(frame.f_locals)),
    "profiled": cProfile.Profile,
}


@pytest.mark.parametrize("around", INTERPRETERS.values(), ids=INTERPRETERS)
@_HARD
def test_the_stream_does_not_depend_on_who_watches(w: Workload, around: Callable[[], Any]) -> None:
    expected = estimating.record(w).timeline
    with around():
        found = estimating.record(w).timeline
    difference = first_difference(expected, found, ("alone", "watched"))
    assert difference is None, difference


@_HARD
def test_it_is_the_same_in_a_thread(w: Workload) -> None:
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(_stream(w)))
    thread.start()
    thread.join()
    assert found == [_stream(w)]


def test_threads_take_their_turns() -> None:
    expected = [_stream(w) for w in HARD.values()]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(_stream, list(HARD.values()) * 4)) == expected * 4


def test_the_collector_is_left_as_it_was() -> None:
    for collecting in (True, False):
        (gc.enable if collecting else gc.disable)()
        try:
            estimating.estimate(tiny())
            assert gc.isenabled() == collecting
        finally:
            gc.enable()


def test_the_tape_makes_no_cycles() -> None:
    estimating.record(tiny())
    gc.collect()
    with _without_collector():
        estimating.record(HARD["reentrant, autocast"])
        assert not [garbage for garbage in _collected() if type(garbage).__module__.startswith("memcalc")]


def _collected() -> list[object]:
    """What only the collector can free now."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        return list(gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


@pytest.mark.parametrize("options", [{}, {"checkpointing": True}, {"checkpointing": True, "reentrant": True}])
@pytest.mark.parametrize("after", [1, 3, 5])
def test_an_error_in_the_middle_leaves_nothing_alive(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], after: int
) -> None:
    w = tiny(**options)
    expected, calls = _stream(w), count(1)
    original = blocks.activation

    def breaks(*args: Any) -> Any:
        if next(calls) == after:
            raise ZeroDivisionError
        return original(*args)

    monkeypatch.setattr(blocks, "activation", breaks)
    with pytest.raises(ZeroDivisionError):
        estimating.record(w)
    tape.gemm_workspaces.clear()
    timeline = tape.timeline
    assert not timeline.alive_at(len(timeline.events))
    monkeypatch.undo()
    assert _stream(w) == expected


def test_a_frame_that_someone_keeps_is_noticed() -> None:
    """What a debugger holds on to would be counted as alive: better no answer than a wrong one."""
    frames: list[FrameType] = []

    def hoard(frame: FrameType, event: str, arg: object) -> None:
        if frame.f_code.co_name == "gated_mlp":
            frames.append(frame)

    before = sys.getprofile()
    sys.setprofile(hoard)
    try:
        with pytest.raises(RuntimeError, match="debugger"):
            estimating.record(tiny())
    finally:
        sys.setprofile(before)
        frames.clear()


def test_two_thousand_layers_are_written_out() -> None:
    w = tiny("llama", "full", config_changes={"num_hidden_layers": 2000}, history="none", batch=1, seq_len=2)
    family, c = estimating.family_of(w)
    timeline, _, loaded = estimating.write(w, family, c)
    assert len(loaded.trained) == 2000 * 9 + 3
    del loaded
    assert len(timeline.nbytes) > 2000 * 100


def test_a_timeline_is_over_when_it_is_handed_out() -> None:
    recording = estimating.record(tiny())
    events = list(recording.timeline.events)
    gc.collect()
    estimating.record(tiny("bloom", "full"))
    assert recording.timeline.events == events
    assert isinstance(recording.timeline, Timeline)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"loss": "liger"}, "--loss liger"),
        ({"device": "cpu", "loss": "chunked-nll"}, "--device cpu"),
        ({"quant": "gptq"}, "--quant gptq"),
        ({"quant": "gguf:Q4_K"}, "--quant gguf:Q4_K"),
        ({"device": "cpu", "amp": "bf16"}, "--device cpu"),
        ({"device": "cpu", "attention": "sdpa"}, "--device cpu"),
    ],
)
def test_what_is_not_written_is_said_in_one_line(options: dict[str, Any], named: str) -> None:
    with pytest.raises(NotModelled, match=named) as caught:
        estimating.estimate(tiny(**options))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3


def test_an_unknown_architecture_is_traces_business() -> None:
    with pytest.raises(NotModelled, match="'mamba': memcalc trace"):
        estimating.estimate(tiny(config_changes={"model_type": "mamba"}))


def test_bloom_has_eager_attention_only() -> None:
    with pytest.raises(InvalidWorkload, match="--attention flash: bloom models offer eager only"):
        estimating.estimate(tiny("bloom", attention="flash"))


# ---- the survey's worked example -----------------------------------------------------------------
_HIDDEN, _LAYERS, _VOCAB = 2048, 24, 46145
_BLOOM_SHAPES: Final = [
    (_VOCAB, _HIDDEN),
    *[(_HIDDEN,)] * 4,  # the norm after the embedding, and the last one
    *[
        (_HIDDEN,), (_HIDDEN,), (3 * _HIDDEN, _HIDDEN), (3 * _HIDDEN,), (_HIDDEN, _HIDDEN), (_HIDDEN,),
        (_HIDDEN,), (_HIDDEN,), (4 * _HIDDEN, _HIDDEN), (4 * _HIDDEN,), (_HIDDEN, 4 * _HIDDEN), (_HIDDEN,),
    ] * _LAYERS,
]  # fmt: skip


def _rounded(nbytes: int) -> int:
    return -(-nbytes // 512) * 512


def _at_the_live_peak(w: Workload) -> dict[str, int]:
    """Bytes by category at the peak, requests rounded to 512, without rests that were not split off."""
    timeline = estimating.record(w).timeline
    levels = live_levels(timeline)
    assert levels.peak_at is not None
    return timeline.bytes_by_category(timeline.alive_at(levels.peak_at + 1), levels.rounded)


def test_the_surveys_example_has_its_parameters() -> None:
    w = Workload.of("1.3b", "full", dtype="fp32")
    recording = estimating.record(w)
    assert sum(map(prod, _BLOOM_SHAPES)) == recording.total_params == recording.trainable_params == 1_303_111_680
    assert recording.checkpoint_bytes == 4 * 1_303_111_680


@pytest.mark.parametrize(("optimizer", "total"), [("adamw_torch_fused", 20.14), ("adamw_torch", 24.3)])
def test_the_surveys_example_is_the_surveys(optimizer: str, total: float) -> None:
    w = Workload.of("1.3b", "full", dtype="fp32", optimizer=optimizer)
    one_copy = sum(_rounded(4 * prod(shape)) for shape in _BLOOM_SHAPES)
    at_peak = _at_the_live_peak(w)
    assert at_peak["weights"] == one_copy
    assert at_peak["gradients"] == one_copy
    counters = 512 * len(_BLOOM_SHAPES) if optimizer == "adamw_torch_fused" else 0  # the fused kernel's, on the device
    assert at_peak["optimizer_states"] == 2 * one_copy + counters
    footprint = estimating.estimate(w)
    assert footprint.peak_allocated is not None
    assert round(footprint.peak_allocated / 2**30, 2 if total == 20.14 else 1) == total
    if optimizer == "adamw_torch":  # the square root of all second moments at once
        assert footprint.peak_phase == "optimizer"
        assert at_peak["workspace"] >= one_copy

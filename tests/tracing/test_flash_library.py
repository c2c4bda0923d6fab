import sys
from typing import Any

import pytest
import torch

from memcalc.catalog.find import find_gpu
from memcalc.errors import InvalidWorkload
from memcalc.kernels import flash_library_backward_scratch, flash_varlen_backward_scratch
from memcalc.timeline import Timeline
from memcalc.tracing import flash_library
from memcalc.tracing.flash_padding import pad_input, unpad_input
from memcalc.tracing.place import Place
from memcalc.tracing.record import record
from memcalc.tracing.tracer import Tracer
from tests.tracing.steps import tiny


def _tracer() -> Tracer:
    return Tracer(Timeline(), Place(), find_gpu("a100-80gb"))


def _q(*shape: int) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.bfloat16, device="meta", requires_grad=True)


def _of(timeline: Timeline, op: str, category: str) -> list[int]:
    return [
        nbytes
        for nbytes, label, given in zip(timeline.nbytes, timeline.labels, timeline.categories, strict=True)
        if label[1].startswith(op) and given == category
    ]


def test_the_backward_allocates_gradients_then_its_scratch() -> None:
    tracer = _tracer()
    q, k = _q(2, 100, 8, 64), _q(2, 100, 2, 64)
    with tracer:
        flash_library.flash_attn_func(q, k, k, causal=True).backward(torch.empty_like(q))
    inside = flash_library_backward_scratch(
        batch=2, q_len=100, k_len=100, heads=8, kv_heads=2, head_dim=64, dtype="bf16"
    )
    assert _of(tracer.timeline, "flash_attn_backward", "workspace") == list(inside.after)
    assert _of(tracer.timeline, "flash_attn_backward", "activations") == [2 * x.numel() for x in (q, k, k)]


def test_a_head_dimension_is_padded_to_a_multiple_of_8() -> None:
    tracer = _tracer()
    with tracer:
        q, k, v = (_q(2, 16, 4, 20) for _ in range(3))
        out = flash_library.flash_attn_func(q, k, v)
    assert out.shape == (2, 16, 4, 20)
    assert tracer.timeline.nbytes.count(2 * 16 * 4 * 24 * 2) == 4  # q, k, v and the output


def test_tokens_leave_their_rows_and_come_back() -> None:
    tracer = _tracer()
    tracer.place.enter("forward")
    with tracer:
        mask = torch.ones(2, 8, dtype=torch.int64, device="meta")
        mask[-1, -3:] = 0
        tokens, where, bounds, longest, _ = unpad_input(_q(2, 8, 4, 16), mask)
        assert (tokens.shape, bounds.shape, longest) == ((13, 4, 16), (3,), 8)
        back = pad_input(tokens, where, 2, 8)
        assert back.shape == (2, 8, 4, 16)
        back.backward(torch.empty_like(back))


def test_padded_rows_run_packed_with_the_packed_kernels_scratch() -> None:
    timeline = record(tiny(attention="flash", padded=True, history="none")).timeline
    inside = flash_varlen_backward_scratch(
        batch=2, total_q=63, total_k=63, heads=4, kv_heads=2, head_dim=16, dtype="bf16"
    )
    assert _of(timeline, "flash_attn_varlen_backward", "workspace") == list(inside.after) * 2  # layers


def test_a_model_without_flash_attention_is_refused() -> None:
    with pytest.raises(InvalidWorkload, match="--attention flash: bloom models have none: use eager"):
        record(tiny("bloom", attention="flash"))


@pytest.mark.parametrize("padded", [False, True])
def test_transformers_finds_the_library_and_loses_it_again(padded: bool) -> None:
    assert record(tiny(attention="flash", padded=padded)).attention_kernel == "flash"
    assert "flash_attn" not in sys.modules
    utils: Any = pytest.importorskip("transformers.modeling_flash_attention_utils")
    assert getattr(utils, "_flash_fn", None) is None

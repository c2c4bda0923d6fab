import torch

from memcalc.catalog.find import find_gpu
from memcalc.timeline import Timeline
from memcalc.tracing import standins
from memcalc.tracing.attention import Chooser, composites
from memcalc.tracing.place import Place
from memcalc.tracing.tracer import Tracer


def _run(
    gpu: str, dtype: torch.dtype, head_dim: int = 64, mask: torch.Tensor | None = None
) -> tuple[list[str], Timeline]:
    card = find_gpu(gpu)
    chooser, tracer = Chooser(card, None), Tracer(Timeline(), Place(), card)
    q = torch.ones(2, 4, 30, head_dim, dtype=dtype, device="meta", requires_grad=True)
    with standins.installed(composites(chooser)), tracer:
        torch.nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=mask, is_causal=mask is None)
    return list(chooser.taken), tracer.timeline


def test_the_card_and_the_mask_choose_the_kernel() -> None:
    mask = torch.ones(2, 1, 30, 30, dtype=torch.bool, device="meta")
    assert _run("a100-80gb", torch.bfloat16)[0] == ["flash"]
    assert _run("t4", torch.float16)[0] == ["efficient"]
    assert _run("a100-80gb", torch.bfloat16, mask=mask)[0] == ["efficient"]


def test_flash_pads_the_head_dimension_to_a_multiple_of_8() -> None:
    timeline = _run("a100-80gb", torch.bfloat16, head_dim=60)[1]
    padded = 2 * 4 * 30 * 64 * 2
    assert timeline.nbytes.count(padded) == 4  # q, k, v and the output


def test_a_boolean_mask_becomes_an_additive_one_with_aligned_rows() -> None:
    mask = torch.ones(2, 1, 30, 30, dtype=torch.bool, device="meta")
    timeline = _run("a100-80gb", torch.bfloat16, mask=mask)[1]
    assert 2 * 30 * 30 * 2 in timeline.nbytes  # where
    assert 2 * 30 * 32 * 2 in timeline.nbytes  # padded, before it is expanded over heads

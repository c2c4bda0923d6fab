import torch
from torch import nn

from memcalc.timeline import Timeline
from memcalc.tracing import autocast
from memcalc.tracing.autocast_switch import installed
from memcalc.tracing.place import Place
from memcalc.tracing.tracer import Tracer


def test_the_lists_of_the_installed_torch_are_read() -> None:
    policies = autocast.policies()
    assert {"mm", "linear", "scaled_dot_product_attention"} <= set(policies["lower"])
    assert {"pow.Tensor_Scalar", "layer_norm"} <= set(policies["fp32"])
    assert {"softmax.int", "sum.dim_IntList"} <= set(policies["fp32_set_opt_dtype"])


def test_products_are_lowered_and_powers_raised() -> None:
    layer, x = nn.Linear(4, 4, device="meta"), torch.ones(2, 4, device="meta")
    with installed(Place()), torch.autocast("cuda", dtype=torch.bfloat16):
        y = layer(x)
        assert (y.dtype, y.pow(2).dtype, y.softmax(-1).dtype) == (torch.bfloat16, torch.float32, torch.float32)
        with torch.autocast("meta", enabled=False):
            assert layer(x).dtype == torch.float32
        assert torch.einsum("ij,kj->ik", x, x).dtype == torch.bfloat16
    assert layer(x).dtype == torch.float32


def test_it_applies_within_composites_that_inference_mode_shows_whole() -> None:
    """As it does with real tensors; what a kernel of autocast's has cast, it does not cast again."""
    x = torch.ones(2, 4)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.einsum("ij,kj->ik", x, x).dtype == torch.bfloat16
    with installed(Place()), Tracer(Timeline(), Place(), None):
        meta = torch.ones(2, 4, device="meta")
        with torch.inference_mode(), torch.autocast("meta", dtype=torch.bfloat16):
            assert torch.einsum("ij,kj->ik", meta, meta).dtype == torch.bfloat16
            assert torch.linalg.norm(meta.bfloat16(), dim=1).dtype == torch.float32
            assert torch.cosine_similarity(meta, meta).dtype == torch.float32


def test_a_trained_weight_is_cast_once_until_the_outermost_exit() -> None:
    layer, x = nn.Linear(4, 4, device="meta"), torch.ones(2, 4, device="meta")
    with installed(Place()), torch.autocast("meta", dtype=torch.bfloat16):
        with torch.autocast("meta", dtype=torch.bfloat16):
            layer(x)
        assert len(autocast.state.cache) == 2
        layer(x)
        assert len(autocast.state.cache) == 2
        layer.requires_grad_(requires_grad=False)
    assert not autocast.state.cache


def test_torch_is_left_as_it_was() -> None:
    before = (torch.is_autocast_enabled, torch.amp.autocast_mode.autocast.__init__)
    with installed(Place()):
        assert torch.amp.is_autocast_available("meta")
    assert (torch.is_autocast_enabled, torch.amp.autocast_mode.autocast.__init__) == before

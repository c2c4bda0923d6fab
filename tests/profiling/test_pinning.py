import pytest
import torch
from torch.nn import functional as F

from memcalc.profiling import pinning
from tests.tracing.steps import tiny


class Node:
    def __init__(self, name: str, before: "Node | None" = None) -> None:
        self._name, self.next_functions = name, ((before, 0),)

    def name(self) -> str:
        return self._name


@pytest.mark.parametrize(
    ("node", "kernel"),
    [
        (Node("ScaledDotProductFlashAttentionBackward0"), "flash"),
        (Node("SliceBackward0", Node("ScaledDotProductFlashAttentionBackward0")), "flash"),
        (Node("ScaledDotProductEfficientAttentionBackward0"), "efficient"),
        (Node("ScaledDotProductCudnnAttentionBackward0"), "cudnn"),
        (Node("UnsafeViewBackward0"), "math"),
    ],
)
def test_a_node_names_its_kernel(node: Node, kernel: str) -> None:
    assert pinning._of_node(node) == kernel


def test_the_kernels_that_sdpa_takes_are_noted_with_a_gradient_and_without() -> None:
    q = torch.randn(1, 2, 8, 16, requires_grad=True)
    with pinning.attention(tiny(attention="math")) as kernels:
        F.scaled_dot_product_attention(q, q, q)
    assert list(kernels.taken) == ["math"]
    with pinning.attention(tiny()) as kernels, torch.no_grad():
        F.scaled_dot_product_attention(q, q, q)
    assert list(kernels.taken) == ["flash"]  # the CPU's own


def test_nothing_is_noted_where_autocast_changes_what_the_kernel_sees() -> None:
    q = torch.randn(1, 2, 8, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert pinning.choice(q, q, q) is None
        assert pinning.choice(q.bfloat16(), q.bfloat16(), q.bfloat16()) is not None


def test_a_pinned_kernel_without_gqa_gets_its_heads_repeated() -> None:
    from transformers.integrations import sdpa_attention

    key = torch.empty(1, 2, 8, 16)
    with pinning.attention(tiny(attention="efficient")):
        assert not sdpa_attention.use_gqa_in_sdpa(None, key, key)
    with pinning.attention(tiny(attention="sdpa")):
        assert sdpa_attention.use_gqa_in_sdpa(None, key, key)

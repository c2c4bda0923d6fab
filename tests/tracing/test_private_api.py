import pytest
import torch

from memcalc.errors import NotModelled
from memcalc.tracing import private_api


def test_this_torch_has_all_that_trace_needs() -> None:
    assert private_api.missing() == ""


def test_a_torch_without_it_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch._C, "_current_graph_task_id")
    with pytest.raises(NotModelled, match=r"lacks torch\._C\._current_graph_task_id"):
        private_api.check()


def test_operators_with_kernels_of_their_own_are_not_composites() -> None:
    aten = torch.ops.aten
    assert private_api.is_composite(aten.linear.default)
    assert not private_api.is_composite(aten.silu_backward.default)

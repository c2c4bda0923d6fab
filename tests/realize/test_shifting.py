"""Attention in shifted groups, over real numbers: against masks over all of it."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from memcalc.realize import shifting
from tests.tiny import tiny

_B, _HEADS, _S, _D, _SIZE = 2, 4, 16, 6, 4


def _full(module: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: Any, **_: Any) -> tuple[Any, None]:
    """Attention (b, s, heads, d), causal where no mask says what is seen."""
    times = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(times, 1) for x in (k, v))
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None)
    return out.transpose(1, 2), None


def _sees() -> torch.Tensor:
    """Which token sees which (heads, s, s): those before it in its group, in the second half of the heads as rolled."""
    places = torch.arange(_S)
    found = []
    for head in range(_HEADS):
        at = places if head < _HEADS // 2 else (places - _SIZE // 2) % _S
        same = at[:, None] // _SIZE == at[None] // _SIZE
        found.append(same & (at[:, None] >= at[None]))
    return torch.stack(found)


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("masked", [False, True])
def test_each_head_sees_its_groups_alone(kv_heads: int, masked: bool) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(_B, heads, _S, _D) for heads in (_HEADS, kv_heads, kv_heads))
    causal = torch.ones(_S, _S, dtype=torch.bool).tril().expand(_B, 1, -1, -1) if masked else None
    training = SimpleNamespace(training=True)
    out, _ = shifting._attend(_full, _SIZE / _S, training, q, k, v, causal)
    wanted, _ = _full(None, q, k, v, _sees().expand(_B, -1, -1, -1))
    assert torch.allclose(out, wanted, atol=1e-6)


def test_each_group_is_masked_as_the_first_of_its_row() -> None:
    mask = torch.ones(3, 8, dtype=torch.bool)
    mask[1, 3] = False
    found = shifting._of_first(mask, 2, 4)
    assert found is not None
    assert found.sum(1).tolist() == [4, 4, 3, 3, 4, 4]


def test_a_model_in_use_sees_everything_and_lookups_elsewhere_stay_as_they_are() -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    from memcalc.realize.adapters import wrap
    from memcalc.realize.model import build

    torch.manual_seed(0)
    w = tiny("llama", "longlora", dtype="fp32", config_changes={"num_hidden_layers": 1})
    model: Any = build(w, "cpu")
    ids = torch.arange(24)[None]
    plain = model.eval()(input_ids=ids).logits
    model = wrap(model.train(), w, "cpu")
    trained, used = (model.train(mode)(input_ids=ids).logits for mode in (True, False))
    assert torch.allclose(used, plain, atol=1e-6)
    assert not torch.allclose(trained, plain, atol=1e-3)
    assert "get_interface" not in vars(ALL_ATTENTION_FUNCTIONS)


def test_gradients_reach_what_trains_and_nothing_else() -> None:
    from memcalc.realize.adapters import wrap
    from memcalc.realize.model import build

    w = tiny("llama", "longlora", dtype="fp32", checkpointing=True, config_changes={"num_hidden_layers": 1})
    model: Any = wrap(build(w, "cpu"), w, "cpu")
    ids = torch.arange(24)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    names = {name: x.grad is not None for name, x in model.named_parameters()}
    assert {name for name, has in names.items() if has} == {
        name for name in names if "lora" in name or "embed" in name or "norm" in name
    }

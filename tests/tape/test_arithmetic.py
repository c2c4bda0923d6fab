"""What a step's matrix products compute, against torch's own count of a real step."""

import warnings
from typing import Any, Final

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from memcalc import methods
from memcalc.estimating import Arithmetic, arithmetic
from memcalc.workload import Workload
from tests.tiny import tiny

_METHOD: Final = pytest.mark.parametrize("method", methods.names())
_SMALL: Final = {"num_hidden_layers": 2, "mlp_bias": True}


class _Counting(TorchDispatchMode):
    """torch.utils.flop_counter's formulas over all ops, in backward and before it; two operations to a multiply-add."""

    def __init__(self) -> None:
        super().__init__()
        self.total = {False: 0, True: 0}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            in_backward = torch._C._current_graph_task_id() != -1
            self.total[in_backward] += formula(*args, **(kwargs or {}), out_val=out) // 2
        return out


def _real(w: Workload) -> Arithmetic:
    """A real step over random weights; a quantized base has the products of one that is not."""
    from memcalc.realize.adapters import wants_tasks, wrap
    from memcalc.realize.freezing import anatomy_of
    from memcalc.realize.model import build, enable_checkpointing

    with warnings.catch_warnings(action="ignore"):
        base: Any = build(w, "cpu")
        if w.checkpointing:
            enable_checkpointing(base, w)
        model: Any = wrap(base, w, "cpu")
        if w.checkpointing and not base.get_input_embeddings().weight.requires_grad:
            base.enable_input_require_grads()
        ids = torch.ones((w.batch, w.seq_len), dtype=torch.int64)
        tasks = {"task_ids": torch.zeros(w.batch, dtype=torch.int64)} if wants_tasks(model) else {}
        if blocks := w.method.blocks(anatomy_of(model)):  # one of which trains at a time
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name in blocks[0])
        with _Counting() as counting:
            model(input_ids=ids, labels=ids, **tasks).loss.backward()
    return Arithmetic(counting.total[False], counting.total[True])


@_METHOD
def test_a_step_of_any_method_computes_what_torch_counts(method: str) -> None:
    if method == "loftq":
        pytest.skip("peft's LoftQ needs a GPU")
    layers = {"num_hidden_layers": 3} if method == "llama_pro" else {}
    w = tiny("llama", method, attention="eager", config_changes={**_SMALL, **layers})
    assert arithmetic(w) == _real(w)


@pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")
def test_an_lstm_computes_what_torchs_own_does() -> None:
    """It spares the gradients of the states that it begins with, of two layers both ways: cuDNN computes them."""
    encoder = {"encoder_reparameterization_type": "LSTM", "encoder_hidden_size": 8}
    w = tiny("llama", "p_tuning", attention="eager", config_changes=_SMALL, **encoder)
    with torch.backends.mkldnn.flags(enabled=False):
        forward, backward = _real(w)
    assert arithmetic(w) == (forward, backward + 2 * 2 * (4 * 8 * 8))


@pytest.mark.parametrize("model_type", ["bloom", "gpt2"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_what_checkpointing_computes_again_is_backwards(model_type: str, reentrant: bool) -> None:
    w = tiny(model_type, "lora", attention="eager", checkpointing=True, reentrant=reentrant)
    assert arithmetic(w) == _real(w)


def test_a_fused_kernel_computes_two_products_and_five_in_backward() -> None:
    plain, fused = (arithmetic(tiny("llama", "full", attention=kernel)) for kernel in ("eager", "sdpa-flash"))
    scores = 3 * 2 * 4 * 24 * 24 * 16  # layers, rows, heads, queries, keys, their width
    assert fused.forward == plain.forward
    assert fused.backward == plain.backward + scores  # the scores are computed again


@pytest.mark.parametrize("method", ["lora", "freeze"])
def test_three_layers_stand_for_all(method: str) -> None:
    def of_depth(layers: int) -> Arithmetic:
        return arithmetic(tiny("llama", method, config_changes={"num_hidden_layers": layers}))

    few = [of_depth(layers) for layers in (3, 4, 9)]
    for total in zip(*few, strict=True):
        assert total[2] - total[0] == 6 * (total[1] - total[0])


def test_adapters_leave_backward_half_of_its_work_and_frozen_layers_less() -> None:
    full, lora, frozen = (arithmetic(tiny("llama", name)).backward for name in ("full", "lora", "freeze"))
    assert full / 2 < lora < 0.6 * full
    assert arithmetic(tiny("llama", "freeze", layers=1)).backward < frozen < full

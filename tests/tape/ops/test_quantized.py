"""bitsandbytes' 4-bit layer and its packing, against bitsandbytes' own modules on meta."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from unittest import mock

import pytest
import torch

from memcalc.realize.quantize import pack
from memcalc.tape.ops.quantized import Packed4Bit, quantize
from memcalc.tape.tape import Leaf, Tensor, new
from tests.tape.side_by_side import DTYPES, GPU, Op, assert_same

D_OUT, D_IN = 96, 320  # 480 blocks of 64: two nested ones


@pytest.fixture(autouse=True)
def _maps_of_our_own() -> Iterator[None]:
    import bitsandbytes.functional

    with mock.patch.dict(bitsandbytes.functional.name2qmap, clear=True):
        yield


@dataclass(frozen=True)
class _Layer:
    """A layer of ours and one of bitsandbytes'."""

    kind: str
    double: bool
    bias: str = "none"  # or frozen, trained

    def on_tape(self, dtype: str) -> list[Packed4Bit]:
        """Two layers: the process makes its 8-bit map with the first."""
        layers = []
        for first in (True, False):
            codes, state = quantize((D_OUT, D_IN), double_quant=self.double, first=first, from_dtype=dtype)
            layers.append(Packed4Bit(D_OUT, D_IN, dtype, self.double, GPU, codes, state))
        if self.bias != "none":
            array = new((D_OUT,), "fp32", "bias")
            layers[0].bias = Tensor(array, Leaf(array, "gradients") if self.bias == "trained" else None)
        return layers

    def on_torch(self, dtype: str) -> list[Any]:
        import bitsandbytes

        bitsandbytes.functional.name2qmap.clear()
        options: Any = {"compute_dtype": DTYPES[dtype], "compress_statistics": self.double, "quant_type": self.kind}
        with torch._C._DisableTorchDispatch():  # empty layers take no memory
            layers = [bitsandbytes.nn.Linear4bit(D_IN, D_OUT, bias=False, device="meta", **options) for _ in range(2)]
        for layer in layers:
            pack(layer, torch.empty(D_OUT, D_IN, dtype=DTYPES[dtype], device="meta"), "meta")
        if self.bias != "none":
            bias = torch.nn.Parameter(torch.empty(D_OUT, device="meta"), requires_grad=self.bias == "trained")
            layers[0].bias = bias
        return layers


def _op(layer: _Layer, rows: int = 5, dtypes: tuple[str, ...] = ()) -> Op:
    return Op(
        lambda layers, x: layers[0].linear(x), lambda layers, x: layers[0](x), lambda b: ((b, rows, D_IN),),
        dtypes=dtypes, layouts=("contiguous", "leaf"), over=("bf16", "fp16"), made=(layer.on_tape, layer.on_torch),
    )  # fmt: skip


OPS: Final = {
    "nf4": _op(_Layer("nf4", double=False)),
    "fp4": _op(_Layer("fp4", double=False)),
    "nf4, doubly": _op(_Layer("nf4", double=True)),
    "nf4, doubly, many rows": _op(_Layer("nf4", double=True), rows=1024),
    "nf4, biased": _op(_Layer("nf4", double=True, bias="frozen")),
    "nf4, bias trained": _op(_Layer("nf4", double=True, bias="trained")),
    "nf4, of fp32": _op(_Layer("nf4", double=True), dtypes=("fp32",)),
}


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_it_allocates_saves_and_frees_what_bitsandbytes_does(op: Op) -> None:
    assert_same(op)

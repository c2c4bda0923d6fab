"""bitsandbytes' 4-bit layer and its packing, against bitsandbytes' own modules on meta."""

import itertools
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import torch

from memcalc.comparing import first_difference
from memcalc.realize.quantize import pack
from memcalc.tape import engine
from memcalc.tape.ops.elementwise import scale
from memcalc.tape.ops.quantized import Packed4Bit, quantize
from memcalc.tape.tape import Leaf, Storage, Tensor, new, tape
from memcalc.timeline import Timeline
from memcalc.tracing.place import Place
from memcalc.tracing.tracer import Tracer
from tests.tape.side_by_side import DTYPES, GPU, cuda_like

D_OUT, D_IN = 96, 128


@pytest.fixture(autouse=True)
def _as_on_cuda() -> Iterator[None]:
    import bitsandbytes.functional

    with cuda_like(), mock.patch.dict(bitsandbytes.functional.name2qmap, clear=True):
        yield


def _tape(double: bool, dtype: str, rows: int, needs: tuple[bool, bool] | None, bias: bool) -> Timeline:
    """Two weights packed, and what the first does to x."""
    timeline = Timeline()
    tape.start(timeline, 0)
    packed = []
    for first in (True, False):
        codes, state = quantize((D_OUT, D_IN), double_quant=double, first=first, from_dtype=dtype)
        packed.append(Packed4Bit(D_OUT, D_IN, dtype, double, GPU, codes, state))
    if needs is None:
        timeline.events = timeline.events[:]
        return timeline
    if bias:
        array = new((D_OUT,), "fp32", "bias")
        packed[0].bias = Tensor(array, Leaf(array, "gradients") if needs[1] else None)
    leaf = new((2, rows, D_IN), dtype, "leaf")
    x = scale(Tensor(leaf, Leaf(leaf, "gradients") if needs[0] else None))
    out = packed[0].linear(x)
    mark = Storage(7, "mark")
    del x
    if out.node is not None:
        gradient = new(out.shape, out.dtype, "gradient")
        engine.backward([out], [gradient])
    last = Storage(7, "mark")
    timeline.events = timeline.events[:]
    del mark, last
    return timeline


def _torch(double: bool, dtype: str, rows: int, needs: tuple[bool, bool] | None, bias: bool, kind: str) -> Timeline:
    import bitsandbytes

    tracer = Tracer(Timeline(), Place(), GPU if needs is None else _without_workspace())
    layers: list[Any] = [
        bitsandbytes.nn.Linear4bit(
            D_IN, D_OUT, bias, DTYPES[dtype], compress_statistics=double, quant_type=kind, device="meta"
        )
        for _ in range(2)
    ]
    for layer in layers:
        for parameter in layer.parameters():
            tracer.ignore(parameter)
    with tracer:
        for layer in layers:
            pack(layer, torch.empty(D_OUT, D_IN, dtype=DTYPES[dtype], device="meta"), "meta")
        if needs is not None:
            _run(layers[0], dtype, rows, needs, bias)
        tracer.close()
    return tracer.timeline


def _run(layer: Any, dtype: str, rows: int, needs: tuple[bool, bool], bias: bool) -> None:
    if bias:
        layer.bias = torch.nn.Parameter(torch.empty(D_OUT, device="meta"), requires_grad=needs[1])
    leaf = torch.empty(2, rows, D_IN, dtype=DTYPES[dtype], device="meta", requires_grad=needs[0])
    x = leaf * 2
    out = layer(x)
    mark = torch.empty(7, dtype=torch.uint8, device="meta")
    del x
    if out.requires_grad:
        gradient = torch.empty(out.shape, dtype=out.dtype, device="meta")
        torch.autograd.backward([out], [gradient])
    last = torch.empty(7, dtype=torch.uint8, device="meta")
    layer.keep = (mark, last)


def _without_workspace() -> Any:
    return GPU

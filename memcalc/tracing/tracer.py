"""The recorder: a dispatch mode that notes the birth and death of every storage."""

# ruff: noqa: SLF001 - storages are known by their C++ address, operators by their schema

import functools
import weakref
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from memcalc.errors import NotModelled
from memcalc.kernels import Gpu, cublas_workspace
from memcalc.timeline import Timeline
from memcalc.tracing import shadows, standins
from memcalc.tracing.place import Place
from memcalc.tracing.private_api import in_backward, is_composite, last_reference_counts, use_counts

aten = torch.ops.aten

_GEMMS = frozenset(
    {
        aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default, aten.addmv.default,
        aten.mv.default, aten.dot.default, aten._addmm_activation.default, aten._int_mm.default,
    }
)  # fmt: skip
_INDEXING = frozenset({aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._unsafe_index.Tensor})
_MASKS = (torch.bool, torch.uint8)
_CONSTANTS = (aten.lift_fresh.default, aten.lift_fresh_copy.default)  # python numbers made tensors

_is_composite = cache(is_composite)


class _Block:
    """A row of the timeline and the number of storages that share it."""

    __slots__ = ("owners", "row")

    def __init__(self, row: int) -> None:
        self.row, self.owners = row, 1


class Tracer(TorchDispatchMode):
    """Fills a timeline while it is active. Only records: what an operator does on CUDA is in `standins`.

    `device` is the one whose storages are noted; tensors elsewhere (the optimizer's host scalars) are not
    memory of the GPU. With `gpu` None nothing of CUDA's own is added: no workspaces, no kernels' scratch.
    """

    def __init__(self, timeline: Timeline, place: Place, gpu: Gpu | None, device: str = "meta") -> None:
        super().__init__()
        self.timeline, self.place, self.gpu, self.device = timeline, place, gpu, device
        self._blocks: dict[int, _Block | None] = {}  # by storage; None: not a row (a constant of the host)
        self._threads_with_workspace: set[bool] = set()
        self._closed = False
        self._last_reference = last_reference_counts()
        self._standins = standins.table(gpu)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is aten._local_scalar_dense.default:
            return shadows.answer(args[0])
        composite = standins.COMPOSITES.get(func)
        if composite is not None or _is_composite(func):
            with self:  # reached undecomposed in inference mode only
                return composite(*args, **kwargs) if composite is not None else func.decompose(*args, **kwargs)
        if self.device == "cpu" and func in _CONSTANTS:
            self.ignore(args[0])
        self._follow(args, "tensor")  # made below any dispatch: torch.tensor(…), a user's own inputs
        takes_over = self._block_taken_over(func, args, kwargs)
        if func in _INDEXING:
            with self:  # CUDA's kernels look for a mask's true elements first
                args = _without_masks(args)
        standin = self._standins.get(func)
        scratch = standin.scratch(*args, **kwargs) if standin is not None else standins.NOTHING
        op = func._schema.name.partition("::")[2]
        rows = [self.birth(nbytes, op, "workspace") for nbytes in scratch.before]
        run = standin.run if standin is not None and standin.run is not None else func
        if func in shadows.SHAPED_BY_DATA and self.device == "meta":
            run = functools.partial(shadows.shaped_by_data, func)
            args, kwargs = (args, kwargs), {}
        try:
            out = run(*args, **kwargs)
        except NotImplementedError as error:
            raise NotModelled(_without_kernel(func, error)) from error
        self._follow(out[::-1] if standin is not None and standin.last_output_first else out, op, takes_over)
        if func in _GEMMS or (standin is not None and standin.multiplies and scratch.before):
            self._need_workspace()
        rows += [self.birth(nbytes, op, "workspace") for nbytes in scratch.after]
        for row in rows:
            self.timeline.death(row)
        if run is func and self.device == "meta":
            largest = shadows.LARGEST_LOADING if self.place.stage == "load" else shadows.LARGEST
            shadows.follow(func, args, kwargs, out, largest)
        return out

    def birth(self, nbytes: int, op: str, category: str | None = None) -> int:
        """Note a block that no tensor shows."""
        here, module, shown = self.place.of(op)
        return self.timeline.birth(nbytes, category or here, module, shown)

    def settle(self, tensor: torch.Tensor | None, category: str, label: tuple[str, str] | None = None) -> None:
        """A block turns out to be of this category (a gradient, an optimizer state, an adapter's weight)."""
        block = self._blocks.get(tensor.untyped_storage()._cdata) if tensor is not None else None
        if block is not None:
            self.timeline.categories[block.row] = category
            if label is not None:
                self.timeline.labels[block.row] = label

    def ignore(self, tensor: torch.Tensor) -> None:
        """A tensor that is no memory of the device, whatever it says: a host's constant, a weight not yet loaded."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self._blocks:
            self._blocks[storage._cdata] = None
            weakref.finalize(storage, self._died, storage._cdata).atexit = False

    def close(self) -> None:
        """What dies from here on is no longer part of the recording."""
        self._closed = True

    def _follow(self, values: Any, op: str, takes_over: _Block | None = None) -> None:
        """Note the new storages among an operator's results, in order."""
        if isinstance(values, torch.Tensor):
            self._follow_one(values, op, takes_over)
        elif isinstance(values, tuple | list):
            for value in values:
                self._follow(value, op, takes_over)

    def _follow_one(self, tensor: torch.Tensor, op: str, takes_over: _Block | None) -> None:
        if tensor.device.type != self.device:
            return
        storage = tensor.untyped_storage()
        key, nbytes = storage._cdata, storage.nbytes()
        if key in self._blocks or nbytes == 0:
            return
        if takes_over is not None:
            takes_over.owners += 1
            self._blocks[key] = takes_over
        else:
            self._blocks[key] = _Block(self.birth(nbytes, op))
        weakref.finalize(storage, self._died, key).atexit = False

    def _died(self, key: int) -> None:
        block = self._blocks.pop(key)
        if block is not None:
            block.owners -= 1
            if block.owners == 0 and not self._closed:
                self.timeline.death(block.row)

    def _block_taken_over(self, func: Any, args: Any, kwargs: Any) -> _Block | None:
        """The block that CUDA's autograd would add a gradient into, where meta's adds out of place.

        Condition: torch/csrc/autograd/input_buffer.cpp, can_accumulate_inplace: the buffered gradient is
        non-overlapping and dense, and nothing else holds it or its storage. A dispatch mode makes every tensor
        "subclass-like", so that the engine never does it here.
        """
        if func is not aten.add.Tensor or kwargs or not in_backward() or torch.is_grad_enabled():
            return None
        buffered, new = args
        if not isinstance(new, torch.Tensor) or buffered.shape != new.shape or buffered.dtype != new.dtype:
            return None
        if use_counts(buffered) != self._last_reference or not _is_dense(buffered):
            return None
        return self._blocks.get(buffered.untyped_storage()._cdata)

    def _need_workspace(self) -> None:
        """One workspace per thread: cuBLAS allocates it at the first product, after the output, and keeps it.

        The backward runs on a thread of its own on CUDA, on the caller's for meta.
        Source: aten/src/ATen/cuda/CublasHandlePool.cpp, getCurrentCUDABlasHandle.
        """
        thread = in_backward()
        if self.gpu is not None and thread not in self._threads_with_workspace:
            self._threads_with_workspace.add(thread)
            self.birth(cublas_workspace(self.gpu), "cublas workspace", "workspace")


def _without_kernel(func: Any, error: NotImplementedError) -> str:
    """Why an operator does not run on meta, in one line: it has no kernel there, or it asks for values."""
    reading = "no data" in str(error)
    why = "reads the values of a tensor" if reading else "has no meta kernel"
    return (
        f"the step uses {func._schema.name}, which {why}: memcalc profile runs it with real tensors, "
        "on --device cpu where there is no GPU"
    )


def _without_masks(args: Any) -> Any:
    """The arguments of an indexing operator with the places of a mask's true elements in the mask's stead.

    Source: PyTorch, aten/src/ATen/native/IndexingUtils.h, expandTensors.
    """
    if not any(isinstance(index, torch.Tensor) and index.dtype in _MASKS and index.is_meta for index in args[1]):
        return args
    indices: list[torch.Tensor | None] = []
    for index in args[1]:
        if isinstance(index, torch.Tensor) and index.dtype in _MASKS:
            indices += index.nonzero().unbind(1)
        else:
            indices.append(index)
    return args[0], indices, *args[2:]


def _is_dense(tensor: torch.Tensor) -> bool:
    """Whether a tensor's elements fill its storage without gaps or overlaps, in any order of dimensions."""
    expected = 1
    for stride, size in sorted((st, si) for si, st in zip(tensor.shape, tensor.stride(), strict=True) if si != 1):
        if stride != expected:
            return False
        expected *= size
    return True

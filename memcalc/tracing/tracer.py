"""The recorder: a dispatch mode that notes the birth and death of every storage."""

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from memcalc.errors import NotModelled
from memcalc.kernels import Gpu, cublas_workspace
from memcalc.timeline import Timeline
from memcalc.tracing import autocast, shadows, standins
from memcalc.tracing.answers import Answers
from memcalc.tracing.operators import Operator, describe, is_dense, why_not, without_masks
from memcalc.tracing.place import Place
from memcalc.tracing.private_api import current_node, in_backward, last_reference_counts, use_counts

aten = torch.ops.aten

# In backward, in place on CUDA and not for meta's tensors: index_backward, value_selecting_reduction_backward,
# gather_backward (torch/csrc/autograd/FunctionsManual.cpp), index_select_backward_symint
# (aten/src/ATen/native/TensorAdvancedIndexing.cpp).
_IN_PLACE = ("index_add", "index_put", "scatter", "scatter_add")
# Formulas that add gradients to what nobody else holds, out of place: linalg_qr_backward (FunctionsManual.cpp).
_ADDING = ("LinalgQrBackward0",)


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
        self._operators: dict[Any, Operator] = {}
        self._answers = Answers()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing here is ever compiled, so no frame needs to be kept from it: that would cost at every operator."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is aten._local_scalar_dense.default:
            return shadows.answer(args[0])
        op = self._operators.get(func)
        if op is None:
            op = self._operators[func] = describe(func, self._standins.get(func))
        if op.composite or op.standin.opened or func in standins.COMPOSITES:  # composites: in inference mode only
            body = standins.COMPOSITES.get(func) or op.standin.opened or func.decompose
            with self, autocast.within_composites():
                return body(*args, **kwargs)
        if op.indexes:
            with self:
                args = without_masks(args, self.device)
        if op.constant and self.gpu is None:
            self.ignore(args[0])
        if self.device == "meta":
            return self._on_meta(func, op, args, kwargs)
        return self._run(op, func, args, kwargs)

    def _on_meta(self, func: Any, op: Operator, args: Any, kwargs: Any) -> Any:
        if op.fills and not args[0].is_meta and args[0].is_floating_point():
            return args[0]
        if op.moves and self.gpu is None and not args[0].is_meta and kwargs.get("dtype") in (None, args[0].dtype):
            return self._here_already(op, func, args, kwargs)
        if op.shaped_by_data and args[0].is_meta:
            return self._run(op, lambda *a, **k: shadows.shaped_by_data(func, a, k), args, kwargs)
        kernel = op.standin.run or func
        run = (lambda *a, **k: self._answers.ask(func, kernel, a, k)) if op.answerable else kernel
        try:
            out = self._run(op, run, args, kwargs)
        except NotImplementedError as error:
            raise NotModelled(why_not(func, error)) from error
        if op.standin.run is None or op.standin.followed:
            shadows.follow(func, args, kwargs, out, shadows.LOADING if self.place.stage == "load" else shadows.STEP)
        return out

    def _here_already(self, op: Operator, func: Any, args: Any, kwargs: Any) -> Any:
        """A host's tensor asked for on the device, where the host is the device: one block, noted when first met."""
        source = args[0].untyped_storage()
        known = self.place.stage != "load" and source._cdata in self._blocks
        out = func(*args, **kwargs) if known else self._run(op, func, args, kwargs)
        if known:
            self._share(source, out.untyped_storage())
        else:
            self._share(out.untyped_storage(), source)
        shadows.follow(func, args, kwargs, out, shadows.STEP)
        return out

    def _share(self, owner: Any, other: Any) -> None:
        """A storage owns another's block too, or is no row as that one."""
        block = self._blocks.get(owner._cdata)
        if block is not None:
            block.owners += 1
        if other._cdata not in self._blocks:
            weakref.finalize(other, self._died, other._cdata).atexit = False
        self._blocks[other._cdata] = block

    def _run(self, op: Operator, run: Any, args: Any, kwargs: Any) -> Any:
        """Run an operator between the blocks that it allocates for itself, and note the new storages."""
        if not op.views:  # made below any dispatch: torch.tensor(…), a user's own inputs
            self._follow(args, "tensor")
        takes_over = self._block_taken_over(args, kwargs) if op.adds else None
        if op.name in _IN_PLACE and in_backward() and not torch.is_grad_enabled():
            takes_over = self._blocks.get(args[0].untyped_storage()._cdata)
        standin = op.standin
        scratch = standin.scratch(*args, **kwargs)
        rows = [self.birth(nbytes, op.name, "workspace") for nbytes in scratch.before]
        out = run(*args, **kwargs)
        if not op.views:
            self._follow(out[::-1] if standin.last_output_first else out, op.name, takes_over)
        if op.multiplies or (standin.multiplies and scratch.before):
            self._need_workspace()
        rows += [self.birth(nbytes, op.name, "workspace") for nbytes in scratch.after]
        for row in rows:
            self.timeline.death(row)
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

    def meet(self, tensor: torch.Tensor) -> None:
        """A tensor that is there already: a weight made before the recording."""
        self._follow(tensor, "empty")

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
        """Note the new storages among an operator's arguments or results, in order."""
        if isinstance(values, torch.Tensor):
            self._follow_one(values, op, takes_over)
        elif isinstance(values, tuple | list):
            for value in values:
                if isinstance(value, torch.Tensor):
                    self._follow_one(value, op, takes_over)
                elif isinstance(value, tuple | list):
                    self._follow(value, op, takes_over)

    def _follow_one(self, tensor: torch.Tensor, op: str, takes_over: _Block | None) -> None:
        if tensor.is_sparse:
            self._follow([tensor._indices(), tensor._values()], op)
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._blocks:
            return
        if tensor.device.type != self.device:
            if self.gpu is None and self.place.stage == "load":
                self.ignore(tensor)  # until it is moved: what a step finds there it need not make
            return
        nbytes = storage.nbytes()
        if nbytes == 0:
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

    def _block_taken_over(self, args: Any, kwargs: Any) -> _Block | None:
        """The block that CUDA's autograd would add a gradient into, where meta's adds out of place.

        Condition: torch/csrc/autograd/input_buffer.cpp, can_accumulate_inplace: the buffered gradient is
        non-overlapping and dense, and nothing else holds it or its storage. A dispatch mode makes every tensor
        "subclass-like", so that the engine never does it here.
        """
        if kwargs or not in_backward() or torch.is_grad_enabled():
            return None
        node = current_node()
        if node is not None and node.name() in _ADDING:
            return None
        buffered, new = args
        if not isinstance(new, torch.Tensor) or buffered.shape != new.shape or buffered.dtype != new.dtype:
            return None
        if use_counts(buffered) != self._last_reference or not is_dense(buffered):
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

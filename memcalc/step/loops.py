"""The training loops: whose habits keep which tensors alive.

The functions have the locals of the code that they stand for, since locals decide lifetimes;
memcalc/realize/loops.py is the same over real tensors, and its docstrings name the sources.
"""

from dataclasses import replace

from memcalc.families import Family
from memcalc.families.config import Config
from memcalc.optimizers import OPTIMIZERS, check_trained
from memcalc.step.blocks import InBlocks
from memcalc.step.clipping import clip
from memcalc.step.declaring import run_model
from memcalc.step.loading import Loaded
from memcalc.step.optimizer import Habits, States
from memcalc.step.projecting import LayerByLayer, Projected
from memcalc.step.restarting import restart
from memcalc.step.scaler import Scaler
from memcalc.step.turns import Turns
from memcalc.tape.autocast import autocast
from memcalc.tape.builder import Builder
from memcalc.tape.engine import backward
from memcalc.tape.ops.elementwise import cast, scale, scaled_in_place
from memcalc.tape.prelude import Batch, Output
from memcalc.tape.tape import Array, Tensor, gemm, leaf_of, new, tape
from memcalc.workload import Workload


class Training:
    """What lives between the steps of a training run, and the steps themselves."""

    def __init__(self, m: Builder, family: Family, c: Config, w: Workload, loaded: Loaded) -> None:
        self.m, self.family, self.c, self.w = m, family, c, w
        self.loaded = loaded
        self.trained = list(loaded.trained.values())
        self.times = {leaf_of(x): loaded.times(name) for name, x in loaded.trained.items()}
        self.kept_by_method: dict[str, dict[str, Array]] = {}
        self.states = _states(m, w, loaded)
        self.turns = Turns(m, loaded, self.states, drops_states=w.method.drops_states)
        self.output: Output | None = None  # the model's output, as long as the loop keeps it
        self.scaler = Scaler() if w.amp == "fp16" else None
        self.trainer = Trainer(self) if w.loop == "trainer" else None
        self.step = self.plain_step if self.trainer is None else self.trainer.step
        self.marking = True

    def run(self, *, prepared: bool = False) -> None:
        """The steps of `--history`, then the measured one; `prepared`: on what a step like it has left alive."""
        if prepared:
            self._run_prepared()
            return
        if self.w.history:
            tape.timeline.phase("history")
        self.marking = False
        for item in self.w.history:
            if item == "empty":
                tape.timeline.empty_cache()
            else:
                for turn in self.turns.round:
                    self.turns.take(turn)
                    self.step(self.w.seq_len if item == "same" else int(item))
        self.marking = True
        self.turns.take(self.turns.round[-1])
        self.step(self.w.seq_len)

    def _run_prepared(self) -> None:
        tape.timeline.phase("history")
        tape.category, tape.scope = "workspace", ""
        self.states.prepare()
        self._stepped()
        tape.scope = ""
        for thread in (False, True):
            gemm(thread=thread)
        if self.scaler is not None:
            self.scaler.prepare()
        if self.trainer is not None:
            self.trainer.prepare()
        self.turns.take(self.turns.round[-1])
        self.step(self.w.seq_len)

    def phase(self, name: str) -> None:
        tape.category = "workspace" if name == "optimizer" else "activations"
        tape.scope = ""
        if self.marking:
            tape.timeline.phase(name)

    def phase_end(self) -> None:
        if self.marking:
            tape.timeline.phase_end()

    def keep(self, output: Output) -> None:
        """The name that held the previous output is bound to this one."""
        if self.w.keep_logits != "none":
            self.output = output

    def drop_output(self, after: str) -> None:
        if self.w.keep_logits == after:
            self.output = None

    def batch(self, seq_len: int) -> Batch:
        shape = (self.w.batch, seq_len)
        ids = new(shape, "int64", "input_ids")
        mask = new(shape, "int64", "attention_mask") if self.w.padded else None
        return Batch(ids, new(shape, "int64", "labels"), mask, tasks=_tasks(self.w))

    def plain_step(self, seq_len: int) -> None:
        """A hand-written step in a function: zero_grad, forward under bare autocast, backward, clip, step."""
        for micro_step in range(self.w.grad_accum):
            self.phase("forward")
            if micro_step == 0:
                self.states.zero_grad(self.w.zero_grad)
            batch = self.batch(seq_len)
            loss = self._plain_loss(batch)
            self.phase("backward")
            self.backward(loss)
            self.phase_end()
            self.drop_output("backward")
        self.phase("optimizer")
        if self.w.clip is not None:
            if self.scaler is not None:
                self.scaler.unscale()
            clip(self.trained, self.times)
        self.optimizer_step()
        self.restart()
        self.phase_end()
        self.drop_output("step")

    def optimizer_step(self) -> None:
        """The optimizer's step, and what the method asks for behind it."""
        if self.scaler is None:
            self.states.step()
        else:
            self.scaler.step(self.states)
            self.scaler.update()
        self._stepped()

    def _stepped(self) -> None:
        self.m.steps += 1
        self.w.method.stepped(self.m, self.kept_by_method, self.m.steps, self.loaded.times)

    def restart(self) -> None:
        """The measured step is one after which the method's adapters begin anew."""
        if self.marking and self.w.method.restarts:
            restart(self.m, self.loaded.model, self.w.method)

    def backward(self, loss: Tensor) -> None:
        """(scaled) loss.backward(): Python holds the loss and the first gradient until it returns."""
        outer, tape.category = tape.category, "logits_loss"
        root = loss if self.scaler is None else self.scaler.scale(loss)
        ones = new(root.shape, root.dtype, "ones_like")
        backward([root], [ones])
        tape.category = outer

    def _plain_loss(self, batch: Batch) -> Tensor:
        with autocast(self.w.amp):
            output = run_model(self.m, self.family, self.c, batch)
            self.keep(output)
            assert output.loss is not None
            loss = output.loss
            if self.w.grad_accum > 1:
                tape.category = "logits_loss"
                loss = scale(loss, "div")
        self.phase_end()
        return loss


def _states(m: Builder, w: Workload, loaded: Loaded) -> States:
    """The optimizer over all that trains."""
    seen = loaded.seen_by_optimizer(w)
    unscaled = w.unscales or bool(loaded.model.blocks)  # badam's optimizer is none that takes the scale
    check_trained(w.optimizer, seen.values(), scaled=w.amp == "fp16", clipped=unscaled)
    spared = frozenset(leaf_of(loaded.trained[name]) for name, one in seen.items() if one.in_32_bits)
    habits = Habits(w.momentum, prepared=w.loop == "trainer", in_32_bits=spared)
    rounds = sum(item != "empty" for item in w.history)
    if loaded.model.blocks:
        return InBlocks(OPTIMIZERS[w.optimizer], m, loaded, habits, start=rounds)
    rank = w.method.projected_rank
    if rank is not None:
        row = OPTIMIZERS[w.optimizer]
        made = LayerByLayer if row.layer_by_layer else Projected
        return made(row, loaded.groups(w), habits, rank, gap=max(1, rounds))
    return States(OPTIMIZERS[w.optimizer], loaded.groups(w), habits)


class Trainer:
    """Hugging Face's Trainer."""

    def __init__(self, training: Training) -> None:
        self.training = training
        self.w = training.w
        self.batches: list[Batch] = []  # all micro-batches of a step are on the device at once
        self.inputs: Batch | None = None
        self.items: Array | None = None
        self.grad_norm: Array | None = None
        self.step_loss: Array | None = None
        tape.scope = ""
        self.total_loss = new((), "fp32", "zeros", "logits_loss")

    def prepare(self) -> None:
        """What a step leaves bound to Trainer's names."""
        self.batches, self.items = self._batch_samples(self.w.seq_len)
        self.step_loss = new((), "fp32", "div", "logits_loss")
        if OPTIMIZERS[self.w.optimizer].layer_by_layer:
            return  # no gradient is left whose norm could be taken
        dtypes = {parameter.dtype for parameter in self.training.trained}
        self.grad_norm = new((), dtypes.pop() if len(dtypes) == 1 else "fp32", "linalg_vector_norm")

    def step(self, seq_len: int) -> None:
        """One optimizer step (_run_epoch)."""
        training = self.training
        training.phase("forward")
        self.batches, self.items = self._batch_samples(seq_len)
        for micro_step, self.inputs in enumerate(self.batches):  # noqa: B020 - Trainer's loop variable outlives it
            if micro_step > 0:
                training.phase("forward")
            self.step_loss = self._training_step(self.inputs)
            _is_finite()
            training.phase_end()
            training.drop_output("backward")
        training.phase("optimizer")
        self.grad_norm = None
        if training.scaler is not None:
            training.scaler.unscale()
        self.grad_norm = clip(training.trained, training.times)
        training.optimizer_step()
        training.states.zero_grad(self.w.zero_grad)
        training.restart()
        training.phase_end()
        training.drop_output("step")

    def _batch_samples(self, seq_len: int) -> tuple[list[Batch], Array]:
        """The step's micro-batches and the number of their labels."""
        batches = [self.training.batch(seq_len) for _ in range(self.w.grad_accum)]
        items: Array | None = None
        for batch in batches:
            items = _count_labels(batch, items)
        assert items is not None
        counted = new((), "fp32", "div")
        del items
        return batches, counted

    def _training_step(self, inputs: Batch) -> Array:
        loss = self._compute_loss(inputs)
        self.training.phase("backward")
        self._backward(loss)
        return loss.data

    def _compute_loss(self, inputs: Batch) -> Tensor:
        training = self.training
        counted = replace(inputs, items=self.items)
        outputs = self._model(counted)
        training.keep(outputs)
        assert outputs.loss is not None
        outer, tape.category = tape.category, "logits_loss"
        loss = scaled_in_place(outputs.loss)  # by the number of processes
        tape.category = outer
        training.phase_end()
        return loss

    def _model(self, inputs: Batch) -> Output:
        """The forward under autocast, its half-precision results raised to fp32 (accelerate's ConvertOutputsToFp32)."""
        training = self.training
        if self.w.amp == "none":
            return run_model(training.m, training.family, training.c, inputs)
        with autocast(self.w.amp):
            output = run_model(training.m, training.family, training.c, inputs)
        return _in_fp32(output)

    def _backward(self, loss: Tensor) -> None:
        tape.category = "logits_loss"
        loss_over_steps = scale(loss, "div")
        self.training.backward(loss_over_steps)


def _tasks(w: Workload) -> Array | None:
    return new((w.batch,), "int64", "task_ids") if w.method.wants_tasks else None


def _in_fp32(output: Output) -> Output:
    """A half-precision output's tensors as fp32 copies; the first output lives until all are made."""
    outer, tape.category = tape.category, "logits_loss"
    loss = None if output.loss is None else cast(output.loss, "fp32")
    logits = None if output.logits is None else cast(output.logits, "fp32")
    tape.category = outer
    return replace(output, loss=loss, logits=logits)


def _count_labels(batch: Batch, before: Array | None) -> Array:
    """One more batch's labels that are not ignored, added to those before."""
    assert batch.labels is not None
    b, s = batch.labels.shape
    counted = new((b, s - 1), "bool", "ne")
    one = new((), "int64", "sum")
    del counted
    return new((), "int64", "add")


def _is_finite() -> None:
    """isnan and isinf of the loss, read by the host."""
    not_a_number = new((), "bool", "isnan")
    del not_a_number
    infinite = new((), "bool", "isinf")
    del infinite


class Inference:
    """One forward over the prompt under inference_mode, its output alive when the level is read."""

    def __init__(self, m: Builder, family: Family, c: Config, w: Workload) -> None:
        self.m, self.family, self.c, self.w = m, family, c, w

    def run(self, *, prepared: bool = False) -> None:
        tape.timeline.phase("forward")
        tape.category, tape.scope, tape.grad, tape.inference = "activations", "", False, True
        shape = (self.w.batch, self.w.seq_len)
        ids = new(shape, "int64", "input_ids")
        mask = new(shape, "int64", "attention_mask") if self.w.padded else None
        batch = Batch(ids, mask=mask, tasks=_tasks(self.w))
        del ids, mask
        with autocast(self.w.amp):
            output = run_model(self.m, self.family, self.c, batch)
        tape.timeline.phase_end()
        del output

"""The training loops: whose habits keep which tensors alive. Real tensors, any device.

Python's locals decide lifetimes here: a name that is rebound late, or lives in a frame that is still
running, keeps its tensor. So the functions below have the locals of the code that they stand for.
"""

from typing import Any

import torch
from torch import nn

from memcalc.realize.batch import make_batch
from memcalc.realize.model import DTYPES, uses_peft
from memcalc.realize.optimizer import make_optimizer, make_scaler
from memcalc.realize.watch import Watch
from memcalc.workload import Workload

Batch = dict[str, torch.Tensor]


class Training:
    """What lives between the steps of a training run, and the steps themselves."""

    def __init__(self, model: nn.Module, workload: Workload, device: str, watch: Watch) -> None:
        self.model: Any = model
        self.workload, self.device, self.watch = workload, device, watch
        self.optimizer = make_optimizer(model, workload)
        self.scaler = make_scaler(workload, device)
        self.output: Any = None  # the model's output, as long as the loop keeps it
        self.vocab_size: int = self.model.get_input_embeddings().weight.shape[0]
        self.step = self._plain_step
        if workload.loop == "trainer":
            self.step = _Trainer(self).step

    def run(self) -> None:
        """The steps of `--history`, then the measured one."""
        if self.workload.history:
            self.watch.history()
        for item in self.workload.history:
            if item == "empty":
                self.watch.empty_cache()
            else:
                self.step(self.workload.seq_len if item == "same" else int(item))
        self.watch.measured()
        self.step(self.workload.seq_len)

    def batch(self, seq_len: int) -> Batch:
        return make_batch(
            self.workload.batch,
            seq_len,
            self.vocab_size,
            padded=self.workload.padded,
            labels=self.workload.training,
            device=self.device,
        )

    def autocast(self) -> Any:
        dtype = DTYPES.get(self.workload.amp, torch.bfloat16)
        return torch.autocast(self.device, dtype=dtype, enabled=self.workload.amp != "none")

    def zero_grad(self) -> None:
        self.optimizer.zero_grad(set_to_none=self.workload.zero_grad == "none")

    def drop_output(self, after: str) -> None:
        """The loop lets go of the model's output, if it keeps it no longer than `after`."""
        if self.workload.keep_logits == after:
            self.output = None

    def keep(self, output: Any) -> None:
        """The name that held the previous output is bound to this one."""
        if self.workload.keep_logits != "none":
            self.output = output

    def _plain_step(self, seq_len: int) -> None:
        """A hand-written step in a function: zero_grad, forward under bare autocast, backward, clip, step."""
        for micro_step in range(self.workload.grad_accum):
            self.watch.phase("forward")
            if micro_step == 0:
                self.zero_grad()
            batch = self.batch(seq_len)
            loss = self._plain_loss(batch)
            self.watch.phase("backward")
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()
            self.watch.phase_end()
            self.drop_output("backward")
        self.watch.phase("optimizer")
        if self.workload.clip is not None:
            if self.scaler is not None:
                self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.workload.clip)
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.watch.phase_end()
        self.drop_output("step")

    def _plain_loss(self, batch: Batch) -> torch.Tensor:
        with self.autocast():
            output = self.model(**batch)
            self.keep(output)
            loss: torch.Tensor = output.loss
            if self.workload.grad_accum > 1:
                loss = loss / self.workload.grad_accum
        self.watch.phase_end()
        return loss


class _Trainer:
    """Hugging Face's Trainer without its surroundings: one epoch, one device, no logging.

    Source: transformers 5.24, trainer.py (_run_epoch, get_batch_samples, training_step, compute_loss);
    accelerate 1.15, accelerator.py (prepare_model, backward, clip_grad_norm_), optimizer.py (step).
    """

    def __init__(self, training: Training) -> None:
        self.training = training
        self.model, self.watch, self.workload = training.model, training.watch, training.workload
        self.batches: list[Batch] = []  # all micro-batches of a step are on the device at once
        self.items: torch.Tensor | None = None
        self.grad_norm: torch.Tensor | None = None
        self.step_loss: torch.Tensor | None = None
        self.total_loss = torch.zeros((), device=training.device)
        self.counts_items = _accepts_loss_kwargs(self.model)
        if self.workload.amp != "none":
            from accelerate.utils import convert_outputs_to_fp32

            self.model.forward = convert_outputs_to_fp32(training.autocast()(self.model.forward))

    def step(self, seq_len: int) -> None:
        """One optimizer step (_run_epoch)."""
        training = self.training
        self.watch.phase("forward")
        self.batches, self.items = self._batch_samples(seq_len)
        for micro_step, inputs in enumerate(self.batches):
            if micro_step > 0:
                self.watch.phase("forward")
            self.step_loss = self._training_step(inputs)
            if not (torch.isnan(self.step_loss) or torch.isinf(self.step_loss)):
                self.total_loss += self.step_loss
            self.watch.phase_end()
            training.drop_output("backward")
        self.watch.phase("optimizer")
        self.grad_norm = None
        if training.scaler is not None:
            training.scaler.unscale_(training.optimizer)
        limit = float("inf") if self.workload.clip is None else self.workload.clip  # the norm is taken anyway
        self.grad_norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        if training.scaler is None:
            training.optimizer.step()
        else:
            training.scaler.step(training.optimizer)
            training.scaler.update()
        self.model.zero_grad(set_to_none=self.workload.zero_grad == "none")
        self.watch.phase_end()
        training.drop_output("step")

    def _batch_samples(self, seq_len: int) -> tuple[list[Batch], torch.Tensor | None]:
        """The step's micro-batches and their number of labels (get_batch_samples, _get_num_items_in_batch)."""
        batches = [self.training.batch(seq_len) for _ in range(self.workload.grad_accum)]
        if not self.counts_items:
            return batches, None
        labels = [batch["labels"][..., 1:] for batch in batches]
        items: Any = sum(label.ne(-100).sum() for label in labels)
        items = items / 1  # tensor, context and sequence parallel size
        return batches, items

    def _training_step(self, inputs: Batch) -> torch.Tensor:
        inputs = dict(inputs)  # _prepare_inputs: the tensors are on the device already
        loss = self._compute_loss(inputs)
        del inputs
        if self.items is None:
            loss = loss / self.workload.grad_accum
        self.watch.phase("backward")
        self._backward(loss)
        return loss.detach()

    def _compute_loss(self, inputs: Batch) -> torch.Tensor:
        if self.items is not None:
            inputs = {**inputs, "num_items_in_batch": self.items}
        outputs = self.model(**inputs)
        self.training.keep(outputs)
        loss: torch.Tensor = outputs["loss"]
        if self.items is not None:
            loss *= 1  # processes, by tensor parallel size (average_tokens_across_devices)
        self.watch.phase_end()
        return loss

    def _backward(self, loss: torch.Tensor) -> None:
        """Accelerator.backward; Trainer gives accelerate one gradient accumulation step."""
        loss = loss / 1
        (loss if self.training.scaler is None else self.training.scaler.scale(loss)).backward()


def _accepts_loss_kwargs(model: Any) -> bool:
    """Whether Trainer counts the labels and has the model divide by their number (trainer.py, __init__)."""
    import inspect

    base = model.get_base_model() if uses_peft(model) else model
    if hasattr(base, "accepts_loss_kwargs"):
        return bool(base.accepts_loss_kwargs)
    parameters = inspect.signature(base.forward).parameters.values()
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)


def infer(model: Any, workload: Workload, device: str, watch: Watch) -> None:
    """One forward over the prompt under inference_mode, the output alive when the level is read."""
    watch.measured()
    watch.phase("forward")
    with torch.inference_mode():
        vocab_size = model.get_input_embeddings().weight.shape[0]
        batch = make_batch(
            workload.batch, workload.seq_len, vocab_size, padded=workload.padded, labels=False, device=device
        )
        dtype = DTYPES.get(workload.amp, torch.bfloat16)
        with torch.autocast(device, dtype=dtype, enabled=workload.amp != "none"):
            output = model(**batch)
    watch.phase_end()
    del output

"""Hugging Face's Trainer as far as memory sees it."""

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from memcalc.realize.adapters import uses_peft
from memcalc.realize.batch import Batch

if TYPE_CHECKING:
    from memcalc.realize.loops import Training


class Trainer:
    """Hugging Face's Trainer without its surroundings: one epoch, one device, no logging.

    Source: transformers 5.24, trainer.py (_run_epoch, get_batch_samples, training_step, compute_loss);
    accelerate 1.15, accelerator.py (prepare_model, backward, clip_grad_norm_), optimizer.py (step).
    """

    def __init__(self, training: "Training") -> None:
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
        training.optimizer_step()
        self.model.zero_grad(set_to_none=self.workload.zero_grad == "none")
        training.restart()
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
    base = model.get_base_model() if uses_peft(model) else model
    if hasattr(base, "accepts_loss_kwargs"):
        return bool(base.accepts_loss_kwargs)
    parameters = inspect.signature(base.forward).parameters.values()
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)

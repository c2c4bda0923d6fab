"""The training loops: whose habits keep which tensors alive. Real tensors, any device.

Python's locals decide lifetimes here: a name that is rebound late, or lives in a frame that is still
running, keeps its tensor. So the functions below have the locals of the code that they stand for.
"""

from typing import Any

import torch
from torch import nn

from memcalc.realize.adapters import stepped, wants_tasks
from memcalc.realize.batch import Batch, make_batch
from memcalc.realize.blocks import in_blocks
from memcalc.realize.freezing import anatomy_of
from memcalc.realize.model import DTYPES
from memcalc.realize.noise import add_noise
from memcalc.realize.optimizer import make_optimizer, make_scaler
from memcalc.realize.restarting import restart
from memcalc.realize.trainer import Trainer
from memcalc.realize.turns import Turns
from memcalc.realize.watch import Watch
from memcalc.workload import Workload


class Training:
    """What lives between the steps of a training run, and the steps themselves."""

    def __init__(self, model: Any, workload: Workload, device: str, watch: Watch) -> None:
        self.model = model
        self.workload, self.device, self.watch = workload, device, watch
        self.optimizer = make_optimizer(model, workload, watch)
        anatomy = anatomy_of(model)
        if workload.method.blocks(anatomy):
            self.optimizer = in_blocks(self.optimizer, model, workload, watch)
        self.turns = Turns(model, anatomy, workload.method, self.optimizer)
        self.scaler = make_scaler(workload, device)
        self.output: Any = None  # the model's output, as long as the loop keeps it
        self.steps = 0  # of the optimizer
        self.vocab_size: int = self.model.get_input_embeddings().weight.shape[0]
        if workload.neftune_alpha is not None:
            add_noise(model, workload)
        if workload.loss == "chunked-nll":
            from memcalc.realize.chunked import in_chunks  # needs transformers to be there

            in_chunks(model)
        self.measuring = False
        self.step = self._plain_step
        if workload.loop == "trainer":
            self.step = Trainer(self).step

    def run(self) -> None:
        """The steps of `--history`, then the measured one."""
        if self.workload.history:
            self.watch.history()
        for item in self.workload.history:
            if item == "empty":
                self.watch.empty_cache()
            else:
                for turn in self.turns.round:
                    self.turns.take(turn)
                    self.step(self.workload.seq_len if item == "same" else int(item))
        self.watch.measured()
        self.turns.take(self.turns.round[-1])
        self.measuring = True
        self.step(self.workload.seq_len)
        self.measuring = False

    def batch(self, seq_len: int) -> Batch:
        return make_batch(
            self.workload.batch,
            seq_len,
            self.vocab_size,
            padded=self.workload.padded,
            labels=self.workload.training,
            device=self.device,
            tasks=wants_tasks(self.model),
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

    def restart(self) -> None:
        """The measured step is one after which the method's adapters begin anew."""
        if self.measuring and self.workload.method.restarts:
            restart(self.model, self.optimizer)

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
        self.optimizer_step()
        self.restart()
        self.watch.phase_end()
        self.drop_output("step")

    def optimizer_step(self) -> None:
        """The optimizer's step, and what the method asks for behind it."""
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.steps += 1
        stepped(self.model, self.steps)

    def _plain_loss(self, batch: Batch) -> torch.Tensor:
        with self.autocast():
            output = self.model(**batch)
            self.keep(output)
            loss: torch.Tensor = output.loss
            if self.workload.grad_accum > 1:
                loss = loss / self.workload.grad_accum
        self.watch.phase_end()
        return loss


def infer(model: Any, workload: Workload, device: str, watch: Watch) -> None:
    """One forward over the prompt under inference_mode, the output alive when the level is read."""
    watch.measured()
    watch.phase("forward")
    with torch.inference_mode():
        vocab_size = model.get_input_embeddings().weight.shape[0]
        batch = make_batch(
            workload.batch,
            workload.seq_len,
            vocab_size,
            padded=workload.padded,
            labels=False,
            device=device,
            tasks=wants_tasks(model),
        )
        dtype = DTYPES.get(workload.amp, torch.bfloat16)
        with torch.autocast(device, dtype=dtype, enabled=workload.amp != "none"):
            output = model(**batch)
    watch.phase_end()
    del output

"""Multitask prompt tuning: virtual tokens that tasks share, times a product of low rank of each task's own."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from memcalc.methods.base import Kind, Method
from memcalc.options import option
from memcalc.tape.ops.elementwise import multiplied_in_place
from memcalc.tape.ops.linear import bmm
from memcalc.tape.ops.loss import embedding
from memcalc.tape.ops.placing import rows_of
from memcalc.tape.prompts import behind_prompts, made_parameter
from memcalc.tape.tape import Array, Tensor

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.prelude import Batch, Output


@final
@dataclass(frozen=True, slots=True)
class MultitaskPromptTuning(Method):
    """Multitask prompt tuning: P * (u v) for each row's task (Wang et al. 2023, arXiv:2303.02861, section 3.1).

    Trainable parameters, fp32: virtual_tokens * hidden of P, and num_tasks * num_ranks * (virtual_tokens + hidden).
    Keeps for backward, beside what prompt tuning keeps, for each row: u, v, their product, and P as it was before it is
    multiplied in place. All of it is there in use too.
    Source: peft 0.21.2, tuners/multitask_prompt_tuning/model.py, MultitaskPromptEmbedding.
    """

    kind: ClassVar[Kind] = "soft prompt"
    virtual_tokens: int = option(
        20, "--virtual-tokens", "virtual tokens before the input", aliases=("--num-virtual-tokens",), size=True
    )
    num_tasks: int = option(1, "--num-tasks", "tasks that share the virtual tokens")
    num_ranks: int = option(1, "--num-ranks", "rank of each task's product")

    @property
    def positions_before(self) -> int:
        return self.virtual_tokens

    @property
    def frozen_in_use(self) -> bool:
        return False

    @property
    def wants_tasks(self) -> bool:
        return True

    def feed(self, m: "Builder", batch: "Batch", model: "Callable[[Batch], Output]") -> "Output":
        tasks = batch.tasks
        assert tasks is not None, "a batch says which tasks its rows belong to"

        def encoder(numbers: Array) -> Tensor:
            return m.call("prompt_encoder.default", self._encode, numbers, tasks)

        return behind_prompts(m, batch, model, self.virtual_tokens, encoder)

    def _encode(self, m: "Builder", numbers: Array, tasks: Array) -> Tensor:
        """MultitaskPromptEmbedding: (b, v), (b,) -> (b, v, hidden)."""
        v, width = self.virtual_tokens, m.sizes.hidden
        cols = made_parameter(m, "prefix_task_cols", (self.num_tasks, v, self.num_ranks))
        rows = made_parameter(m, "prefix_task_rows", (self.num_tasks, self.num_ranks, width))
        prompts = embedding(numbers, made_parameter(m, "embedding.weight", (v, width), "embedding"))
        task_cols = rows_of(cols, tasks)
        task_rows = rows_of(rows, tasks)
        task_prompts = bmm(task_cols, task_rows)
        return multiplied_in_place(prompts, task_prompts)

    def making(self, m: "Builder", module: str, *, frozen: bool, raised: bool) -> Iterator[str]:
        """A module's children are moved before what it has itself."""
        yield "embedding.weight"
        yield ""

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "MULTITASK_PROMPT_TUNING",
            "num_virtual_tokens": self.virtual_tokens,
            "num_tasks": self.num_tasks,
            "num_ranks": self.num_ranks,
        }


METHOD = MultitaskPromptTuning

"""The hooks that a PEFT method may answer, doing nothing by default. One file of this folder per method."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeVar

from memcalc.anatomy import Anatomy, Target
from memcalc.errors import InvalidWorkload, NotModelled
from memcalc.options import LARGEST, options_of

if TYPE_CHECKING:
    from memcalc.optimizers import Optimizer
    from memcalc.tape.builder import Builder
    from memcalc.tape.layer import Given
    from memcalc.tape.prelude import Batch, Output
    from memcalc.tape.tape import Array, Tensor
    from memcalc.tape.weights import Weight


R = TypeVar("R")  # what a layer gives: its output, or several

# Families of methods, as surveys sort them (Lialin et al. 2023, arXiv:2303.15647, section 3); "lean" are those that
# reach every parameter with less memory.
Kind = Literal["full", "lean", "selective", "soft prompt", "adapter", "reparameterised"]


Attended = tuple["Tensor", "Tensor | None"]  # an attention module's output, and eager attention's weights
Turned = tuple["Tensor", "Tensor"]  # cosine and sine of the positions
Attend = Callable[["Tensor", "Tensor", "Tensor", "Array | None"], Attended]  # queries, keys, values, mask


Turn = frozenset[str] | None  # full names of what trains in a step; None: nothing changes, or the optimizer sees to it
SWITCH_EVERY = 2  # steps with each of BAdam's blocks


def round_of(turns: tuple[frozenset[str], ...], blocks: tuple[frozenset[str], ...]) -> tuple[Turn, ...]:
    """The steps that an item of --history stands for, by what `Method.turns` and `Method.blocks` answer."""
    return turns or ((None,) * SWITCH_EVERY if blocks else (None,))


class OptimizerMaker(NamedTuple):
    """A function of peft.optimizers that makes a method's optimizer, of the class that is asked for."""

    function: str
    options: dict[str, Any]


class Method:
    """A way to fine-tune: which parameters train, what is added, and where it acts in the forward."""

    __slots__ = ()
    kind: ClassVar[Kind] = "selective"
    own_targets: ClassVar[frozenset[str]] = frozenset()  # names of modules that peft's config says where none is asked
    merges: ClassVar[bool] = False  # whether what it adds can be folded into the base's own weights
    not_checkpointed: ClassVar[str] = (  # why, where it does not take checkpointing
        "peft refuses it, since layers that are run again would lengthen the cache that holds its keys and values"
    )

    @property
    def layers_alike(self) -> bool:
        """Whether it does the same to every layer, so that a few may stand for all."""
        return True

    @property
    def positions_before(self) -> int:
        """Positions that virtual tokens take before each row's own."""
        return 0

    @property
    def frozen_in_use(self) -> bool:
        """Whether what it adds is frozen where it is loaded to be used only. peft's tuners do so."""
        return True

    @property
    def optimizer_maker(self) -> OptimizerMaker | None:
        """What makes the optimizer; None: the loop does."""
        return None

    @property
    def projected_rank(self) -> int | None:
        """The rank to which its optimizer projects gradients of the targets' weights; None: it projects none."""
        return None

    def groups(self, trained: Mapping[str, tuple[int, ...]], layer_norms: frozenset[str]) -> list[list[str]]:
        """What trains (full name and shape, in order) in the groups that `optimizer_maker` makes of it.

        layer_norms: which of them are a torch.nn.LayerNorm's.
        """
        return [list(trained)]

    @property
    def adds(self) -> bool:
        """Whether it adds adapters, so that the base may be frozen and packed."""
        return self.peft_config() is not None or self.graft() is not None

    def sizes(self, targets: Sequence[tuple[int, int]]) -> Sequence[int]:
        """Values of the option that is its size, from the one with which the fewest parameters train on.

        `targets`: (d_out, d_in) of each linear layer that it adapts. What it refuses may follow behind.
        """
        return range(1, LARGEST + 1)

    def rewritten(self, target: Target) -> int:
        """How many numbers the tuned model differs in at a target. What cannot be merged stays beside it."""
        return target.added

    @property
    def keeps_dtype(self) -> bool:
        """Whether what it adds stays in the base's dtype (fp32 over a packed one): peft never raises it."""
        return False

    @property
    def left_out(self) -> str:
        """What it needs on a card in training that no tier knows, in a line for the footprint's warnings; "": nothing.

        trace says the same of the real modules.
        """
        return ""

    @property
    def takes_checkpointing(self) -> bool:
        """Whether layers may be checkpointed."""
        return True

    @property
    def holds_forward(self) -> bool:
        """Whether it needs the forward that the model had when it was wrapped: one that is put there later would lose
        what the method does in it, or never be called.
        """
        return False

    @property
    def wants_tasks(self) -> bool:
        """Whether a batch says of each row which task it belongs to."""
        return False

    def deeper(self, depth: int) -> int:
        """How many layers the model has, the pretrained one having `depth`."""
        return depth

    def copied(self, depth: int) -> frozenset[int]:
        """Which layers of a model that was made `depth` layers deep are copies, each of the layer below it."""
        return frozenset()

    def stack(self, depth: int) -> list[int]:
        """Of each layer of the model the number of the pretrained one, of `depth`, that it is or is a copy of."""
        total = self.deeper(depth)
        copied = self.copied(total)
        return [sum(below not in copied for below in range(index + 1)) - 1 for index in range(total)]

    def targets(self, model: Anatomy) -> frozenset[str]:
        """Which of the model's modules (full names) it adapts."""
        return frozenset()

    def trained(self, model: Anatomy, targets: frozenset[str]) -> frozenset[str]:
        """Which of the base model's own parameters (full names) it trains."""
        return frozenset()

    def thawed(self, model: Anatomy) -> frozenset[str]:
        """Which of the parameters that it trains peft freezes, and has no word for."""
        return frozenset()

    def turns(self, model: Anatomy) -> tuple[frozenset[str], ...]:
        """Where not all that it trains does so in every step: which parameters do, step by step of a round.

        An item of --history is a round, and the measured step is one more like the last. Empty: all train always.
        """
        return ()

    def blocks(self, model: Anatomy) -> tuple[frozenset[str], ...]:
        """The parameters (full names) that BAdam's optimizer trains one block at a time, the lowest block first.

        An item of --history is two steps, the measured one is the lowest block's last. Empty: there are no blocks.
        """
        return ()

    @property
    def drops_states(self) -> bool:
        """Whether the optimizer forgets its states of what does not train in the next turn."""
        return False

    @property
    def restarts(self) -> bool:
        """Whether adapters are merged into weights every so many steps and begin anew, as the measured step does."""
        return False

    def restart(self, m: "Builder", module: str) -> None:
        """Compute, as it restarts, what the adapters of the target `module` (full name) add to its weight, in place."""

    def clash(self, optimizer: "Optimizer") -> str:
        """Why it cannot go with an optimizer; "": it can."""
        if optimizer.projects and self.projected_rank is None:
            return "that projects gradients of weights which --method galore names"
        if self.drops_states and optimizer.made == "at once":
            return "it drops states of what is frozen again, and this optimizer makes them but once"
        if self.drops_states and optimizer.torch_options.get("is_paged"):
            return "it drops states of what is frozen again, and bitsandbytes lets go of no paged ones"
        return ""

    def linear(self, m: "Builder", x: "Tensor", w: "Weight", name: str) -> "Tensor":
        """The output of the linear layer `name` for x (b, s, d_in)."""
        return w.linear(x)

    def layer(self, m: "Builder", x: "Tensor", given: "Given", run: "Callable[[Tensor, Given], R]") -> R:
        """What the repeated layer under way gives for x (b, s, hidden). `run` calls the layer itself."""
        return run(x, given)

    def attention(
        self, m: "Builder", name: str, x: "Tensor", run: Callable[[], Attended], turned: Turned | None
    ) -> Attended:
        """What the attention module `name` of the module under way gives for x (b, s, hidden).

        `run` calls the module itself; `turned`: by what it turns queries and keys, if it does.
        """
        return run()

    @property
    def attention_groups(self) -> float | None:
        """The part of the sequence that half of the heads see in training, the others as much, half of it further on;
        None: all heads see all.
        """
        return None

    def attend(
        self, m: "Builder", q: "Tensor", k: "Tensor", v: "Tensor", mask: "Array | None", run: Attend
    ) -> Attended:
        """What attention gives for queries (b, heads, s, d), keys and values (b, kv_heads, s, d): (b, s, heads, d)."""
        return run(q, k, v, mask)

    def table(self, m: "Builder", weight: "Tensor", name: str) -> "Tensor":
        """What tokens are looked up in: the embedding's weight (rows, hidden), `name` being its module."""
        return weight

    def making(self, m: "Builder", module: str, *, frozen: bool, raised: bool) -> Iterator[str]:
        """Make what the module (full name) is given, in order: yields the part to make next, "" for all that are left.

        Blocks that the device holds only meanwhile are locals. frozen: the base was frozen before;
        raised: half adapters become fp32 afterwards.
        """
        yield ""

    def finish(self, m: "Builder", modules: Sequence[str]) -> None:
        """Make what is made when all modules (full names, in order) have the rest, before any of it is raised; let go
        of what was made for single ones and is not kept.
        """

    def merge(self, m: "Builder", module: str) -> None:
        """Compute what the adapters of the target `module` (full name) add to its weight, in place.

        Raises NotModelled where it is not written.
        """
        raise NotModelled("estimate does not write --merged under this method: memcalc trace runs it")

    def saved_bytes(self, m: "Builder", name: str, nbytes: int, *, buffer: bool, targets: int) -> int:
        """How many bytes of a checkpoint the adapter `name` (full name) takes, which has `nbytes` itself.

        buffer: whether it is one; targets: how many there are in the whole model.
        """
        return 0 if buffer else nbytes

    def feed(self, m: "Builder", batch: "Batch", model: "Callable[[Batch], Output]") -> "Output":
        """The output of the model's forward, called in the way in which the method calls it."""
        return model(batch)

    def stepped(
        self, m: "Builder", kept: "dict[str, dict[str, Array]]", step: int, times: Callable[[str], int]
    ) -> None:
        """What it asks the loop for after the optimizer's step of this number, before gradients are dropped.

        kept: blocks of its own that live on between steps, by kind and full name; times: how many of the whole model's
        tensors the one of a full name stands for.
        """

    def copy_of(self, module: str, targets: frozenset[str]) -> str:
        """Where below the module (full name) the copy stands that is used and trained in its place; "": there is none.

        peft deep-copies it: what it has, buffers too, in the dtype that it has.
        """
        return ""

    def default_targets(self, model_type: str) -> tuple[str, ...]:
        """Names or suffixes of what it adapts where no target is given; empty: that is for peft to say, or none."""
        return ()

    def peft_config(self) -> dict[str, Any] | None:
        """What peft is given to do the same, as plain data; None where peft takes no part."""
        return None

    def peft_defaults(self, model_type: str, layers: int) -> dict[str, Any]:
        """What peft is given where its config says nothing: its own tables lack some model types."""
        return {"target_modules": self.default_targets(model_type) or None}

    def graft(self) -> dict[str, Any] | None:
        """What modules of our own are given, as plain data, to do what peft has no method for; None where none do.

        "module" names the file of realize/modules that has them; they are put where the method's targets stand.
        """
        return None

    def options(self) -> dict[str, Any]:
        """The method's options as plain JSON values."""
        values = {name: getattr(self, name) for name in options_of(type(self))}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def check_dropout(flag: str, rate: float) -> None:
    """Raise InvalidWorkload where a rate is none."""
    if not 0 <= rate < 1:
        raise InvalidWorkload(f"{flag} must be at least 0 and below 1, not {rate}")

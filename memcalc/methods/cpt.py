"""CPT: virtual tokens that begin as examples and may move but little, and a loss that counts their labels too."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, final

from memcalc.errors import InvalidWorkload, NotModelled, shown
from memcalc.methods.base import Kind, Method
from memcalc.methods.of_cpt.loss import Labelled, loss_of
from memcalc.options import option
from memcalc.tape.ops.arranging import repeat
from memcalc.tape.ops.elementwise import add, cast
from memcalc.tape.ops.loss import embedding
from memcalc.tape.ops.placing import taken
from memcalc.tape.ops.views import cat, view
from memcalc.tape.prompts import longer_mask, made_parameter, prompts_of, words_of
from memcalc.tape.tape import Array, Tensor, like, new, on_cuda, record, tape

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder
    from memcalc.tape.prelude import Batch, Output

_ENCODER = "prompt_encoder.default"
_MASK = f"{_ENCODER} mask"
_INPUT, _LABEL, _TYPES = 2, 4, 4  # types of tokens: a template's 1 and 3; the next example's begin four higher


@final
@dataclass(frozen=True, slots=True)
class Cpt(Method):
    """CPT, context-aware prompt tuning: prompt tuning whose tokens begin as examples, and are projected back to where
    they began if they move too far (Blau et al. 2024, arXiv:2410.17222, section 3).

    Trainable parameters, fp32: virtual_tokens * hidden, and as many numbers frozen beside them. Labels' tokens train
    not, by a mask of the gradient, and after the first step only those that have moved are projected. Keeps for
    backward: as prompt tuning, and the model's own loss until the method's is there: both of the logits at once.
    Source: peft 0.21.2, tuners/cpt/model.py, CPTEmbedding; peft_model.py, _cpt_forward.
    """

    kind: ClassVar[Kind] = "soft prompt"
    virtual_tokens: int = option(
        20, "--virtual-tokens", "virtual tokens before the input", aliases=("--num-virtual-tokens",), size=True
    )
    cpt_token_ids: tuple[str, ...] = option(
        (), "--cpt-token-ids", "tokens as which they begin, in place of their number; figures depend on how many"
    )
    cpt_tokens_type_mask: tuple[str, ...] = option(
        (),
        "--cpt-tokens-type-mask",
        "what each is: of a template 1, input 2, of its label's template 3, label 4, and 4 more in each further "
        "example; default: an input and its label",
    )
    opt_weighted_loss_type: str = option(
        "none", "--opt-weighted-loss-type", "whether older examples' labels count less", choices=("none", "decay")
    )
    opt_loss_decay_factor: float = option(1.0, "--opt-loss-decay-factor", "how much less, from one to the next")
    opt_projection_epsilon: float = option(0.1, "--opt-projection-epsilon", "how far an input's token may move")
    opt_projection_format_epsilon: float = option(
        0.1, "--opt-projection-format-epsilon", "how far a template's token may move"
    )

    def __post_init__(self) -> None:
        for flag, given in (("token-ids", self.cpt_token_ids), ("tokens-type-mask", self.cpt_tokens_type_mask)):
            for item in given:
                if not (item.isascii() and item.isdigit()):
                    raise InvalidWorkload(f"--cpt-{flag} {shown(item)}: each item is a number, from 0")
        if self.cpt_tokens_type_mask and len(self.cpt_tokens_type_mask) != self.positions_before:
            raise InvalidWorkload(
                f"--cpt-tokens-type-mask has {len(self.cpt_tokens_type_mask)} items for {self.positions_before} tokens"
            )
        if (max(self._types) + _LABEL) % _TYPES:
            raise NotModelled(
                "--cpt-tokens-type-mask must end with a label, a multiple of 4: peft adds its largest to the types of "
                "the rows' own tokens, of which none is a label then; memcalc trace runs it by --peft-config"
            )

    @property
    def positions_before(self) -> int:
        return len(self.cpt_token_ids) or self.virtual_tokens

    @property
    def _types(self) -> tuple[int, ...]:
        given = tuple(map(int, self.cpt_tokens_type_mask))
        return given or (*(_INPUT,) * (self.positions_before - 1), _LABEL)

    @property
    def _movable(self) -> int:
        """How many tokens are no labels'."""
        return sum(kind % _TYPES != 0 for kind in self._types)

    @property
    def frozen_in_use(self) -> bool:
        return False

    @property
    def holds_forward(self) -> bool:
        """Its loss is of the logits, which the loss in chunks makes none of."""
        return True

    def feed(self, m: "Builder", batch: "Batch", model: "Callable[[Batch], Output]") -> "Output":
        """_cpt_forward: what it names lives until it returns."""
        (b, s), v = batch.ids.shape, self.positions_before
        mask, _ones = longer_mask(batch, v)
        types = _types_of_rows(b, s)
        embeds = words_of(m, batch)

        def encoder(numbers: Array) -> Tensor:
            return repeat(m.call(_ENCODER, self._encode, numbers), numbers.shape[0])

        prompts = prompts_of(b, v, encoder)
        prompts = cast(prompts, embeds.dtype)
        embeds = cat(prompts, embeds, 1)
        if batch.labels is None:
            return model(replace(batch, embeds=embeds, mask=mask))
        prompt_labels = new((b, v), "int64", "to")
        labels = new((b, v + s), "int64", "cat")
        prompt_types = new((b, v), "int64", "to")
        _raise_types(b * s)
        all_types = new((b, v + s), "fp32", "cat")
        found = _labelled(b, v + s)
        output = model(replace(batch, embeds=embeds, labels=labels, mask=mask))
        assert output.logits is not None, "its own loss is of logits"
        output.loss = loss_of(output.logits, labels, all_types, self._labelled(s, ignored=batch.mask is not None))
        del types, prompt_labels, prompt_types, found
        return output

    def _labelled(self, s: int, *, ignored: bool) -> Labelled:
        """Labels within the prompt, whose first token is nobody's next, and all of the row's own."""
        prompt = [kind for kind in self._types[1:] if kind and kind % _TYPES == 0]
        return Labelled(len(prompt) + s, len({*prompt, max(self._types) + _LABEL}), int(ignored))

    def _encode(self, m: "Builder", numbers: Array) -> Tensor:
        """CPTEmbedding.forward for one row, or in use its frozen part alone: (1, v, hidden)."""
        v, width = self.positions_before, m.sizes.hidden
        shape = (v, width)
        frozen = m.adapter(m.path, "embedding.weight", shape, "embedding", dtype="fp32", late=True, frozen=True)
        delta = made_parameter(m, "delta_embedding.weight", shape, "embedding")
        if not m.training:
            return view(frozen, (1, *shape))
        first = numbers.view((1, v), numbers.strides)
        prompts = embedding(first, frozen)
        if not m.declaring:
            delta.data.storage = self._projected(delta.data, moved=m.steps > 0 and self._movable > 0).storage
        return add(prompts, embedding(first, _masked_in_backward(delta, m.made_once)))

    def _projected(self, delta: Array, *, moved: bool) -> Array:
        """get_projection: a copy, its rows that are not zero brought back within their bounds."""
        outer, tape.category = tape.category, "adapter"
        projected = like(delta, "clone")
        tape.category = outer
        v, width = delta.shape
        norms = new((v,), "fp32", "linalg_vector_norm")
        rows = new((v,), "bool", "gt")
        new((), "bool", "any")
        if not moved:
            return projected
        bounds = new((v,), "fp32", "to")
        count = self._movable
        rows_taken = taken((count, width), "fp32", (count, 1))
        bound = taken((count,), "fp32", (count, 1))
        norm, least = (taken((count,), "fp32", (count, 1)) for _ in range(2))
        clamped = new((count,), "fp32", "clamp")
        del norm, least
        factors = new((count,), "fp32", "div")
        del bound, clamped, factors
        new((count, 1), "int64", "nonzero")
        del norms, rows, bounds, rows_taken
        return projected

    def making(self, m: "Builder", module: str, *, frozen: bool, raised: bool) -> Iterator[str]:
        """In training the frozen part is made of the words' embeddings, on the device."""
        if m.training:
            numbers = new((1, self.positions_before), "int64", "to", "adapter")
            rows = m.word_embeddings(numbers, alone=True)
            if rows.dtype == "fp32":
                yield "embedding.weight"
                del rows
            else:
                copied = like(rows.data, "clone")
                del rows
                yield "embedding.weight"
                del copied
            del numbers
        yield ""

    def saved_bytes(self, m: "Builder", name: str, nbytes: int, *, buffer: bool, targets: int) -> int:
        """peft saves the sum of both."""
        return nbytes if name.endswith("delta_embedding.weight") else 0

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "CPT",
            "cpt_token_ids": list(map(int, self.cpt_token_ids)) or [0] * self.virtual_tokens,
            "cpt_tokens_type_mask": list(self._types),
            "opt_weighted_loss_type": self.opt_weighted_loss_type,
            "opt_loss_decay_factor": self.opt_loss_decay_factor,
            "opt_projection_epsilon": self.opt_projection_epsilon,
            "opt_projection_format_epsilon": self.opt_projection_format_epsilon,
        }


def _types_of_rows(b: int, s: int) -> Array:
    """All are labels."""
    ones = new((b, s), "fp32", "to")
    types = new((b, s), "fp32", "mul")
    del ones
    return types


def _raise_types(count: int) -> None:
    """All rows' types, in place, by the largest of the prompt's."""
    positive = new((count,), "bool", "gt")
    types = taken((count,), "fp32", (count, 2))
    new((), "int64", "max")
    new((count, 2), "int64", "nonzero")
    del positive, types


def _labelled(b: int, s: int) -> Array:
    """Which positions are labels; the others' are ignored from here on."""
    positive = new((b, s), "bool", "gt")
    remainder = new((b, s), "fp32", "remainder")
    even = new((b, s), "bool", "eq")
    del remainder
    found = new((b, s), "bool", "bitwise_and")
    del positive, even
    new((b, s), "bool", "bitwise_not")
    return found


def _masked_in_backward(x: Tensor, of_host: dict[str, Array]) -> Tensor:
    """x itself, whose gradient is masked by a hook. The mask is kept on the host, and there for good."""
    rows = x.shape[0]

    def backward(g: Array) -> list[Array]:
        mask = of_host.get(_MASK) or new((rows, 1), "bool", "to")
        if not on_cuda():
            of_host[_MASK] = mask
        gradient = like(g, "mul")
        del mask
        return [gradient]

    return record(x.data, (x,), backward)


METHOD = Cpt

"""LLaMA-Adapter: prompts beside the keys and values of the topmost layers, let in by a gate."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from memcalc.anatomy import Anatomy
from memcalc.errors import InvalidWorkload
from memcalc.methods.base import Attended, Kind, Method, Turned
from memcalc.options import option
from memcalc.tape import rotary
from memcalc.tape.attending import interleaved, matmul
from memcalc.tape.ops.arranging import repeat
from memcalc.tape.ops.elementwise import add, cast, divide, mul
from memcalc.tape.ops.loss import softmax_fp32
from memcalc.tape.ops.views import heads, reshape, split, transpose, view
from memcalc.tape.tape import Tensor

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder

# Names of attention modules. peft 0.21.2, tuners/adaption_prompt/config.py, TRANSFORMERS_MODEL_CONFIG
_ATTENTION = {"gpt2": "attn", "llama": "self_attn", "mistral": "self_attn"}


@final
@dataclass(frozen=True, slots=True)
class AdaptionPrompt(Method):
    """LLaMA-Adapter: attention + g * attention over a prompt, both trained (Zhang et al. 2023, arXiv:2303.16199).

    Section 3.2. Trainable parameters: adapter_len * hidden + 1 for each of adapter_layers, in the base's dtype, fp32
    over a packed one. Keeps for backward: the queries and, repeated for each row, the keys and values of the prompt,
    their scores and probabilities. Queries are computed once more, and in Llama values too, which nothing uses.
    Source: peft 0.21.2, tuners/adaption_prompt/layer.py, utils.py.
    """

    kind: ClassVar[Kind] = "soft prompt"
    own_targets: ClassVar[frozenset[str]] = frozenset(_ATTENTION.values())
    adapter_len: int = option(10, "--adapter-len", "tokens of each prompt", size=True)
    adapter_layers: int = option(0, "--adapter-layers", "how many of the topmost layers have one; 0: all", least=0)

    @property
    def layers_alike(self) -> bool:
        return not self.adapter_layers

    @property
    def frozen_in_use(self) -> bool:
        return False

    @property
    def holds_forward(self) -> bool:
        """Source: peft 0.21.2, tuners/adaption_prompt/model.py, AdaptionPromptModel.__init__."""
        return True

    @property
    def keeps_dtype(self) -> bool:
        return True

    def targets(self, model: Anatomy) -> frozenset[str]:
        name = _ATTENTION.get(model.model_type)
        if name is None:
            known = ", ".join(_ATTENTION)
            raise InvalidWorkload(f"peft refuses this: adaption prompts know {known}, not {model.model_type}")
        count = self.adapter_layers or model.depth
        if count > model.depth:
            raise InvalidWorkload(f"--adapter-layers {count} is more than the {model.depth} layers that there are")
        return frozenset(f"{model.layers}.{index}.{name}" for index in range(model.depth - count, model.depth))

    def attention(
        self, m: "Builder", name: str, x: Tensor, run: Callable[[], Attended], turned: Turned | None
    ) -> Attended:
        if f"{m.path}.{name}" not in m.targets:
            return run()
        outputs, rest = _boxed(run)
        if turned is None:
            return m.call(name, self._gpt2, x, outputs), rest
        return m.call(name, self._llama, x, outputs, turned), rest

    def _llama(self, m: "Builder", x: Tensor, outputs: list[Tensor], turned: Turned) -> Tensor:
        """AdaptedAttention, its module's output being there: (b, s, hidden) -> (b, s, hidden)."""
        output = outputs.pop()
        b, s, hidden = output.shape
        kv_heads, head_dim = m.sizes.kv_heads, m.sizes.head_dim
        factor = hidden // (kv_heads * head_dim)
        if m.sizes.heads != factor * kv_heads:
            raise InvalidWorkload(
                f"peft refuses this: adaption prompts take heads that are as wide together as the hidden states, and "
                f"{m.sizes.heads} of {head_dim} are not {hidden}"
            )
        prompt, gate = self._parameters(m, hidden)
        key = m.linear(prompt, "k_proj", kv_heads * head_dim)
        value = m.linear(prompt, "v_proj", kv_heads * head_dim)
        adapter_k = _for_each_row(key, b, head_dim)
        adapter_v = _for_each_row(value, b, head_dim)
        adapter_k = interleaved(adapter_k, factor)
        adapter_v = interleaved(adapter_v, factor)
        query = _llama_queries(m, x, *turned)
        scores = _scores(query, adapter_k, gate)
        adapted = reshape(transpose(matmul(scores, adapter_v), 1, 2), (b, s, hidden))
        adapted = m.linear(adapted, "o_proj", hidden)
        output = add(output, adapted)
        return cast(output, query.dtype)

    def _gpt2(self, m: "Builder", x: Tensor, outputs: list[Tensor]) -> Tensor:
        """AdaptedAttentionGPT: as `_llama`, but that the module's output is kept to the end."""
        output = outputs[0]
        b, s, hidden = output.shape
        head_dim = m.sizes.head_dim
        prompt, gate = self._parameters(m, hidden)
        _query, key, value = _parts(m, prompt)
        adapter_k = _for_each_row(key, b, head_dim)
        adapter_v = _for_each_row(value, b, head_dim)
        query = heads(_parts(m, x)[0], head_dim)
        scores = _scores(query, adapter_k, gate)
        adapted = reshape(transpose(matmul(scores, adapter_v), 1, 2), (b, s, hidden))
        summed = add(output, adapted)
        summed = cast(summed, query.dtype)
        return summed

    def _parameters(self, m: "Builder", hidden: int) -> tuple[Tensor, Tensor]:
        prompt = m.adapter(m.path, "adaption_prompt", (1, self.adapter_len, hidden))
        return prompt, m.adapter(m.path, "adaption_gate", (1,))

    def peft_defaults(self, model_type: str, layers: int) -> dict[str, Any]:
        return {"adapter_layers": layers}

    def peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "ADAPTION_PROMPT",
            "adapter_len": self.adapter_len,
            "adapter_layers": self.adapter_layers or None,
        }


def _boxed(run: Callable[[], Attended]) -> tuple[list[Tensor], Tensor | None]:
    """The output in a list, so that who takes it out may let go of it, and the rest."""
    output, rest = run()
    return [output], rest


def _for_each_row(x: Tensor, b: int, head_dim: int) -> Tensor:
    """A prompt's keys or values (1, n, heads * head_dim) -> (b, heads, n, head_dim)."""
    _, n, width = x.shape
    return transpose(repeat(view(x, (1, n, width // head_dim, head_dim)), b), 1, 2)


def _llama_queries(m: "Builder", x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """llama_compute_query_states: (b, s, hidden) -> (b, heads, s, head_dim)."""
    query = heads(m.linear(x, "q_proj", m.sizes.heads * m.sizes.head_dim), m.sizes.head_dim)
    _value = m.linear(x, "v_proj", m.sizes.kv_heads * m.sizes.head_dim)
    return rotary.turned(query, cos, sin)


def _parts(m: "Builder", x: Tensor) -> list[Tensor]:
    """What c_attn makes: queries, keys, values."""
    hidden = m.sizes.hidden
    return split(m.linear(x, "c_attn", 3 * hidden, bias=True, kind="conv1d"), 3 * (hidden,), 2)


def _scores(query: Tensor, adapter_k: Tensor, gate: Tensor) -> Tensor:
    """Probabilities over the prompt, times the gate: (b, heads, s, n)."""
    scores = divide(matmul(query, cast(transpose(adapter_k, 2, 3), query.dtype)))
    scores = mul(gate, cast(softmax_fp32(scores), query.dtype))
    return scores


METHOD = AdaptionPrompt

"""What models are made of, composed of primitives as transformers composes it: no rules here.

Source: transformers 5.24.0, models/llama/modeling_llama.py unless a block says otherwise.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from memcalc.errors import NotModelled, shown
from memcalc.tape.ops.elementwise import (
    add,
    cast,
    divided,
    gelu,
    mean,
    mul,
    power,
    relu,
    rsqrt,
    scale,
    shift,
    silu,
    square,
    sub,
    tanh,
)
from memcalc.tape.ops.loss import log_softmax, nll_loss
from memcalc.tape.ops.views import split, view
from memcalc.tape.tape import Array, Tensor, like, new

if TYPE_CHECKING:
    from memcalc.tape.builder import Builder


def rms_norm(hidden: Tensor, weight: Tensor) -> Tensor:
    """LlamaRMSNorm: computed in fp32."""
    x = cast(hidden, "fp32")
    variance = mean(square(x))
    x = mul(x, rsqrt(shift(variance)))
    return mul(weight, cast(x, hidden.dtype))


def centred_rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    """GemmaRMSNorm: the weight is one more than its parameter, and applied in fp32.

    Source: transformers 5.24.0, models/gemma/modeling_gemma.py.
    """
    output = _normed(cast(x, "fp32"))
    output = mul(output, shift(cast(weight, "fp32")))
    return cast(output, x.dtype)


def wide_rms_norm(hidden: Tensor, weight: Tensor) -> Tensor:
    """Olmo2RMSNorm: the weight is applied in fp32. Source: transformers 5.24.0, models/olmo2/modeling_olmo2.py."""
    x = cast(hidden, "fp32")
    variance = mean(square(x))
    x = mul(x, rsqrt(shift(variance)))
    return cast(mul(weight, x), hidden.dtype)


def mean_free_norm(hidden: Tensor, weight: Tensor) -> Tensor:
    """CohereLayerNorm: layer norm written out. Source: transformers 5.24.0, models/cohere/modeling_cohere.py."""
    x = cast(hidden, "fp32")
    average = mean(x)
    variance = mean(square(sub(x, average)))
    x = mul(sub(x, average), rsqrt(shift(variance)))
    x = mul(cast(weight, "fp32"), x)
    return cast(x, hidden.dtype)


def _normed(x: Tensor) -> Tensor:
    return mul(x, rsqrt(shift(mean(square(x)))))


def with_noise(x: Tensor) -> Tensor:
    """NEFTune's hook behind the embedding: uniform noise is drawn in a block of its own and added into a third.

    The embeddings are kept where they were made a leaf, which its accumulator keeps. Its scale is computed on the host.
    Source: transformers 5.24.0, integrations/neftune.py, neftune_post_forward_hook.
    """
    return add(x, Tensor(like(x.data, "zeros_like")))


def gated_mlp(m: "Builder", x: Tensor, intermediate: int, bias: bool, act: str = "silu") -> Tensor:
    """LlamaMLP: down(act(gate(x)) * up(x))."""
    hidden = x.shape[-1]
    return m.linear(
        mul(activation(m.linear(x, "gate_proj", intermediate, bias), act), m.linear(x, "up_proj", intermediate, bias)),
        "down_proj",
        hidden,
        bias,
    )


def fused_gated_mlp(m: "Builder", x: Tensor, intermediate: int, act: str) -> Tensor:
    """Phi3MLP: gate and up are the halves of one product. Source: transformers 5.24.0, models/phi3/modeling_phi3.py."""
    hidden = x.shape[-1]
    up = m.linear(x, "gate_up_proj", 2 * intermediate)
    gate, up = split(up, (intermediate, intermediate), 2)
    up = mul(up, activation(gate, act))
    return m.linear(up, "down_proj", hidden)


def activation(x: Tensor, name: str) -> Tensor:
    """ACT2FN[name]. Source: transformers 5.24.0, activations.py. Raises NotModelled for a rare one."""
    function = _ACTIVATIONS.get(name)
    if function is None:
        raise NotModelled(f"estimate does not write the activation {shown(name)}: memcalc trace runs the real one")
    return function(x)


def gelu_new(x: Tensor) -> Tensor:
    """NewGELUActivation: 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))."""
    return mul(scale(x), shift(tanh(scale(add(x, scale(power(x)))))))


def gelu_fast(x: Tensor) -> Tensor:
    """FastGELUActivation: 0.5 x (1 + tanh(x * 0.7978845608 (1 + 0.044715 x x)))."""
    return mul(scale(x), shift(tanh(mul(scale(x), shift(mul(scale(x), x))))))


_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "silu": silu,
    "swish": silu,
    "gelu": gelu,
    "gelu_pytorch_tanh": gelu,
    "gelu_new": gelu_new,
    "gelu_fast": gelu_fast,
    "relu": relu,
}


def causal_lm_loss(logits: Tensor, labels: Array, averaged_over: Array | None) -> Tensor:
    """ForCausalLMLoss: fp32 logits, labels shifted, cross-entropy; divided by a count on the device where given.

    Source: transformers 5.24.0, loss/loss_utils.py.
    """
    logits_fp32 = cast(logits, "fp32")
    b, s = labels.shape
    padded = new((b, s + 1), "int64", "pad")
    shifted = new((b, s), "int64", "contiguous") if b > 1 else padded  # the padded labels stay a local
    flat = view(logits_fp32, (b * s, logits.shape[-1]))
    loss = nll_loss(log_softmax(flat), shifted)
    return divided(loss, averaged_over) if averaged_over is not None else loss

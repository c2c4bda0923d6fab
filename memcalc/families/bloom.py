"""BLOOM: ALiBi, fused query-key-value, biases everywhere.

Source: transformers 5.24.0, models/bloom/modeling_bloom.py.
"""

from memcalc.families.config import Config, read_bloom
from memcalc.tape.builder import Builder
from memcalc.tape.layer import Given
from memcalc.tape.ops.elementwise import add, cast, dropout
from memcalc.tape.ops.linear import baddbmm, bmm
from memcalc.tape.ops.loss import softmax_fp32
from memcalc.tape.ops.views import reshape, select, transpose, view
from memcalc.tape.prelude import Batch, Cache, Output, causal_mask
from memcalc.tape.tape import Array, Tensor, like, new, record, save, wants

MODULES = (
    "transformer.word_embeddings",
    "transformer.word_embeddings_layernorm",
    "transformer.h",
    "transformer.ln_f",
    "lm_head",
)
LAYER_MODULES = ("input_layernorm", "self_attention", "post_attention_layernorm", "mlp")
LAYERS = "transformer.h"
HEAD = "lm_head"
LEARNED_POSITIONS = False
ATTENTIONS = ("eager",)

read = read_bloom


def forward(m: Builder, batch: Batch, c: Config) -> Output:
    """BloomForCausalLM: (b, s) -> logits (b, s, vocab)."""
    hidden, cache = m.call("transformer", model, batch, c)
    return m.causal_lm(hidden, HEAD, c.vocab, "transformer.word_embeddings.weight" if c.tied else "", batch, cache)


def model(m: Builder, batch: Batch, c: Config) -> tuple[Tensor, Cache | None]:
    """BloomModel: (b, s) -> (b, s, hidden)."""
    embeds = m.embedding(batch, "word_embeddings", c.vocab, c.hidden)
    cache = m.new_cache(batch)
    hidden = m.layer_norm(embeds, "word_embeddings_layernorm")
    alibi, _kept_slopes = alibi_of(batch, 0 if cache is None else cache.past, c.heads, hidden.dtype)
    mask = causal_mask("eager", embeds.dtype, batch, None, cache=cache)
    for run_block in m.layers("h", block):
        outputs = run_block(
            hidden, Given(mask, None, cache, alibi=alibi), c
        )  # a block's scores live until the next has returned
        hidden = outputs[0]
    hidden = m.layer_norm(hidden, "ln_f")
    return hidden, cache


def alibi_of(batch: Batch, past: int, heads: int, dtype: str) -> tuple[Array, Array | None]:
    """The bias of each head by position (b * heads, 1, past + s): from the length alone, or from the mask.

    Without a mask the slopes are a local of BloomModel.forward: they come second.
    """
    b, s = batch.shape
    s += past
    slopes = slopes_of(heads)[-1]
    if batch.mask is None:
        keys = new((s,), "int64", "arange")
        alibi = new((heads, 1, s), "fp32", "mul")
        del keys
        repeated = new((b * heads, 1, s), "fp32", "repeat")
        return repeated if dtype == "fp32" else like(repeated, "to", dtype), slopes
    counted = new((b, s), batch.mask.dtype, "cumsum")
    before = new((b, s), batch.mask.dtype, "sub")
    del counted
    places = new((b, s), batch.mask.dtype, "mul")
    del before
    alibi = new((b, heads, s), "fp32", "mul")
    flat = alibi.view((b * heads, 1, s), (s, s, 1))
    return flat if dtype == "fp32" else like(flat, "to", dtype), None


def slopes_of(heads: int) -> list[Array]:
    """Powers of one base, and of a second where the heads are no power of two; last the slopes, before them the way.

    _get_alibi_slopes, and a part of falcon's build_alibi_tensor.
    """
    whole = 1 << (heads.bit_length() - 1)
    way = [new((), "fp32", "full"), new((whole,), "int32", "arange")]
    slopes = new((whole,), "fp32", "pow")
    if whole != heads:
        way += [new((), "fp32", "full"), new((heads - whole,), "int32", "arange")]
        extra = new((heads - whole,), "fp32", "pow")
        slopes = new((heads,), "fp32", "cat")
        del extra
    return [*way, slopes]


def block(m: Builder, x: Tensor, given: Given, c: Config) -> tuple[Tensor, Tensor]:
    """BloomBlock: (b, s, hidden) -> (b, s, hidden), and the attention's probabilities."""
    normed = m.layer_norm(x, "input_layernorm")
    residual = normed if c.fields.flag("apply_residual_connection_post_layernorm", default=False) else x
    attended, probabilities = m.call("self_attention", attention, normed, residual, given, c)
    normed = m.layer_norm(attended, "post_attention_layernorm")
    residual = normed if c.fields.flag("apply_residual_connection_post_layernorm", default=False) else attended
    output = m.call("mlp", mlp, normed, residual, c)
    return output, probabilities


def attention(m: Builder, x: Tensor, residual: Tensor, given: Given, c: Config) -> tuple[Tensor, Tensor]:
    """BloomAttention: (b, s, hidden) -> (b, s, hidden), and the probabilities (b, heads, s, keys)."""
    b, s, _ = x.shape
    fused = m.linear(x, "query_key_value", 3 * c.hidden, bias=True)
    split = view(fused, (b, s, c.heads, 3, c.head_dim))
    q, k, v = (transpose(select(split, 3), 1, 2) for _ in range(3))
    if given.cache is not None:
        k, v = given.cache.update(k, v)
    keys = k.shape[2]
    q = reshape(q, (b * c.heads, s, c.head_dim))
    k = transpose(reshape(k, (b * c.heads, keys, c.head_dim)), 1, 2)
    v = reshape(v, (b * c.heads, keys, c.head_dim))
    assert given.alibi is not None
    scores = baddbmm(Tensor(given.alibi), q, k)
    weights = view(scores, (b, c.heads, s, keys))
    assert given.mask is not None, "eager attention always gets one"
    weights = add(weights, Tensor(given.mask))
    probabilities = cast(softmax_fp32(weights), q.dtype)
    probabilities = dropout(probabilities, c.attention_dropout if m.training else 0.0)
    folded = view(probabilities, (b * c.heads, s, keys))
    context = bmm(folded, v)
    context = reshape(transpose(view(context, (b, c.heads, s, c.head_dim)), 1, 2), (b, s, c.hidden))
    output = m.linear(context, "dense", c.hidden, bias=True)
    output = dropout_add(m, output, residual, c)
    return output, probabilities


def mlp(m: Builder, x: Tensor, residual: Tensor, c: Config) -> Tensor:
    """BloomMLP: (b, s, hidden) -> (b, s, hidden)."""
    hidden = gelu(m.linear(x, "dense_h_to_4h", 4 * c.hidden, bias=True))
    output = m.linear(hidden, "dense_4h_to_h", c.hidden, bias=True)
    return dropout_add(m, output, residual, c)


def dropout_add(m: Builder, x: Tensor, residual: Tensor, c: Config) -> Tensor:
    out = dropout(x, c.hidden_dropout if m.training else 0.0)
    out = add(residual, out)
    return out


def gelu(x: Tensor) -> Tensor:
    """GeLUFunction: tanh's GELU written out, and its derivative written out again.

    Saves: x. Allocates and frees on the way: each factor of the formula, as Python evaluates it.
    """
    out = _gelu_forward(x.data)
    kept = save(x.data) if wants(x) else None  # a Python function's arrays are packed once it has returned

    def backward(g: Array) -> list[Array]:
        assert kept is not None
        return [_gelu_back(kept.get())]

    return record(out, (x,), backward, python=True)


def _gelu_forward(x: Array) -> Array:
    """x * 0.5 * (1 + tanh(0.79788456 x (1 + 0.044715 x x)))."""
    half = like(x, "mul")
    raised = like(_inner_tanh(x), "add")
    return _product(half, raised)


def _inner_tanh(x: Array) -> Array:
    return like(_product(like(x, "mul"), like(_product(like(x, "mul"), x), "add")), "tanh")


def _gelu_back(x: Array) -> Array:
    """0.5 x ((1 - t t) (0.79788456 + 0.1070322243 x x)) + 0.5 (1 + t), times the gradient; t is the tanh."""
    tanh = _inner_tanh(x)
    left = _product(
        like(x, "mul"), _product(like(_product(tanh, tanh), "rsub"), like(_product(like(x, "mul"), x), "add"))
    )
    right = like(like(tanh, "add"), "mul")
    total = like(left, "add")
    del left, right
    return like(total, "mul")


def _product(x: Array, y: Array) -> Array:
    return like(x, "mul")

"""Flash attention's outputs and the blocks inside it: aten's kernel, and the flash-attn library's.

Both come from the same code. Sources: PyTorch, aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp
(mha_fwd, mha_bwd, mha_varlen_bwd, set_params_splitkv) and ../attention_backward.cu (_flash_attention_backward);
flash-attn 2, csrc/flash_attn/flash_api.cpp, the same functions. Unverified on a GPU.
"""

from memcalc.kernels.gpu import ITEMSIZE, Gpu, Scratch, round_up


def flash_padded_head_dim(head_dim: int) -> int:
    """Head dimension of the copies of q, k and v that the kernel gets: the next multiple of 8.

    Source: ATen/native/transformers/attention.cpp, scaled_dot_product_attention, pad_last_dim<8>; flash-attn pads
    in flash_attn_interface.py.
    """
    return round_up(head_dim, 8)


def flash_lse_shape(batch: int, heads: int, q_len: int) -> tuple[int, int, int]:
    """Shape of logsumexp, fp32 (mha_fwd: not padded)."""
    return batch, heads, q_len


def flash_seed_bytes(*, dropout: bool = False) -> tuple[int, int]:  # noqa: ARG001 - it could matter, and does not
    """Bytes of aten's two last outputs: rng_state (2 × uint64) and an unused one (uint64), with dropout or without.

    flash-attn has the first only.
    """
    return 16, 8


def flash_forward_scratch(
    gpu: Gpu, *, batch: int, q_len: int, k_len: int, heads: int, head_dim: int, dropout: float = 0.0
) -> Scratch:
    """Blocks inside the forward: partial outputs, where the keys are split to keep a large card busy (short inputs).

    Source: set_params_splitkv; there are no splits with dropout.
    """
    if dropout > 0:
        return Scratch()
    key_blocks = -(-k_len // (256 if head_dim <= 64 else 128 if head_dim <= 128 else 64))
    splits = _key_splits(batch * heads * -(-q_len // 64), 2 * gpu.sm_count, key_blocks)
    if splits == 1:
        return Scratch()
    rows = splits * batch * heads * q_len
    return Scratch(after=(rows * 4, rows * _rounded(head_dim) * 4))


def flash_backward_scratch(
    *,
    batch: int,
    q_len: int,
    k_len: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    dtype: str,
    grad_copied: bool = False,
    out_copied: bool = False,
) -> Scratch:
    """Blocks inside the backward: softmax_d and dq_accum in fp32; with fewer K/V heads, dk and dv of all heads.

    `head_dim` is the padded one. aten copies the output's gradient and the output first where they do not lie in
    memory as (b, s, heads, head_dim): `grad_copied`, `out_copied`.
    """
    size = ITEMSIZE[dtype]
    copy = batch * q_len * heads * head_dim * size
    rows = batch * heads * round_up(q_len, 128)
    expanded = batch * k_len * heads * head_dim * size
    return Scratch(
        before=(copy,) * grad_copied + (copy,) * out_copied,
        after=(rows * 4, rows * _rounded(head_dim) * 4) + (expanded,) * (2 * (kv_heads != heads)),
    )


def flash_varlen_backward_scratch(
    *, batch: int, total_q: int, total_k: int, heads: int, kv_heads: int, head_dim: int, dtype: str
) -> Scratch:
    """As flash_backward_scratch, of rows packed end to end: `total_q` and `total_k` tokens in `batch` sequences."""
    rows = heads * (total_q + 128 * batch)
    expanded = total_k * heads * head_dim * ITEMSIZE[dtype]
    return Scratch(after=(rows * 4, rows * _rounded(head_dim) * 4) + (expanded,) * (2 * (kv_heads != heads)))


def _rounded(head_dim: int) -> int:
    return round_up(head_dim, 32 if head_dim <= 128 else 64)


def _key_splits(blocks: int, sm_count: int, key_blocks: int) -> int:
    """In how many parts the keys are worked on: the fewest with 85 % of the best occupancy (num_splits_heuristic)."""
    if blocks >= 0.8 * sm_count:
        return 1
    efficiency = {}
    for splits in range(1, min(128, sm_count, key_blocks) + 1):
        if splits == 1 or -(-key_blocks // splits) != -(-key_blocks // (splits - 1)):
            waves = blocks * splits / sm_count
            efficiency[splits] = waves / -(-blocks * splits // sm_count)
    best = max(efficiency.values())
    return next(splits for splits, value in efficiency.items() if value >= 0.85 * best)

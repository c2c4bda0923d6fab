"""The memory-efficient attention kernel's outputs, and the blocks inside it and inside cuDNN's.

Sources: PyTorch 2.13, ATen/native/transformers/cuda/mem_eff_attention/{kernel_forward,kernel_backward}.h and
kernels/{cutlassF,cutlassB}.h (they ship with the wheel); aten/src/ATen/native/transformers/cuda/{attention,
attention_backward}.cu, _efficient_attention_forward and _backward. Unverified on a GPU.
"""

from typing import NamedTuple

from memcalc.kernels.gpu import ITEMSIZE, Gpu, Scratch, round_up


def efficient_mask_width(k_len: int) -> int:
    """Last dimension to which a misaligned mask is padded, before it is sliced back and expanded over heads.

    A mask is misaligned where any of its strides but the last is no multiple of 8 elements.
    Source: ATen/native/transformers/attention.cpp, preprocess_mask, aligned_tensor, pad_bias.
    """
    return k_len + 8 - k_len % 8


def efficient_lse_shape(batch: int, heads: int, q_len: int, *, training: bool) -> tuple[int, int, int]:
    """Shape of logsumexp, fp32: rows in multiples of 32 (kAlignLSE), none where no gradient is wanted."""
    return batch, heads, round_up(q_len, 32) if training else 0


def efficient_seed_bytes() -> tuple[int, int]:
    """Bytes of the two last outputs, philox seed and offset (int64).

    Sources of 2024 and 2025 put them on the CPU outside of CUDA graphs; max_memory_allocated of an RTX A6000 under
    PyTorch 2.14 is met to the byte only with both on the device.
    """
    return 8, 8


def efficient_forward_scratch(*, batch: int, q_len: int, heads: int, head_dim: int, dtype: str) -> Scratch:
    """Blocks inside the forward: an fp32 accumulator where a row of values does not fit registers.

    Source: kernel_forward.h, kNeedsOutputAccumulatorBuffer: half types and more than 128 values.
    """
    if dtype == "fp32" or head_dim <= 128:
        return Scratch()
    return Scratch(after=(batch * q_len * heads * head_dim * 4,))


class _Backward(NamedTuple):
    """A row of cutlassB.h: block sizes, and whether dk and dv stay in registers."""

    block_i: int
    block_j: int
    in_registers: bool


def efficient_backward_scratch(
    gpu: Gpu,
    *,
    batch: int,
    q_len: int,
    k_len: int,
    heads: int,
    head_dim: int,
    dtype: str,
    masked: bool = False,  # noqa: ARG001 - callers need not know that a mask costs nothing here
    grad_copied: bool = False,
) -> Scratch:
    """Blocks inside the backward: delta, and the workspace that collects dq (and dk, dv) in fp32.

    aten copies the output's gradient first where it does not lie in memory as
    (b, s, heads, head_dim): `grad_copied`. fp32 computes delta from a product that is gone when the workspace
    comes: the fuller of the two moments stands here.
    """
    kernel = _backward_kernel(gpu, head_dim, dtype)
    elements = batch * heads * q_len
    delta = elements * 4
    instances = batch * heads
    workspace = (
        4
        * instances
        * _workspace_floats(
            gpu, kernel, half=dtype != "fp32", instances=instances, q_len=q_len, k_len=k_len, head_dim=head_dim
        )
    )
    after: tuple[int, ...] = (delta, workspace) if workspace else (delta,)
    if not _computes_delta(gpu, kernel, dtype):
        casts = (elements * head_dim * 4,) * (2 if dtype != "fp32" else 0)
        product = (*casts, elements * head_dim * 4, elements * 4, delta)
        after = max(product, after, key=sum)
    return Scratch(before=(elements * head_dim * ITEMSIZE[dtype],) * grad_copied, after=after)


def cudnn_lse_shape(batch: int, heads: int, q_len: int) -> tuple[int, int, int, int]:
    """Shape of cuDNN's softmax statistics, fp32 (torch/_meta_registrations.py, cudnn attention)."""
    return batch, heads, q_len, 1


def cudnn_seed_bytes() -> tuple[int, int]:
    """Bytes of cuDNN's seed and offset (int64)."""
    return 8, 8


def cudnn_backward_scratch(*, batch: int, q_len: int, heads: int, head_dim: int) -> Scratch:
    """The block inside cuDNN's backward, as far as its frontend asks for it: dq and the softmax sum in fp32.

    What the execution plan itself wants comes on top; only a GPU can tell. The forward's is not known either.
    Source: cudnn-frontend, node/scaled_dot_product_flash_attention.h, CompositeSDPABackwardNode,
    get_fe_workspace_size_node, for cuDNN 9; PyTorch, aten/src/ATen/native/cudnn/MHA.cpp, run_cudnn_SDP_bprop.
    """
    return Scratch(after=(batch * heads * q_len * (head_dim + 1) * 4,))


def _backward_kernel(gpu: Gpu, head_dim: int, dtype: str) -> _Backward:
    """The first kernel of cutlassB.h that is large enough and whose shared memory the card has.

    Source: cutlassB.h; that blocks of 128 do not fit the cards with about 100 KiB of shared memory a block is what
    the generator of that file says (mem_eff_attention/kernels/generate_kernels.py: sm75, sm86).
    """
    roomy = gpu.capability == (8, 0) or gpu.capability[0] in {9, 10}
    if dtype == "fp32":
        large = roomy and head_dim > 64
        return _Backward(128 if large else 64, 64, in_registers=False)
    if head_dim <= 64:
        return _Backward(64, 64, in_registers=True)
    if gpu.capability in {(8, 6), (8, 9)} and head_dim <= 96:
        return _Backward(128, 64, in_registers=True)
    if roomy and head_dim <= 128:
        return _Backward(128, 128, in_registers=True)
    if gpu.capability[0] == 7 and gpu.capability[1] < 5:
        return _Backward(128, 64, in_registers=head_dim <= 128)
    return _Backward(128 if roomy else 64, 64, in_registers=False)


def _computes_delta(gpu: Gpu, kernel: _Backward, dtype: str) -> bool:
    """kernel_backward.h, kKernelComputesDelta."""
    volta = (7, 0) <= gpu.capability < (7, 5)
    return dtype != "fp32" and (kernel.in_registers or not volta)


def _workspace_floats(
    gpu: Gpu, kernel: _Backward, *, half: bool, instances: int, q_len: int, k_len: int, head_dim: int
) -> int:
    """Floats of workspace per batch and head, of which there are `instances`.

    Source: kernel_backward.h, workspace_strideBH; attention_backward.cu, the heuristic for splits of the keys.
    """
    i, j, in_registers = kernel
    splits_keys = gpu.capability >= (7, 0)
    accumulates_kv = half and not in_registers
    splits = -(-k_len // j)
    if instances >= 256 and k_len <= 2 * j:
        splits = 1
    if accumulates_kv:
        splits = min(splits, 200 // instances)
    splits = max(splits, 1) if splits_keys else 1
    floats = 2 * splits * j * round_up(head_dim, i) if accumulates_kv else 0
    if splits_keys or half:
        floats += -(-q_len // i) * -(-head_dim // j) * (4 + i * j)  # a lock, a counter and padding before each tile
    return round_up(floats, 4)

"""Blocks inside kernels that sum over many rows or tensors in parts. Unverified on a GPU.

Left out, each far below a MiB or of small models only: partial sums of a reduction split over blocks (Reduce.cuh),
cub's own buffers for sorting and scanning, the partial sums of a layer norm over more than 65,536 narrow rows
(layer_norm_kernel.cu), the fused embedding kernel for vocabularies of a few hundred rows.
"""

from collections.abc import Collection

from memcalc.kernels.gpu import ITEMSIZE, Scratch

_CHUNK = 65536  # elements that a block of a foreach kernel works on
_ROWS_PER_THREAD = 10
_FEW_TOKENS = 3072


def foreach_norm_scratch(sizes: Collection[int]) -> Scratch:
    """The block inside _foreach_norm of gradients with `sizes` elements: an fp32 partial sum per tensor and chunk.

    Every tensor has as many as the largest one.
    Source: PyTorch, aten/src/ATen/native/cuda/ForeachReduceOp.cu, foreach_tensor_norm_cuda; kChunkSize in
    MultiTensorApply.cuh.
    """
    chunks = max((-(-size // _CHUNK) for size in sizes), default=0)
    return Scratch(before=(len(sizes) * chunks * 4,)) if chunks else Scratch()


def embedding_backward_scratch(*, tokens: int, rows: int, width: int, dtype: str, grad_copied: bool = False) -> Scratch:
    """Blocks inside embedding_dense_backward of `tokens` indices into a weight (rows, width).

    Up to 3,072 tokens none. Above, the indices are sorted and runs of equal ones summed, ten tokens at a time, in
    fp32: the sums are about as large as the gradient of the embedding's output in fp32. `grad_copied`: that gradient
    is not contiguous. The index of each token before sorting dies before the output is born, and is left out.
    Source: PyTorch, aten/src/ATen/native/cuda/Embedding.cu, embedding_dense_backward_cuda;
    EmbeddingBackwardKernel.cu, embedding_backward_cuda_kernel.
    """
    copy = (tokens * width * ITEMSIZE[dtype],) * grad_copied
    if tokens <= _FEW_TOKENS:
        return Scratch(before=copy)
    segments = min(tokens, rows)
    partial = tokens // _ROWS_PER_THREAD + segments
    return Scratch(
        before=(*copy, tokens * 8, tokens * 8),
        after=(tokens * 8, 8, segments * 8, segments * 8, 8, partial * 8, partial * width * 4),
    )

"""What CUDA does inside an op, for both tiers: the attention kernel it would choose, the blocks that a kernel
allocates for itself, cuBLAS workspaces. Plain integers in and out, from a plain `Gpu`.
"""

from memcalc.kernels.choice import check_dtypes, sdpa_kernel, takes_gqa
from memcalc.kernels.choosing import sort_scratch, topk_scratch
from memcalc.kernels.efficient import (
    cudnn_backward_scratch,
    cudnn_lse_shape,
    cudnn_seed_bytes,
    efficient_backward_scratch,
    efficient_forward_scratch,
    efficient_lse_shape,
    efficient_mask_width,
    efficient_seed_bytes,
)
from memcalc.kernels.flash import (
    flash_backward_scratch,
    flash_forward_scratch,
    flash_lse_shape,
    flash_padded_head_dim,
    flash_seed_bytes,
    flash_varlen_backward_scratch,
)
from memcalc.kernels.gpu import ITEMSIZE, Gpu, Scratch
from memcalc.kernels.products import bmm_scratch
from memcalc.kernels.quantized import (
    INT8_THRESHOLD,
    NO_OUTLIERS,
    gemm_4bit_scratch,
    int8_dequant_scratch,
    int8_quant_scratch,
)
from memcalc.kernels.recurrent import CUDNN_SPACES_LEFT_OUT, cudnn_rnn_weights
from memcalc.kernels.reductions import embedding_backward_scratch, foreach_norm_scratch
from memcalc.kernels.sparse import sparse_add_scratch, sparse_mask_scratch

__all__ = [
    "CUDNN_SPACES_LEFT_OUT",
    "INT8_THRESHOLD",
    "NO_OUTLIERS",
    "Gpu",
    "Scratch",
    "bmm_scratch",
    "check_dtypes",
    "cublas_workspace",
    "cudnn_backward_scratch",
    "cudnn_lse_shape",
    "cudnn_rnn_weights",
    "cudnn_seed_bytes",
    "efficient_backward_scratch",
    "efficient_forward_scratch",
    "efficient_lse_shape",
    "efficient_mask_width",
    "efficient_seed_bytes",
    "embedding_backward_scratch",
    "flash_backward_scratch",
    "flash_forward_scratch",
    "flash_library_backward_scratch",
    "flash_lse_shape",
    "flash_padded_head_dim",
    "flash_seed_bytes",
    "flash_varlen_backward_scratch",
    "foreach_norm_scratch",
    "gemm_4bit_scratch",
    "int8_dequant_scratch",
    "int8_quant_scratch",
    "roll_scratch",
    "safe_softmax_scratch",
    "sdpa_kernel",
    "softmax_backward_scratch",
    "sort_scratch",
    "sparse_add_scratch",
    "sparse_mask_scratch",
    "takes_gqa",
    "topk_scratch",
]

flash_library_backward_scratch = flash_backward_scratch  # the flash-attn library's mha_bwd is the same code


def cublas_workspace(gpu: Gpu) -> int:
    """Bytes of one cuBLAS workspace. One per thread that multiplies: the caller's and autograd's; never freed.

    32 MiB on compute capability 9 to 12, else 2 × 4 MiB + 8 × 16 KiB. cublasLt uses the same block
    (TORCH_CUBLASLT_UNIFIED_WORKSPACE is on by default). CUBLAS_WORKSPACE_CONFIG unset.
    Source: PyTorch, aten/src/ATen/cuda/CublasHandlePool.cpp, parseChosenWorkspaceSize, read at two commits of 2026, of
    which the earlier has no capability 11. The smaller size is met on a T4, an RTX A6000 and an A100.
    """
    return 32 * 2**20 if gpu.capability[0] >= 9 else 2 * 4096 * 2**10 + 8 * 16 * 2**10


def softmax_backward_scratch(nbytes: int) -> Scratch:
    """The block inside softmax's backward: grad * output, as large as the gradient of `nbytes`; log_softmax has none.

    Source: PyTorch, aten/src/ATen/native/cuda/SoftMax.cu, softmax_backward_cuda_out: a structured kernel, so its output
    is there already. Allocated bytes of eager attention on a T4 are met to the byte with it.
    """
    return Scratch(after=(nbytes,))


def roll_scratch(nbytes: int, *, copied: bool) -> Scratch:
    """The block inside roll of `nbytes` along one dim: a contiguous copy of what is not (`copied`).

    Source: PyTorch, aten/src/ATen/native/cuda/TensorTransformations.cu, roll_cuda. Unverified on a GPU.
    """
    return Scratch(before=(nbytes,)) if copied else Scratch()


def safe_softmax_scratch(rows: int, width: int, dtype: str) -> Scratch:
    """Blocks inside _safe_softmax: a plain softmax, -inf, where the scores are that (bool), in whole rows (bool), 0.

    Source: PyTorch, aten/src/ATen/native/transformers/attention.cpp, _safe_softmax.
    """
    size = ITEMSIZE[dtype]
    return Scratch(before=(rows * width * size, size, rows * width, rows, size))

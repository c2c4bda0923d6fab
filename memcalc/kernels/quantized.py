"""The blocks inside bitsandbytes' matrix products on CUDA.

Source: bitsandbytes 0.50.2, backends/cuda/ops.py. Unverified on a GPU.
"""

from memcalc.kernels.gpu import ITEMSIZE, Gpu, Scratch

INT8_THRESHOLD = 6.0  # of LLM.int8()'s outliers: transformers 5.24.0, utils/quantization_config.py
NO_OUTLIERS = "int8: no column of an activation was taken for an outlier; each that is one costs a little more"
BLOCKSIZE = 64  # weights under one absmax: bitsandbytes/nn/modules.py, Params4bit


def gemm_4bit_scratch(gpu: Gpu, rows: int, n: int, k: int, dtype: str, *, double_quant: bool) -> Scratch:
    """Blocks inside gemm_4bit's forward, x (rows, k) times a packed weight (n, k), all before the output.

    The dequantized weight in x's dtype; before it, with double quantization, absmax in fp32 without its offset and
    with it. Nothing where the fused kernel runs.
    Source: _dequant_linear_fallback.
    """
    if rows <= 1536 and k % BLOCKSIZE == 0 and _fused_is_faster(gpu, dtype, rows, n, k):
        return Scratch()
    absmax = -(-n * k // BLOCKSIZE) * 4
    return Scratch(before=(absmax, absmax) * double_quant + (n * k * ITEMSIZE[dtype],))


def int8_quant_scratch(rows: int, columns: int, *, threshold: float) -> Scratch:
    """Blocks inside int8_vectorwise_quant of fp16 (rows, columns): |x| and the mask of its outliers.

    The smaller ones, a flag a column and the outliers' numbers, depend on data.
    """
    return Scratch(after=(rows * columns * 2, rows * columns)) if threshold > 0 else Scratch()


def int8_dequant_scratch(rows: int, columns: int, dtype: str) -> Scratch:
    """The block inside int8_mm_dequant: its result in fp16, where another dtype is asked for."""
    return Scratch(before=(rows * columns * 2,)) if dtype != "fp16" else Scratch()


def _fused_is_faster(gpu: Gpu, dtype: str, m: int, n: int, k: int) -> bool:
    """Whether `m` rows take the fused kernel instead of a dequantized weight (_gemm_4bit_use_custom_cuda).

    Their thresholds were timed on cards, one ladder an architecture; tiles are 64 columns of the output.
    """
    if m <= 4:
        return True
    no_tensor_cores = gpu.capability < (7, 5) or (gpu.capability == (7, 5) and dtype != "fp16")
    if dtype == "fp32" or no_tensor_cores:
        return m < 8
    if gpu.capability == (8, 7) or gpu.capability[0] == 11:
        return False
    tiles, sms = -(-n // 64), gpu.sm_count
    if gpu.capability[0] == 10:
        return m <= (32 if tiles >= 3 * sms else 8 if tiles >= sms and k < n else 0)
    if n * k < 2**22:
        return m <= _rows_of_small_weight(gpu, tiles, m, n, k)
    if m >= 8:
        return m <= _rows_of_large_weight(gpu, tiles, n, k)
    return not _loses_at_few_rows(gpu, tiles, m, n, k)


def _rows_of_small_weight(gpu: Gpu, tiles: int, m: int, n: int, k: int) -> int:
    """Most rows of the fused kernel where the weight has fewer than 2**22 elements."""
    sms, capability = gpu.sm_count, gpu.capability
    wide_memory = capability == (8, 0) or capability[0] == 9  # HBM: a dequantized weight costs less
    if 2 * k < n:
        if wide_memory:
            few, many = (1536, 512) if capability == (8, 0) else (512, 320)
            return few if 3 * tiles < sms else many
        if capability == (7, 5):
            return 320 if tiles >= 3 * sms or k < 704 else 64 if k >= 1024 else 96
        return 192 if tiles < sms and tiles * k > 320 * sms else 320
    if capability == (8, 0) and 4 * tiles <= sms:
        return 384 if k < n else 32 if 8 * tiles <= sms else 128
    if capability == (7, 5) and tiles < sms and m > 8:
        return 64
    if 4 * tiles <= sms:
        return 32 if k < n or wide_memory else 23
    return 16 if 2 * tiles <= sms else 0


def _loses_at_few_rows(gpu: Gpu, tiles: int, m: int, n: int, k: int) -> bool:
    """Whether 5 to 7 rows of a large weight are faster dequantized: some shapes on cards with HBM."""
    sms, hopper = gpu.sm_count, gpu.capability[0] == 9
    if not (hopper or gpu.capability == (8, 0)) or m == 5 or tiles < (36 if hopper else 48):
        return False
    if k == n:
        return 3 * sms <= 5 * tiles < 3.75 * sms if hopper else 5 * tiles < 3 * sms
    return k > n and 4 * tiles < 3 * sms


def _rows_of_large_weight(gpu: Gpu, tiles: int, n: int, k: int) -> int:
    """Most rows of the fused kernel from 8 rows on, by architecture."""
    ladders = {(7, 5): _rows_sm75, (8, 0): _rows_sm80, (8, 6): _rows_sm86, (12, 0): _rows_sm120}
    if gpu.capability == (12, 1) and tiles >= gpu.sm_count:
        return 256
    ladder = _rows_sm90 if gpu.capability[0] == 9 else ladders.get(gpu.capability, _rows_sm89)
    return ladder(gpu.sm_count, tiles, n, k)


def _rows_sm75(sms: int, tiles: int, n: int, k: int) -> int:
    if tiles >= 3 * sms:
        return 128 if k < n else 64
    return 64 if tiles >= sms // 2 else 32


def _rows_sm80(sms: int, tiles: int, n: int, k: int) -> int:
    if tiles >= 3 * sms:
        return 128
    if tiles >= sms:
        return 64 if k < n else 32
    if k >= 3 * n and 4 * tiles > sms:
        return 0
    if k == n and tiles >= 48 and 5 * tiles < 3 * sms:
        return 0
    if 2 * tiles < sms:
        if k <= n:
            return 128
        if 3 * tiles >= sms:
            return 0
    return 128 if tiles >= sms // 2 and k < n else 16


def _rows_sm86(sms: int, tiles: int, n: int, k: int) -> int:  # noqa: ARG001 - one signature for all ladders
    return 128 if tiles >= sms else 64 if tiles >= sms // 2 else 16


def _rows_sm89(sms: int, tiles: int, n: int, k: int) -> int:
    """Also of sm121 below one wave, and of architectures unknown to bitsandbytes."""
    if tiles >= 3 * sms:
        return 256
    if tiles >= 2 * sms:
        return 128
    if 5 * tiles >= 4 * sms:
        if k > 2 * n or tiles >= 200:
            return 128
        if k >= n:
            return 128 if sms >= 60 else 32
        return 64
    if tiles >= sms // 2:
        return 64 if k > 2 * n else 8 if tiles >= 64 else 32
    if k > n and tiles <= 48:
        return 12 if k >= 3 * n else 10
    return 16 if k > 2 * n or tiles < 48 else 8


def _rows_sm90(sms: int, tiles: int, n: int, k: int) -> int:
    if tiles >= 3 * sms:
        return 64
    if tiles >= 2 * sms:
        return 48
    if tiles >= sms:
        return 32
    if tiles >= sms // 2:
        return 0 if k >= n and 4 * tiles < 3 * sms else 16
    return 0


def _rows_sm120(sms: int, tiles: int, n: int, k: int) -> int:
    if tiles >= 3 * sms:
        return 256
    if tiles >= 2 * sms:
        return 128
    if 5 * tiles >= 4 * sms:
        return 96 if k >= n else 64
    if tiles >= sms // 2:
        return 64 if 2 * k >= n and tiles >= 128 else 8
    return 16 if k > 2 * n and tiles > 64 else 8

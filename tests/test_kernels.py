"""Kernels: choices and blocks worked by hand from the sources, and held against what ships with the libraries."""

import ast
import itertools
import re
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memcalc import kernels
from memcalc.errors import InvalidWorkload
from memcalc.kernels import Gpu, Scratch, choice, efficient, quantized
from memcalc.units import MIB


def card(major: int, minor: int, sm_count: int = 100) -> Gpu:
    return Gpu(f"sm{major}{minor}", f"card {major}.{minor}", (major, minor), sm_count, 2**34, "given")


V100, T4, A100, A6000 = card(7, 0, 80), card(7, 5, 40), card(8, 0, 108), card(8, 6, 84)
L40S, H100, B200, RTX5090 = card(8, 9, 142), card(9, 0, 132), card(10, 0, 148), card(12, 0, 170)

CALL: dict[str, Any] = {
    "dtype": "bf16",
    "training": True,
    "q_len": 1024,
    "k_len": 1024,
    "head_dim": 128,
    "heads": 32,
    "kv_heads": 8,
    "masked": False,
    "causal": True,
}


def taken(gpu: Gpu, **changes: Any) -> str:
    return kernels.sdpa_kernel(gpu, **{**CALL, **changes})


@pytest.mark.parametrize(
    ("gpu", "changes", "kernel"),
    [
        (A100, {}, "flash"),
        (A6000, {"dtype": "fp16"}, "flash"),
        (H100, {}, "cudnn"),
        (B200, {}, "cudnn"),
        (RTX5090, {}, "flash"),
        # a mask: flash takes none, cuDNN does, the efficient kernel needs K and V repeated
        (A100, {"masked": True, "causal": False, "kv_heads": 32}, "efficient"),
        (A100, {"masked": True, "causal": False}, "math"),
        (H100, {"masked": True, "causal": False}, "cudnn"),
        # fp32, and half types that a card does not have
        (A100, {"dtype": "fp32", "kv_heads": 32}, "efficient"),
        (A100, {"dtype": "fp32"}, "math"),
        (T4, {"dtype": "fp16", "kv_heads": 32}, "efficient"),
        (T4, {"dtype": "bf16", "kv_heads": 32}, "math"),
        (T4, {"dtype": "fp16"}, "math"),
        # head dimensions
        (A100, {"head_dim": 80}, "flash"),
        (A100, {"head_dim": 257, "kv_heads": 32}, "math"),
        (A100, {"head_dim": 320, "kv_heads": 32}, "efficient"),
        (A6000, {"head_dim": 224, "kv_heads": 32}, "efficient"),
        (A6000, {"head_dim": 224, "training": False}, "flash"),
        (A6000, {"head_dim": 256}, "flash"),
        (A6000, {"head_dim": 256, "dropout": 0.1, "kv_heads": 32}, "efficient"),
        (A100, {"head_dim": 224}, "flash"),
        (H100, {"head_dim": 256}, "cudnn"),
        (B200, {"head_dim": 256}, "flash"),
        (H100, {"head_dim": 100}, "flash"),
        (T4, {"dtype": "fp32", "head_dim": 33, "kv_heads": 32}, "efficient"),
        # lengths
        (A100, {"q_len": 1, "kv_heads": 32}, "efficient"),
        (A100, {"q_len": 1, "causal": False}, "flash"),
        (H100, {"q_len": 1, "k_len": 1}, "flash"),
    ],
)
def test_the_first_kernel_that_can_run_is_taken(gpu: Gpu, changes: dict[str, Any], kernel: str) -> None:
    assert taken(gpu, **changes) == kernel


@pytest.mark.parametrize(
    ("gpu", "pinned", "changes", "why"),
    [
        (T4, "flash", {"dtype": "fp16"}, "compute capability 8.0"),
        (A100, "flash", {"masked": True}, "no mask"),
        (A100, "flash", {"dtype": "fp32"}, "not fp32"),
        (A100, "flash", {"head_dim": 320}, "256"),
        (A6000, "flash", {"head_dim": 200}, "no backward"),
        (A100, "flash", {"k_len": 2048}, "1024 and 2048"),
        (A100, "efficient", {}, "8 and 32"),
        (A100, "efficient", {"head_dim": 100, "kv_heads": 32}, "multiples of 8"),
        (T4, "efficient", {"kv_heads": 32}, "bf16"),
        (A100, "cudnn", {"head_dim": 256}, "128"),
        (A100, "cudnn", {"kv_heads": 5}, "divides"),
    ],
)
def test_a_pinned_kernel_that_cannot_run_is_refused_with_its_reason(
    gpu: Gpu, pinned: str, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(InvalidWorkload, match=why) as refused:
        taken(gpu, pinned=pinned, **changes)
    assert pinned in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("pinned", ["flash", "cudnn", "math"])
def test_a_pinned_kernel_that_can_run_is_taken(pinned: str) -> None:
    assert taken(A100, pinned=pinned) == pinned


@given(
    gpu=st.sampled_from([V100, T4, A100, A6000, L40S, H100, B200, RTX5090]),
    changes=st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["fp32", "bf16", "fp16"]),
            "training": st.booleans(),
            "q_len": st.sampled_from([1, 7, 1024]),
            "head_dim": st.integers(1, 320),
            "kv_heads": st.sampled_from([1, 8, 32]),
            "masked": st.booleans(),
        }
    ),
)
def test_whatever_sdpa_takes_could_have_been_pinned(gpu: Gpu, changes: dict[str, Any]) -> None:
    assert taken(gpu, **changes, pinned=taken(gpu, **changes)) == taken(gpu, **changes)


def test_only_the_efficient_kernel_needs_key_heads_repeated() -> None:
    assert [kernel for kernel in ("flash", "efficient", "cudnn", "math") if not kernels.takes_gqa(kernel)] == [
        "efficient"
    ]


def test_cublas_workspaces_are_8_mib_and_a_bit_and_32_mib_from_hopper_on() -> None:
    assert [kernels.cublas_workspace(gpu) for gpu in (T4, A100, A6000, L40S)] == [8_519_680] * 4
    assert [kernels.cublas_workspace(gpu) for gpu in (H100, B200, RTX5090)] == [32 * MIB] * 3


def test_softmax_backward_keeps_one_product_beside_its_output() -> None:
    assert kernels.softmax_backward_scratch(1000) == Scratch(after=(1000,))


def test_what_is_rolled_is_copied_first_unless_it_is_contiguous() -> None:
    assert kernels.roll_scratch(1000, copied=True) == Scratch(before=(1000,))
    assert kernels.roll_scratch(1000, copied=False) == Scratch()


def test_a_matrix_by_entries_is_added_in_the_common_dtype() -> None:
    call = {"numel": 1000, "entries": 30}
    same = kernels.sparse_add_scratch(**call, dtype="bf16", values="bf16", common="bf16")
    assert same == Scratch(before=(240,))
    wider = kernels.sparse_add_scratch(**call, dtype="bf16", values="fp32", common="fp32")
    assert wider == Scratch(before=(4000, 4000, 240))
    narrower = kernels.sparse_add_scratch(**call, dtype="fp32", values="bf16", common="fp32")
    assert narrower == Scratch(before=(120, 240))


def test_a_dense_gradient_is_read_at_the_places_and_multiplied_by_one() -> None:
    assert kernels.sparse_mask_scratch(entries=30, dtype="bf16") == Scratch(before=(2, 60))


def test_inputs_of_a_product_have_one_dtype() -> None:
    kernels.check_dtypes("attention", "bf16", "bf16")
    with pytest.raises(InvalidWorkload, match="attention takes one dtype, not bf16, fp32; use --amp"):
        kernels.check_dtypes("attention", "bf16", "fp32")


# ---- flash


def test_flash_backward_collects_dq_in_fp32_over_rows_in_multiples_of_128() -> None:
    scratch = kernels.flash_backward_scratch(
        batch=2, q_len=130, k_len=130, heads=4, kv_heads=4, head_dim=80, dtype="bf16"
    )
    assert scratch == Scratch(after=(2 * 4 * 256 * 4, 2 * 256 * 4 * 96 * 4))


def test_flash_backward_expands_dk_and_dv_to_all_heads() -> None:
    grouped = kernels.flash_backward_scratch(
        batch=2, q_len=128, k_len=64, heads=4, kv_heads=2, head_dim=64, dtype="fp16"
    )
    assert grouped.after[2:] == (2 * 64 * 4 * 64 * 2,) * 2


def test_flash_backward_rounds_large_head_dims_to_64() -> None:
    scratch = kernels.flash_backward_scratch(
        batch=1, q_len=128, k_len=128, heads=1, kv_heads=1, head_dim=160, dtype="bf16"
    )
    assert scratch.after[1] == 128 * 192 * 4


def test_flash_backward_copies_what_lies_otherwise_in_memory() -> None:
    scratch = kernels.flash_backward_scratch(
        batch=1, q_len=10, k_len=10, heads=2, kv_heads=2, head_dim=8, dtype="bf16", grad_copied=True, out_copied=True
    )
    assert scratch.before == (10 * 2 * 8 * 2,) * 2


def test_packed_rows_get_128_rows_more_a_sequence() -> None:
    scratch = kernels.flash_varlen_backward_scratch(
        batch=3, total_q=1000, total_k=1000, heads=4, kv_heads=2, head_dim=64, dtype="bf16"
    )
    assert scratch.after == (4 * 1384 * 4, 4 * 1384 * 64 * 4, 1000 * 4 * 64 * 2, 1000 * 4 * 64 * 2)


def test_flash_forward_splits_keys_only_where_the_card_would_idle() -> None:
    """One sequence of 256 tokens, 8 heads of 128: 32 blocks for 216 places. Two parts fill 64 of them."""
    short = kernels.flash_forward_scratch(A100, batch=1, q_len=256, k_len=256, heads=8, head_dim=128)
    assert short == Scratch(after=(2 * 8 * 256 * 4, 2 * 8 * 256 * 128 * 4))
    assert kernels.flash_forward_scratch(A100, batch=8, q_len=256, k_len=256, heads=8, head_dim=128) == Scratch()
    dropping = kernels.flash_forward_scratch(A100, batch=1, q_len=256, k_len=256, heads=8, head_dim=128, dropout=0.1)
    assert dropping == Scratch()


def test_head_dims_are_padded_to_8() -> None:
    assert [kernels.flash_padded_head_dim(n) for n in (1, 8, 100)] == [8, 8, 104]


# ---- efficient


def test_a_misaligned_mask_is_padded_to_the_next_multiple_of_8() -> None:
    assert [kernels.efficient_mask_width(n) for n in (684, 681, 8)] == [688, 688, 16]


def test_efficient_forward_needs_an_accumulator_for_wide_heads_in_half_precision() -> None:
    call = {"batch": 2, "q_len": 10, "heads": 3}
    assert kernels.efficient_forward_scratch(**call, head_dim=128, dtype="bf16") == Scratch()
    assert kernels.efficient_forward_scratch(**call, head_dim=256, dtype="bf16") == Scratch(
        after=(2 * 10 * 3 * 256 * 4,)
    )
    assert kernels.efficient_forward_scratch(**call, head_dim=256, dtype="fp32") == Scratch()


def test_efficient_backward_of_64_values_collects_dq_in_tiles_of_64_by_64() -> None:
    scratch = kernels.efficient_backward_scratch(
        A6000, batch=1, q_len=100, k_len=100, heads=32, head_dim=64, dtype="bf16"
    )
    assert scratch == Scratch(after=(32 * 100 * 4, 32 * 2 * (4 + 64 * 64) * 4))


def test_efficient_backward_of_128_values_collects_dk_and_dv_too_where_shared_memory_is_short() -> None:
    """An L40S: 96 instances leave room for two splits of the keys; 11 × 2 tiles of dq, 16 bytes before each."""
    scratch = kernels.efficient_backward_scratch(
        L40S, batch=4, q_len=684, k_len=684, heads=24, head_dim=128, dtype="bf16"
    )
    floats = 2 * (2 * 64 * 128) + 11 * 2 * (4 + 64 * 64)
    assert scratch.after == (4 * 24 * 684 * 4, 96 * floats * 4)
    roomy = kernels.efficient_backward_scratch(
        A100, batch=4, q_len=684, k_len=684, heads=24, head_dim=128, dtype="bf16"
    )
    assert roomy.after[1] == 96 * 6 * (4 + 128 * 128) * 4


def test_efficient_backward_in_fp32_holds_a_product_before_its_workspace() -> None:
    """dO × O, its sum and delta, or delta and one tile of dq for each 64 × 64: the fuller moment counts."""
    call: dict[str, Any] = {"batch": 1, "heads": 2, "head_dim": 64, "dtype": "fp32"}
    full = kernels.efficient_backward_scratch(T4, q_len=128, k_len=128, **call)
    assert full.after == (2 * 128 * 64 * 4, 2 * 128 * 4, 2 * 128 * 4)
    ragged = kernels.efficient_backward_scratch(T4, q_len=65, k_len=65, **call)
    assert ragged.after == (2 * 65 * 4, 2 * 2 * (4 + 64 * 64) * 4)


def test_efficient_backward_copies_a_gradient_that_lies_otherwise() -> None:
    scratch = kernels.efficient_backward_scratch(
        A100, batch=1, q_len=10, k_len=10, heads=2, head_dim=64, dtype="fp16", grad_copied=True
    )
    assert scratch.before == (10 * 2 * 64 * 2,)


def test_cudnn_backward_collects_dq_and_the_softmax_sum_in_fp32() -> None:
    assert kernels.cudnn_backward_scratch(batch=2, q_len=10, heads=3, head_dim=64) == Scratch(
        after=(2 * 10 * 3 * 65 * 4,)
    )


@pytest.fixture(scope="module")
def cutlass_rows() -> list[tuple[str, str, int, int, int]]:
    """(dtype, architecture, block_i, block_j, largest head dim) of PyTorch's kernels without dropout, in order."""
    torch = pytest.importorskip("torch")
    folder = Path(torch.__file__).parent / "include/ATen/native/transformers/cuda/mem_eff_attention/kernels"
    header = folder / "cutlassB.h"
    if not header.exists():
        pytest.skip("this PyTorch ships no such header")
    row = re.compile(
        r"arch::Sm(\d+), (?:cutlass::)?(\w+), (?:true|false), false, (?:true|false), (\d+), (\d+), (\d+)[>,]"
    )
    dtypes = {"float": "fp32", "half_t": "fp16", "bfloat16_t": "bf16"}
    return [
        (dtypes[dtype], arch, int(i), int(j), int(largest))
        for arch, dtype, i, j, largest in row.findall(header.read_text())
    ]


@pytest.mark.parametrize("gpu", [V100, T4, A100, A6000, L40S, H100, B200, RTX5090], ids=lambda gpu: gpu.key)
@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_efficient_backward_takes_the_first_kernel_that_pytorch_lists_and_the_card_has_room_for(
    cutlass_rows: list[tuple[str, str, int, int, int]], gpu: Gpu, dtype: str
) -> None:
    if dtype == "bf16" and gpu.capability < (8, 0):
        pytest.skip("no bf16 on this card")
    arch = {7: "75" if gpu.capability == (7, 5) else "70"}.get(gpu.capability[0], "80")
    roomy = gpu.capability in {(7, 0), (8, 0)} or gpu.capability[0] in {9, 10}
    for head_dim in (8, 32, 40, 64, 72, 96, 104, 128, 136, 256):
        rows = [row for row in cutlass_rows if row[:2] == (dtype, arch) and row[4] >= head_dim]
        only_sm86 = (128, 64, 96)  # if (cc == 86 || cc == 89)
        fitting = [
            (i, j)
            for _, _, i, j, largest in rows
            if ((i, j, largest) == only_sm86 and gpu.capability in {(8, 6), (8, 9)})
            or ((i, j, largest) != only_sm86 and (roomy or i == 64))
        ]
        assert efficient._backward_kernel(gpu, head_dim, dtype)[:2] == fitting[0], head_dim


# ---- outputs, beside PyTorch's own meta kernels


@pytest.mark.parametrize("training", [True, False])
def test_outputs_of_attention_kernels_have_the_shapes_of_pytorchs_meta_kernels(training: bool) -> None:
    torch = pytest.importorskip("torch")
    q = torch.empty(2, 4, 33, 64, dtype=torch.bfloat16, device="meta")
    aten = torch.ops.aten

    def nbytes(*tensors: Any) -> tuple[int, ...]:
        return tuple(t.untyped_storage().nbytes() for t in tensors)

    _, lse, seed, offset = aten._scaled_dot_product_efficient_attention(q, q, q, None, training)
    assert tuple(lse.shape) == kernels.efficient_lse_shape(2, 4, 33, training=training)
    assert nbytes(seed, offset) == kernels.efficient_seed_bytes()

    _, lse, *_, seed, unused, _ = aten._scaled_dot_product_flash_attention(q, q, q)
    assert tuple(lse.shape) == kernels.flash_lse_shape(2, 4, 33)
    assert nbytes(seed, unused) == kernels.flash_seed_bytes()

    _, lse, *_, seed, offset, _ = aten._scaled_dot_product_cudnn_attention(q, q, q, None, training)
    assert tuple(lse.shape) == kernels.cudnn_lse_shape(2, 4, 33)
    assert nbytes(seed, offset) == kernels.cudnn_seed_bytes()


# ---- bitsandbytes


def test_a_4_bit_product_dequantizes_its_weight_before_the_output() -> None:
    plain = kernels.gemm_4bit_scratch(A100, 4096, 1024, 512, "bf16", double_quant=False)
    assert plain == Scratch(before=(1024 * 512 * 2,))
    nested = kernels.gemm_4bit_scratch(A100, 4096, 1024, 512, "fp32", double_quant=True)
    assert nested == Scratch(before=(1024 * 512 // 64 * 4, 1024 * 512 // 64 * 4, 1024 * 512 * 4))


def test_few_rows_take_the_fused_kernel_and_no_block() -> None:
    assert kernels.gemm_4bit_scratch(A100, 4, 4096, 4096, "bf16", double_quant=True) == Scratch()
    misaligned = kernels.gemm_4bit_scratch(A100, 4, 4096, 4095, "bf16", double_quant=False)
    assert misaligned.before == (4096 * 4095 * 2,)


def test_int8_looks_for_outliers_beside_its_outputs() -> None:
    assert kernels.int8_quant_scratch(10, 64, threshold=6.0) == Scratch(after=(10 * 64 * 2, 10 * 64))
    assert kernels.int8_quant_scratch(10, 64, threshold=0.0) == Scratch()


def test_int8_products_come_as_fp16_first() -> None:
    assert kernels.int8_dequant_scratch(10, 64, "bf16") == Scratch(before=(10 * 64 * 2,))
    assert kernels.int8_dequant_scratch(10, 64, "fp16") == Scratch()


@pytest.fixture(scope="module")
def bitsandbytes_decides() -> Any:
    """bitsandbytes' own decision, without a GPU: the function alone, asking the card that is passed."""
    package = pytest.importorskip("bitsandbytes")
    source = Path(package.__file__).parent / "backends/cuda/ops.py"
    functions = [n for n in ast.parse(source.read_text()).body if isinstance(n, ast.FunctionDef)]
    found = [n for n in functions if n.name == "_gemm_4bit_use_custom_cuda"]
    if not found:
        pytest.skip("this bitsandbytes decides elsewhere")
    found[0].decorator_list.clear()
    dtypes = types.SimpleNamespace(float32="fp32", float16="fp16", bfloat16="bf16")
    names = {
        "torch": dtypes,
        "_GEMM_4BIT_CUSTOM_FLOOR_M": 4,
        "_gpu_dispatch_props": lambda gpu: (gpu.sm_count, *gpu.capability),
    }
    exec(compile(ast.Module([found[0]], []), str(source), "exec"), names)
    return names["_gemm_4bit_use_custom_cuda"]


@pytest.mark.parametrize(
    "capability", [(6, 1), (7, 0), (7, 5), (8, 0), (8, 6), (8, 7), (8, 9), (9, 0), (10, 0), (11, 0), (12, 0), (12, 1)]
)
def test_the_fused_4_bit_kernel_is_taken_where_bitsandbytes_takes_it(
    bitsandbytes_decides: Any, capability: tuple[int, int]
) -> None:
    widths = (64, 320, 768, 1024, 1536, 2048, 2304, 3072, 3584, 4096, 5120, 8192, 9216, 11008, 14336, 18944, 28672)
    rows = (1, 5, 6, 7, 8, 9, 10, 12, 16, 17, 23, 32, 48, 64, 65, 96, 128, 192, 256, 320, 384, 512, 513, 1536)
    for sm_count, n, k in itertools.product((20, 40, 58, 84, 108, 132, 170), widths, widths):
        gpu = card(*capability, sm_count)
        for dtype, m in itertools.product(("bf16", "fp16", "fp32"), rows):
            assert quantized._fused_is_faster(gpu, dtype, m, n, k) == bitsandbytes_decides(gpu, dtype, m, n, k), (
                sm_count, dtype, m, n, k,
            )  # fmt: skip


def test_the_choice_has_a_reason_for_every_kernel_but_math() -> None:
    assert set(choice._REFUSALS) == {"flash", "efficient", "cudnn"}


@pytest.mark.parametrize(
    ("left", "right", "copied"),
    [
        (((4, 10, 3), (30, 3, 1)), ((4, 3, 2), (6, 1, 3)), ()),  # by rows, by columns
        (((4, 10, 3), (1, 12, 4)), ((4, 3, 2), (6, 2, 1)), (120 * 8,)),  # the batch lies innermost
        (((4, 10, 3), (1, 12, 4)), ((4, 3, 2), (1, 4, 12)), (24 * 8, 120 * 8)),
        (((4, 10, 3), (1, 12, 4)), ((4, 3, 1), (1, 4, 12)), (120 * 8, 12 * 8)),  # the product is a column
        (((4, 10, 3), (30, 0, 0)), ((4, 3, 2), (6, 2, 1)), (120 * 8,)),  # expanded
    ],
)
def test_factors_of_a_batched_product_are_copied_where_cublas_cannot_read_them(
    left: Any, right: Any, copied: tuple[int, ...]
) -> None:
    assert kernels.bmm_scratch(left, right, 8) == Scratch(after=copied)

"""What a Workload allows and a tier refuses when it runs, known beforehand so that no case is wasted on it."""

from collections.abc import Callable, Mapping
from typing import Final

from tests import cases
from tests.cases import Case, label

_LONGER_THAN_WINDOW: Final = {"len-37", "len-64", "len-130", "after-short-empty", "after-longer"}
_ODD_HEADS: Final = {"llama-gqa-biases", "mistral-window"}  # 12 and 20: no multiples of 8
_BIASED: Final = ("bloom", "qwen2", "llama-gqa-biases")


def possible(case: Case) -> bool:
    """Whether a case is a workload that both tiers can run, as far as that is known."""
    return not any(refused(case) for refused in REASONS.values()) and cases.possible(case)


def _packed(case: Case) -> bool:
    return label(case, "method").startswith("qlora")


def _raised(case: Case) -> bool:
    """Whether k-bit preparation makes fp32 of all that is not packed."""
    return _packed(case) and not label(case, "quantization").endswith("raw")


def _under_autocast(case: Case) -> bool:
    return label(case, "precision").startswith("amp")


def _biased(case: Case) -> bool:
    return label(case, "model").startswith(_BIASED)


def _eager_only(case: Case) -> bool:
    return label(case, "model").startswith("bloom") and not {"auto", "eager"} & set(case)


def _no_token_left(case: Case) -> bool:
    return {"flash", "padded", "batch-1", "len-1"} <= set(case)


def _flash_over_fp32(case: Case) -> bool:
    return "sdpa-flash" in case and _raised(case) and not _under_autocast(case)


def _flash_over_window(case: Case) -> bool:
    return {"sdpa-flash", "mistral-window"} <= set(case) and bool(_LONGER_THAN_WINDOW & set(case))


def _efficient_over_odd_heads(case: Case) -> bool:
    return "efficient" in case and bool(_ODD_HEADS & set(case)) and "fp32" not in case


def _efficient_bf16_on_turing(case: Case) -> bool:
    return {"efficient", "t4"} <= set(case) and "bf16" in label(case, "precision")


def _scaled_half_gradients(case: Case) -> bool:
    trains_biases = _biased(case) and {"bias-all", "bias-lora-only"} & set(case)  # bitsandbytes halves raised ones
    return "amp-fp16-over-fp16" in case and _packed(case) and bool(trains_biases)


def _bias_cast_in_inference(case: Case) -> bool:
    cast = _raised(case) or _under_autocast(case)
    return "inference" in case and _packed(case) and _biased(case) and cast


def _not_of_the_cpu(case: Case) -> bool:
    plain = {"fp32", "bf16"} & set(case) and {"auto", "eager"} & set(case)
    return "cpu" in case and (_packed(case) or not plain)


def _osf_over_conv1d(case: Case) -> bool:
    return "osf" in case and label(case, "model") in ("gpt2", "gpt_bigcode")


REASONS: Final[Mapping[str, Callable[[Case], bool]]] = {
    "transformers' BLOOM has eager attention only": _eager_only,
    "a padded batch of one token has none left for the flash-attn library": _no_token_left,
    "the flash kernel takes no fp32, which k-bit preparation makes of all that is not packed": _flash_over_fp32,
    "the flash kernel takes no mask, which a sliding window needs": _flash_over_window,
    "the efficient kernel takes half precision in heads of a multiple of 8 only": _efficient_over_odd_heads,
    "the efficient kernel takes bf16 from Ampere on": _efficient_bf16_on_turing,
    "GradScaler refuses to unscale fp16 gradients, here of biases that bitsandbytes halves": _scaled_half_gradients,
    "bitsandbytes cannot cast a bias to its input's dtype under inference_mode": _bias_cast_in_inference,
    "OSF decomposes torch.nn.Linear alone: over Conv1D there is nothing to train": _osf_over_conv1d,
    "--device cpu means fp32 or bf16 with eager attention": _not_of_the_cpu,
}

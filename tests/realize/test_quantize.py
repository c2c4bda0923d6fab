import torch

from memcalc.timeline import CATEGORIES
from memcalc.tracing.record import record, trace
from tests.tracing.steps import tiny


def test_biases_are_made_in_the_stored_dtype() -> None:
    timeline = record(tiny("bloom", "qlora", dtype="fp16", mode="inference")).timeline
    biases = {timeline.nbytes[row] for row, (module, name) in enumerate(timeline.labels)
              if name == "bias" and module.endswith("query_key_value.base_layer")}  # fmt: skip
    assert biases == {3 * 64 * 2}


def test_an_eight_bit_weight_leaves_codes_and_scales() -> None:
    timeline = record(tiny(quant="int8", mode="inference", dtype="bf16")).timeline
    loaded = next(mark.at for mark in timeline.marks if mark.kind == "phase_end")
    alive = timeline.alive_at(loaded)
    scales = [timeline.nbytes[row] for row in alive if timeline.categories[row] == "quantization_state"]
    assert sorted(set(scales)) == sorted({4 * n for n in (64, 32, 160)})
    assert sum(scales) == 2 * 4 * (64 + 32 + 32 + 64 + 160 + 160 + 64)


def test_eight_bit_products_are_seen_with_the_blocks_inside_them() -> None:
    timeline = record(tiny(quant="int8", history="none", dtype="bf16")).timeline
    ops = {op for _, op in timeline.labels}
    assert {"int8_vectorwise_quant", "int8_linear_matmul", "int8_mm_dequant"} <= ops
    inside = {
        op for category, (_, op) in zip(timeline.categories, timeline.labels, strict=True) if category == "workspace"
    }
    assert {"int8_vectorwise_quant", "int8_mm_dequant"} <= inside


def test_what_was_assumed_of_outliers_is_said() -> None:
    footprint = trace(tiny(quant="int8"))
    assert any("outlier" in warning for warning in footprint.warnings)
    assert footprint.at_peak is not None
    assert set(footprint.at_peak) == set(CATEGORIES)


def test_torchs_default_dtype_is_left_alone() -> None:
    record(tiny(method="qlora"))
    assert torch.get_default_dtype() == torch.float32

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from memcalc.footprint import Block, Footprint, Phase
from memcalc.reporting.console import rendered
from memcalc.units import GIB, MIB

WORKLOAD = {
    "model": "llama-3.1-8b",
    "method": "qlora",
    "rank": 16,
    "gpu": "rtx4090",
    "batch": 4,
    "seq_len": 2048,
    "grad_accum": 1,
    "dtype": "bf16",
    "amp": "none",
    "quant": "nf4",
    "optimizer": "adamw_torch_fused",
    "checkpointing": True,
    "attention": "auto",
    "attention_kernel": "efficient",
    "loss": "nll",
    "mode": "train",
    "loop": "trainer",
    "history": "same",
    "device": "cuda",
}
AT_PEAK = {
    "weights": 5 * GIB,
    "quantization_state": 100 * MIB,
    "adapter": 26 * MIB,
    "gradients": 26 * MIB,
    "optimizer_states": 52 * MIB,
    "activations": 4 * GIB,
    "logits_loss": 5 * GIB,
    "workspace": 8 * MIB,
}
ALLOCATED = sum(AT_PEAK.values())


def footprint(**changes: Any) -> Footprint:
    plain = Footprint(
        producer="estimate",
        workload=WORKLOAD,
        total_params=8_037_076_992,
        trainable_params=6_815_744,
        checkpoint_bytes=27_297_032,
        peak_live=ALLOCATED - 3 * MIB,
        peak_allocated=ALLOCATED,
        peak_reserved=ALLOCATED + GIB,
        device_total=ALLOCATED + GIB + 480 * MIB,
        peak_phase="backward",
        at_peak=AT_PEAK,
        phases=(
            Phase("load", 5 * GIB, 6 * GIB, 6 * GIB),
            Phase("forward", 12 * GIB, 13 * GIB, 14 * GIB),
            Phase("backward", 6 * GIB, ALLOCATED, ALLOCATED + GIB),
            Phase("optimizer", 5 * GIB, 6 * GIB, ALLOCATED + GIB),
        ),
    )
    return dataclasses.replace(plain, **changes)


def text_of(shown: Footprint, *, verdict: bool = False, **console: Any) -> str:
    printer = Console(**({"highlight": False, "width": 80, "color_system": None} | console))
    with printer.capture() as capture:
        printer.print(rendered(shown, verdict=verdict), soft_wrap=True)
    return capture.get()


def test_a_training_run_that_fits_is_shown_whole(golden: Callable[[str, str], None]) -> None:
    golden("console_fits.txt", text_of(footprint(), verdict=True))


def test_a_run_that_does_not_fit_says_by_how_much(golden: Callable[[str, str], None]) -> None:
    shown = footprint(
        workload=WORKLOAD | {"gpu": "12GiB", "grad_accum": 4, "amp": "bf16", "quant": "none"},
        warnings=("12.00 GiB is less than the weights",),
        largest=(
            Block(5 * GIB, "logits_loss", "model: cross_entropy"),
            Block(100 * MIB, "quantization_state", "model.layers.31.mlp.down_proj: quantize"),
        ),
    )
    golden("console_does_not_fit.txt", text_of(shown, verdict=True))


def test_what_is_not_known_gives_its_reason(golden: Callable[[str, str], None]) -> None:
    shown = footprint(
        producer="profile",
        workload=WORKLOAD | {"device": "cpu", "mode": "inference", "checkpointing": False, "history": ""},
        peak_reserved=None,
        device_total=None,
        phases=(Phase("load", 5 * GIB, 6 * GIB, None), Phase("forward", None, None, None)),
        outcome="out_of_memory",
        unavailable={"peak_reserved": "nothing is reserved on cpu", "device_total": "no device"},
    )
    golden("console_unknown.txt", text_of(shown, verdict=True))


def test_a_footprint_that_knows_next_to_nothing_is_shown_all_the_same(golden: Callable[[str, str], None]) -> None:
    golden("console_empty.txt", text_of(Footprint(producer="published", workload={})))


@pytest.mark.parametrize("shown", [footprint(), footprint(workload=WORKLOAD | {"method": "full"})])
def test_lines_fit_into_80_columns_and_end_without_blanks(shown: Footprint) -> None:
    for line in text_of(shown, verdict=True).splitlines():
        assert len(line) <= 80
        assert line == line.rstrip()


def test_a_terminal_gets_colour_and_a_pipe_gets_none() -> None:
    assert "\x1b[" in text_of(footprint(), force_terminal=True, color_system="standard")
    assert "\x1b" not in text_of(footprint(), color_system="auto")


def test_a_hostile_model_name_cannot_steer_the_terminal_or_the_markup() -> None:
    shown = footprint(workload=WORKLOAD | {"model": "\x1b]0;owned\x07[red]x[/red]\n\u202e"})
    first_line = text_of(shown, force_terminal=True, color_system=None).splitlines()[0]
    assert first_line.startswith(r"\x1b]0;owned\x07[red]x[/red]\n\u202e · qlora")


def test_the_smallest_category_shows_as_a_sliver_and_an_absent_one_not_at_all() -> None:
    text = text_of(footprint(at_peak=AT_PEAK | {"adapter": 0}))
    assert "  adapter" not in text
    assert "< 0.1 %  ▏" in text

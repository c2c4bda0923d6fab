from dataclasses import replace

import matplotlib as mpl
import pandas as pd
import pytest

import memcalc
from memcalc.footprint import Footprint
from memcalc.units import GIB
from tests.tiny import tiny

mpl.use("Agg")
FOOTPRINT = memcalc.estimate(tiny())
ON_CPU = memcalc.estimate(tiny(device="cpu", dtype="fp32"))
NOTHING = Footprint("profile", {}, outcome="out_of_memory")


@pytest.mark.parametrize("footprint", [FOOTPRINT, ON_CPU, NOTHING, replace(FOOTPRINT, phases=(), peak_phase=None)])
def test_whatever_is_known_is_shown_and_drawn(footprint: Footprint) -> None:
    from matplotlib import pyplot as plt

    text = footprint._repr_html_()
    assert text.count("<table") == text.count("</table>")
    assert ("weights" in text) == (footprint.at_peak is not None)
    axes = footprint.plot()
    assert axes.get_ylabel() == "peak of each phase, GiB"
    plt.close("all")


def test_what_a_file_says_is_text_in_a_notebook() -> None:
    workload = {**FOOTPRINT.workload, "model": "<script>$\\frac{"}
    footprint = replace(FOOTPRINT, workload=workload, warnings=("<b>",), unavailable={"device_total": '"><b>'})
    assert "<script" not in footprint._repr_html_()
    assert "<b>" not in footprint._repr_html_().replace("<b>", "", 2)  # ours: the heading, the word warning
    footprint.plot().figure.canvas.draw()


def test_a_page_around_it_gives_ground_and_ink() -> None:
    text = FOOTPRINT._repr_html_()
    assert " color: #" not in text
    assert "<style" not in text


def test_a_plot_goes_where_it_is_told() -> None:
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    footprint = replace(FOOTPRINT, workload={**FOOTPRINT.workload, "gpu": "20MiB"})
    assert footprint.plot(ax=axes) is axes
    labels = axes.get_legend_handles_labels()[1]
    assert {"weights", "activations", "reserved", "allocated", "20.0 MiB"} <= set(labels)
    assert axes.get_ylim()[1] * GIB > (footprint.peak_reserved or 0)


def test_footprints_become_one_frame_whose_bytes_are_whole() -> None:
    frame = memcalc.to_frame([FOOTPRINT, ON_CPU])
    assert list(frame["peak_allocated"]) == [FOOTPRINT.peak_allocated, ON_CPU.peak_allocated]
    assert frame["peak_reserved"].isna().tolist() == [False, True]
    assert {str(frame[name].dtype) for name in ("batch", "rank", "peak_reserved", "device_total")} == {"Int64"}
    assert frame["at_peak_weights"].dtype == frame["backward_allocated_peak"].dtype == "Int64"
    assert "model_config" not in frame
    assert FOOTPRINT.to_frame().iloc[0]["model"] == "tiny-llama"


def test_frames_of_several_kinds_go_together() -> None:
    frame = memcalc.to_frame([FOOTPRINT, memcalc.estimate(tiny("llama", "full")), NOTHING])
    assert frame["rank"].isna().tolist() == [False, True, True]
    assert isinstance(frame, pd.DataFrame)
    assert memcalc.to_frame([]).empty

"""A footprint as a picture: what each phase reaches, and what the highest is made of."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from memcalc.errors import InvalidWorkload, MissingPackage, UnknownName
from memcalc.footprint import Footprint, Phase
from memcalc.reporting.console import category_name, heading
from memcalc.reporting.looks import CATEGORY_COLOURS, GREY, VERMILLION, ink
from memcalc.units import GIB, gib

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NEAR = 2.0  # a card's limit is drawn where it is not further off than so many times the peak


def plot(footprint: Footprint, ax: "Axes | None") -> "Axes":
    """A bar for each phase, the highest stacked by category; marks for what is reserved; the card's limit if near."""
    axes = _axes() if ax is None else ax
    phases = footprint.phases or (Phase("peak", None, footprint.peak_allocated, footprint.peak_reserved),)
    for at, phase in enumerate(phases):
        if phase.allocated_peak is None:
            continue
        if footprint.at_peak and phase.name == (footprint.peak_phase or "peak"):
            _stacked(axes, at, footprint.at_peak)
        else:
            label = "" if any(text == "allocated" for text in axes.get_legend_handles_labels()[1]) else "allocated"
            axes.bar(at, phase.allocated_peak / GIB, color=GREY, alpha=0.45, width=0.7, label=label)
    reserved = [(at, phase.reserved_peak / GIB) for at, phase in enumerate(phases) if phase.reserved_peak is not None]
    if reserved:
        levels = [level for _, level in reserved]
        places = [at for at, _ in reserved]
        axes.hlines(
            levels, [at - 0.42 for at in places], [at + 0.42 for at in places], colors=ink(axes), linewidth=1.8,
            label="reserved",
        )  # fmt: skip
    _limit(axes, footprint)
    axes.set_xticks(range(len(phases)), [_label(phase) for phase in phases])
    axes.set_xlim(-0.6, len(phases) - 0.4)
    axes.set_ylim(bottom=0, top=axes.get_ylim()[1] * 1.05)
    axes.set_ylabel("peak of each phase, GiB")
    axes.set_title(next(heading(footprint)).plain, loc="left", fontsize=10, parse_math=False)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False)
    return axes


def _stacked(axes: "Axes", at: int, at_peak: Mapping[str, int]) -> None:
    below = 0.0
    for category, colour in CATEGORY_COLOURS.items():
        height = at_peak.get(category, 0) / GIB
        if height:
            axes.bar(at, height, bottom=below, color=colour, width=0.7, label=category_name(category))
            below += height


def _label(phase: Phase) -> str:
    return phase.name if phase.allocated_peak is None else f"{phase.name}\n{gib(phase.allocated_peak)}"


def _limit(axes: "Axes", footprint: Footprint) -> None:
    try:
        verdict = footprint.fits(str(footprint.workload.get("gpu")))
    except (UnknownName, InvalidWorkload):  # a card that nobody knows; a device that reserves nothing
        return
    if verdict.available < _NEAR * footprint.held:
        axes.axhline(verdict.available / GIB, color=VERMILLION, linestyle="--", label=verdict.gpu)


def _axes() -> "Axes":
    """Of pyplot's, so that a notebook shows them."""
    try:
        from matplotlib import pyplot as plt
    except ImportError:
        raise MissingPackage("matplotlib", "report") from None
    _, axes = plt.subplots(figsize=(8.0, 4.2), layout="constrained")
    return axes

import io
from typing import Any

import pytest
from PIL import Image

from memcalc.reporting.looks import CATEGORY_COLOURS, LOOKS, png


def swatches(figure: Any) -> None:
    """A small patch of every colour beside a large one of the first."""
    axes = figure.subplots()
    axes.barh(range(8), [100, *[1] * 7], color=list(CATEGORY_COLOURS.values()))
    axes.axvspan(50, 100, color="#999999", alpha=0.14, linewidth=0)  # hardly to be told from the ground, and yet
    axes.set_title("$\\frac{ is text")


@pytest.mark.parametrize("look", LOOKS)
def test_every_colour_is_on_the_picture_however_small_its_patch_is(look: str) -> None:
    image = Image.open(io.BytesIO(png(swatches, (6, 4), look))).convert("RGB")
    there: set[Any] = {colour for _, colour in image.getcolors(maxcolors=2**24) or ()}
    rgb = {
        colour: [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
        for colour in (*CATEGORY_COLOURS.values(), LOOKS[look][0])
    }
    rgb["band"] = [round(0.86 * a + 0.14 * 0x99) for a in rgb[LOOKS[look][0]]]
    for colour, wanted in rgb.items():
        assert any(max(abs(a - b) for a, b in zip(wanted, one, strict=True)) <= 2 for one in there), colour


def test_the_same_picture_is_the_same_bytes() -> None:
    assert png(swatches, (3, 2), "dark") == png(swatches, (3, 2), "dark")

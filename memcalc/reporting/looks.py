"""How pictures look: on a light and on a dark ground, in colours that the colour-blind tell apart too.

Source of the colours: Okabe and Ito 2008, Color Universal Design (jfly.uni-koeln.de/color).
"""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from memcalc.errors import MissingPackage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Draw = Callable[["Figure"], None]

BLUE, ORANGE, GREEN, SKY, VERMILLION, PURPLE, YELLOW, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#56B4E9", "#D55E00", "#CC79A7", "#F0E442", "#999999",
)  # fmt: skip
SERIES = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (PURPLE, "D"), (VERMILLION, "v"), (SKY, "P"), (GREY, "X"))
CATEGORY_COLOURS = {
    "weights": BLUE,
    "quantization_state": SKY,
    "adapter": GREEN,
    "gradients": VERMILLION,
    "optimizer_states": PURPLE,
    "activations": ORANGE,
    "logits_loss": YELLOW,
    "workspace": GREY,
}
LOOKS = {"light": ("#ffffff", "#1a1a1a", "#d6d6d6"), "dark": ("#15181c", "#e6e6e6", "#3a3f45")}  # ground, ink, grid


def png(draw: Draw, size: tuple[float, float], look: str) -> bytes:
    """The picture that `draw` makes on a figure of `size` inches, as PNG. Raises MissingPackage without matplotlib.

    The same pictures are the same bytes: no date and no version stands in them.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
        from PIL import Image
    except ImportError:
        raise MissingPackage("matplotlib", "report") from None
    written = io.BytesIO()
    with mpl.rc_context(_settings(*LOOKS[look])):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        figure.savefig(written, format="png", dpi=110, metadata={"Software": None})
    small = io.BytesIO()  # 256 colours are enough for bars and lines, and a third of the bytes
    few = Image.open(written).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    few.save(small, "png", optimize=True)
    return small.getvalue()


def _settings(ground: str, ink: str, grid: str) -> Any:
    """What matplotlib is told. Text from files is text: a $ in it begins no formula."""
    return {
        **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor", "legend.facecolor"), ground),
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), ink),
        "axes.titlecolor": ink,
        "grid.color": grid,
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "text.parse_math": False,
        "path.simplify": True,
    }


def ink(axes: "Axes") -> Any:
    """The colour of text and lines in the look that is drawn in."""
    return axes.xaxis.label.get_color()

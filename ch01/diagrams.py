"""Drawn figures: boxes and arrows in the course's style.

Every figure is 7 inches wide and one unit of its axes is one inch, so that a font size in points says how much room
a text needs. A text and the box that it must fit share a `gid`; `tests/test_diagrams.py` measures that it does.
"""

from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from shared.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, new_figure

WIDTH = 7.0
INK = "#222222"
PALE = {BLUE: "#D9E9F4", ORANGE: "#FCEBC8", GREEN: "#D2ECE2", PURPLE: "#F6E4EE", GREY: "#EFEFEF"}
TEXT_SIZE = 9.5  # points; at 100 dots an inch still 13 pixels high


def canvas(height: float) -> Axes:
    """Empty axes, 7 inches wide and `height` inches high, whose unit is the inch."""
    figure, axes = new_figure(figsize=(WIDTH, height))
    figure.set_layout_engine("none")
    axes.set(position=(0, 0, 1, 1), xlim=(0, WIDTH), ylim=(0, height))
    axes.axis("off")
    return axes


def box(
    axes: Axes,
    x: float,
    y: float,
    width: float,
    height: float,
    text: str = "",
    colour: str = GREY,
    *,
    heading: str = "",
    size: float = TEXT_SIZE,
    align: str = "center",
) -> None:
    """A rounded box with its lower left corner at (x, y); a bold heading stands above the text."""
    name = f"box {len(axes.patches)}"
    shape = FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.07")
    shape.set(facecolor=PALE[colour], edgecolor=colour, linewidth=1.2, gid=name)
    axes.add_patch(shape)
    left = x + width / 2 if align == "center" else x + 0.1
    lines = text.count("\n") + 1 if text else 0
    line = size * 1.25 / 72
    top = y + height / 2 + line * (lines + bool(heading)) / 2
    style = {"ha": align, "color": INK, "fontsize": size, "linespacing": 1.15, "gid": name}
    if heading:
        axes.text(left, top - line / 2, heading, va="center_baseline", weight="bold", **style)
    if text:
        middle = top - line * bool(heading) - line * lines / 2
        axes.text(left, middle, text, va="center_baseline", **style)


def arrow(axes: Axes, *points: tuple[float, float], dashed: bool = False) -> None:
    """An arrow along a line through two or more points."""
    style = {"color": GREY, "linewidth": 1.4, "linestyle": "--" if dashed else "-"}
    axes.add_patch(FancyArrowPatch(path=Path(points), arrowstyle="-|>", mutation_scale=12, **style))


def label(axes: Axes, x: float, y: float, text: str, **style) -> None:
    """A text that stands free, outside all boxes."""
    axes.text(x, y, text, **{"fontsize": TEXT_SIZE, "color": INK, "ha": "center", "va": "center", **style})

"""The course's plots, in one style: legible in a 700-pixel column, safe for colour-blind readers."""

from collections.abc import Sequence
from itertools import cycle

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# The palette of Okabe and Ito (2008), ordered so that neighbours differ in lightness too.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
BLUE, ORANGE, GREEN, PURPLE, SKY, RED = COLOURS
GREY = "#666666"
STYLE = {
    "figure.figsize": (7.0, 3.4),
    "figure.dpi": 100,
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "axes.prop_cycle": plt.cycler(color=COLOURS),
}
# Load the backend now. Were it loaded inside an rc_context, leaving that would undo the interactive mode which the
# notebook's backend switches on, and no figure after the first would show.
plt.draw_if_interactive()


def new_figure(title: str = "", x: str = "", y: str = "", **subplots) -> tuple[Figure, Axes]:
    """A figure with one set of axes in the course's style; further arguments go to `plt.subplots`."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(layout="constrained", **subplots)
        axes.set(title=title, xlabel=x, ylabel=y)
    return figure, axes


def token_bars(
    tokens: Sequence[str], probabilities: Sequence[float], title: str = "", axes: Axes | None = None
) -> Axes:
    """Horizontal bars of candidate tokens and their probabilities, the likeliest on top. Spaces and newlines show."""
    if axes is None:
        _, axes = new_figure(figsize=(7.0, 0.6 + 0.36 * len(tokens)))
    shown = [repr(token)[1:-1].replace(" ", "␣") for token in tokens]
    rows = range(len(tokens))
    axes.barh(rows, probabilities, color=BLUE)
    axes.set_title(title, loc="left")
    axes.set(xlabel="probability", xlim=(0, 1.12), xticks=(0, 0.25, 0.5, 0.75, 1), yticks=rows, yticklabels=shown)
    axes.tick_params(axis="y", labelfontfamily="monospace", length=0)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    for row, p in enumerate(probabilities):
        axes.text(p + 0.01, row, f"{p:.3f}", va="center")
    return axes


def lines(
    x: Sequence[float],
    series: dict[str, Sequence[float]],
    *,
    title: str = "",
    x_label: str = "",
    y_label: str = "",
    log: str = "",
) -> Axes:
    """One marked line for each entry of `series` over the same x; `log="x"` makes that axis logarithmic.

    The y axis begins at 0, unless a value is negative.
    """
    _, axes = new_figure(title, x_label, y_label)
    for (name, values), marker in zip(series.items(), cycle("os^DvxP"), strict=False):
        axes.plot(x, values, marker=marker, label=name)
    if log == "x":
        axes.set_xscale("log", base=2)
        axes.set_xticks(list(x), [f"{v:g}" for v in x])
        axes.minorticks_off()
    if axes.dataLim.ymin >= 0:
        axes.set_ylim(bottom=0)
    if len(series) > 1:
        axes.legend()
    return axes


def interval_points(
    labels: Sequence[str],
    series: dict[str, Sequence[tuple[float, float, float] | None]],
    *,
    title: str = "",
    x_label: str = "accuracy, %, with 95 % interval",
) -> Axes:
    """A row for each label, and in it a point with its interval for each entry of `series`, in percent.

    A point is (value, low, high), each in [0, 1], or None where there is none. More than one series gets a legend.
    """
    if any(len(points) != len(labels) for points in series.values()):
        raise ValueError(f"There are {len(labels)} labels: give each series as many points, None where there is none.")
    _, axes = new_figure(title, x_label, figsize=(7.0, 1.2 + 0.36 * len(labels) + 0.3 * (len(series) > 1)))
    step = 0.5 / max(1, len(series))  # the series share the height of a row
    looks = zip(series.items(), cycle(COLOURS), cycle("oDs^vxP"), strict=False)
    for place, ((name, points), colour, marker) in enumerate(looks):
        shift = (place - (len(series) - 1) / 2) * step
        rows = [row + shift for row, point in enumerate(points) if point is not None]
        shown = [point for point in points if point is not None]
        values = [100 * value for value, _, _ in shown]
        axes.errorbar(values, rows, xerr=reach(shown), fmt=marker, color=colour, capsize=3, label=name)
    axes.set(xlim=(-2, 102), ylim=(len(labels) - 0.5, -0.5), yticks=range(len(labels)), yticklabels=labels)
    axes.grid(visible=False, axis="y")
    if len(series) > 1:
        axes.figure.legend(loc="outside lower left", ncols=len(series), frameon=False)
    return axes


def reach(points: Sequence[tuple[float, float, float]]) -> list[list[float]]:
    """How far the intervals go below and above their values, in percent."""
    below = [max(0, 100 * value - 100 * low) for value, low, _ in points]
    return [below, [max(0, 100 * high - 100 * value) for value, _, high in points]]


def panels(count: int, columns: int = 2, height: float = 1.7) -> list[Axes]:
    """`count` small axes in rows of `columns`, each `height` inches high, in the course's style."""
    rows = -(-count // columns)
    with plt.rc_context({**STYLE, "font.size": 9, "axes.titlesize": 10, "figure.figsize": (7.0, height * rows)}):
        figure, grid = plt.subplots(rows, columns, layout="constrained", squeeze=False)
    for unused in grid.flat[count:]:
        figure.delaxes(unused)
    return list(grid.flat[:count])

"""The course's plots, in one style: legible in a 700-pixel column, safe for colour-blind readers."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# The palette of Okabe and Ito (2008), ordered so that neighbours differ in lightness too.
BLUE, ORANGE, GREEN, PURPLE, SKY, RED, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#666666",
)
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED)
STYLE = {
    "figure.figsize": (7.0, 3.4),
    "figure.dpi": 100,
    "savefig.bbox": "tight",
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.8,
    "axes.prop_cycle": plt.cycler(color=COLOURS),
    "lines.linewidth": 2,
    "lines.markersize": 6,
    "legend.frameon": False,
}


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
    axes.set(
        title=title,
        xlabel="probability",
        xlim=(0, 1.12),
        xticks=(0, 0.25, 0.5, 0.75, 1),
        yticks=rows,
        yticklabels=shown,
    )
    axes.tick_params(axis="y", labelfontfamily="monospace", length=0)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    for row, p in enumerate(probabilities):
        axes.text(p + 0.01, row, f"{p:.3f}", va="center")
    return axes


def lines(
    x: Sequence[float], series: dict[str, Sequence[float]], *, title: str = "", x_label: str = "", y_label: str = "",
    log: str = "",
) -> Axes:  # fmt: skip
    """One marked line for each entry of `series` over the same x; `log` is "x", "y" or "xy" for logarithmic axes."""
    _, axes = new_figure(title, x_label, y_label)
    for (name, values), marker in zip(series.items(), "os^Dvx", strict=False):
        axes.plot(x, values, marker=marker, label=name)
    if "x" in log:
        axes.set_xscale("log", base=2)
        axes.set_xticks(list(x), [f"{v:g}" for v in x])
        axes.minorticks_off()
    if "y" in log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    if len(series) > 1:
        axes.legend()
    return axes

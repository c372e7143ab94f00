"""Figures of this chapter: every method of the course, and what accuracy costs in tokens."""

import math
from collections.abc import Sequence
from itertools import pairwise

from matplotlib.axes import Axes

from shared.evaluation.ledger import is_usual, paired_rows, plot_ledger, point_of
from shared.plots import COLOURS, GREY, new_figure, reach

CONTROL = "best prompt, untrained"  # what chapter 4 measured, and what every later method has to beat


def control_accuracy() -> float | None:
    """Accuracy of the untrained model with the best prompt, in [0, 1]: the reader's own, else the reference's."""
    rows = [own or reference for own, reference in paired_rows()]
    found = [row["accuracy"] for row in rows if is_usual(row) and row["method"] == CONTROL]
    return found[-1] if found else None


def plot_every_method() -> Axes:
    """The ledger's figure, with a vertical line at the untrained model with its best prompt, if that was measured."""
    axes, control = plot_ledger(), control_accuracy()
    axes.tick_params(axis="y", labelsize=9)
    if control is not None:
        axes.axvline(100 * control, color=GREY, linestyle="--", linewidth=1, zorder=0)
        name = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "color": GREY, "fontsize": 9}
        axes.annotate(CONTROL, (100 * control, 1), (0, 3), ha="center", **name)
        axes.set_title(axes.get_title(loc="left"), loc="left", pad=18)  # room for the line's name beneath
    return axes


def plot_accuracy_against_tokens() -> Axes:
    """Problems solved against tokens generated for one, with 95 % intervals.

    Of each measurement of the tiny model on MiniMath the reader's own row counts, else the reference. A dashed line
    stands at the height of the untrained model with its best prompt, if that was measured.
    """
    rows = [own or reference for own, reference in paired_rows()]
    rows = [row for row in rows if is_usual(row) and row["tokens_per_problem"]]
    if not rows:
        raise ValueError("The ledger has no measurement of the tiny model: run a chapter's notebook first.")
    points = [(row["chapter"], row["method"], row["tokens_per_problem"], point_of(row)) for row in rows]
    x_label = "tokens generated for a problem (logarithmic)"
    axes, control = accuracy_against_cost(points, title="What accuracy costs", x_label=x_label), control_accuracy()
    if control is not None:
        axes.axhline(100 * control, color=GREY, linestyle="--", linewidth=1, zorder=0)
        name = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "color": GREY, "fontsize": 9}
        axes.annotate(CONTROL, (0.01, 100 * control), (0, 3), **name)
    return axes


def accuracy_against_cost(
    points: Sequence[tuple[str, str, float, tuple[float, float, float]]], *, title: str, x_label: str
) -> Axes:
    """Points with intervals over a logarithmic axis of cost, numbered, with the numbers' names beneath.

    A point is (group, name, cost, (value, low, high)), the last three in [0, 1]; a group has one colour and marker.
    A thin line leads from each point to its number, which stands beside all points of similar cost.
    """
    groups = list(dict.fromkeys(group for group, *_ in points))
    costs = [cost for _, _, cost, _ in points]
    places = label_places([(cost, 100 * value) for _, _, cost, (value, _, _) in points])
    _, axes = new_figure(title, x_label, "problems solved, %", figsize=(7.0, 4.0 + 0.2 * -(-len(points) // 2)))
    for number, ((group, name, cost, point), place) in enumerate(zip(points, places, strict=True), start=1):
        look = groups.index(group) % len(COLOURS)
        style = {"color": COLOURS[look], "fmt": "osD^vX"[look], "markersize": 5, "label": f"{number} {group} {name}"}
        axes.errorbar(cost, 100 * point[0], yerr=reach([point]), capsize=2, elinewidth=1, **style)
        leader = {"arrowstyle": "-", "color": COLOURS[look], "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0}
        beside = {"va": "center", "ha": "right" if place[0] < cost else "left", "fontsize": 9}
        axes.annotate(str(number), (cost, 100 * point[0]), place, color=COLOURS[look], arrowprops=leader, **beside)
    axes.set(xscale="log", xlim=(min(costs) / 1.5, 1.5 * max(costs)), ylim=(0, 100))
    ticks = [5, 10, 20, 50, 100, 200, 500, 1000, 2000]
    ticks = [tick for tick in ticks if min(costs) / 1.5 <= tick <= 1.5 * max(costs)]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.figure.legend(loc="outside lower left", ncols=2, frameon=False, fontsize=8.5)
    return axes


def label_places(points: Sequence[tuple[float, float]], near: float = 1.3, apart: float = 4.5) -> list:
    """A place (cost, height) for the number of each point, a pair of cost and height in percent.

    Points whose costs follow one another by less than the factor `near` are a cluster. The numbers of its left half
    stand in a column left of it, the others right of it, each column in the order of the heights and `apart` percent.
    """
    places: list = [None] * len(points)
    by_cost = sorted(range(len(points)), key=lambda i: points[i])
    cuts = [j for j, (a, b) in enumerate(pairwise(by_cost), start=1) if points[b][0] > near * points[a][0]]
    for start, end in pairwise([0, *cuts, len(points)]):
        cluster = by_cost[start:end]
        half = len(cluster) // 2
        columns = ((cluster[:half], points[cluster[0]][0] / 1.16), (cluster[half:], points[cluster[-1]][0] * 1.16))
        for column, cost in columns:
            column = sorted(column, key=lambda i: points[i][1])
            heights = spread([points[i][1] for i in column], apart)
            for i, height in zip(column, heights, strict=True):
                places[i] = (cost, height)
    return places


def spread(heights: Sequence[float], apart: float, low: float = 2.5, high: float = 97.0) -> list[float]:
    """Sorted heights, moved as little as needed so that neighbours are `apart` and all lie between `low` and `high`."""
    room = math.inf if len(heights) < 2 else (high - low) / (len(heights) - 1)
    apart, blocks = min(apart, room), []  # a block: the wished height of its lowest member, and how many it has
    for height in heights:
        blocks.append((height, 1))
        while len(blocks) > 1 and blocks[-1][0] < blocks[-2][0] + apart * blocks[-2][1]:
            (first, n), (second, m) = blocks[-2:]
            blocks[-2:] = [((n * first + m * (second - apart * n)) / (n + m), n + m)]
    placed = [first + apart * k for first, n in blocks for k in range(n)]
    for k in range(len(placed)):
        placed[k] = max(placed[k], low + apart * k)
    for k in range(len(placed)):
        placed[-1 - k] = min(placed[-1 - k], high - apart * k)
    return placed

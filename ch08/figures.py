"""A figure of this chapter: what accuracy costs in tokens."""

from collections.abc import Sequence
from itertools import combinations

from matplotlib.axes import Axes

from shared.evaluation.ledger import is_usual, paired_rows, point_of
from shared.plots import COLOURS, new_figure, reach


def plot_accuracy_against_tokens() -> Axes:
    """Problems solved against tokens generated for one, with 95 % intervals.

    Of each measurement of the tiny model on MiniMath the reader's own row counts, else the reference.
    """
    rows = [own or reference for own, reference in paired_rows()]
    rows = [row for row in rows if is_usual(row) and row["tokens_per_problem"]]
    if not rows:
        raise ValueError("The ledger has no measurement of the tiny model: run a chapter's notebook first.")
    points = [(row["chapter"], row["method"], row["tokens_per_problem"], point_of(row)) for row in rows]
    x_label = "tokens generated for a problem (logarithmic)"
    return accuracy_against_cost(points, title="What accuracy costs", x_label=x_label)


def accuracy_against_cost(
    points: Sequence[tuple[str, str, float, tuple[float, float, float]]], *, title: str, x_label: str
) -> Axes:
    """Points with intervals over a logarithmic axis of cost, numbered, with the numbers' names beneath.

    A point is (group, name, cost, (value, low, high)), the last three in [0, 1]; a group has one colour and marker.
    """
    groups = list(dict.fromkeys(group for group, *_ in points))
    costs = [cost for _, _, cost, _ in points]
    heights = _apart([(cost, 100 * value) for _, _, cost, (value, _, _) in points])
    _, axes = new_figure(title, x_label, "problems solved, %", figsize=(7.0, 3.6 + 0.2 * -(-len(points) // 2)))
    beside = {"xytext": (8, 0), "textcoords": "offset points", "fontsize": 9, "va": "center"}
    for number, ((group, name, cost, point), height) in enumerate(zip(points, heights, strict=True), start=1):
        place = groups.index(group) % len(COLOURS)
        style = {"color": COLOURS[place], "fmt": "osD^vX"[place], "label": f"{number} {group} {name}"}
        axes.errorbar(cost, 100 * point[0], yerr=reach([point]), capsize=2, **style)
        axes.annotate(str(number), (cost, height), color=COLOURS[place], **beside)
    axes.set(xscale="log", ylim=(0, 100))
    ticks = [5, 10, 20, 50, 100, 200, 500, 1000, 2000]
    ticks = [tick for tick in ticks if min(costs) / 1.5 <= tick <= 1.5 * max(costs)]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.figure.legend(loc="outside lower left", ncols=2, frameon=False, fontsize=8.5)
    return axes


def _apart(places: Sequence[tuple[float, float]]) -> list[float]:
    """Heights for the labels of points, so that those of points of similar cost do not cover one another."""
    heights = [height for _, height in places]
    order = sorted(range(len(places)), key=lambda i: places[i][1])
    near = [(i, j) for i, j in combinations(order, 2) if 0.75 < places[i][0] / places[j][0] < 1 / 0.75]
    for _ in range(200):  # neighbours push each other, until all have room below the top
        for below, above in near:
            push = max(0.0, 5 - heights[above] + heights[below]) / 2
            heights[below], heights[above] = heights[below] - push, heights[above] + push
        heights = [min(height, 97.0) for height in heights]
    return heights

"""The drawn figures: every text stays inside its box, nothing overlaps, nothing is cut off or too small to read."""

from __future__ import annotations

import warnings
from itertools import combinations

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import pytest
from matplotlib.patches import FancyBboxPatch
from nbclient import NotebookClient

from ch01 import figures
from ch01.diagrams import WIDTH, box, canvas, label
from ch01.figures import PARTS
from tools.cells import make_notebook

FIGURES = (
    figures.training_pipeline,
    figures.answers_after_stages,
    figures.three_approaches,
    figures.rlhf_and_rlvr,
    figures.course_roadmap,
    figures.chapter_steps,
)
MARGIN = 2  # pixels between a text and the border of its box


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def overlap(one, other) -> bool:
    """Whether two boxes share more than a pixel in both directions."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return width > 1 and height > 1


def inside(inner, outer, margin: float = 0) -> bool:
    return (
        inner.x0 >= outer.x0 + margin
        and inner.x1 <= outer.x1 - margin
        and inner.y0 >= outer.y0 + margin
        and inner.y1 <= outer.y1 - margin
    )


def layout_problems(figure) -> list[str]:
    """What a reader would see as a fault of the drawing, by the extents that the renderer gives."""
    figure.canvas.draw()
    axes = figure.axes[0]
    extent = {shape.get_gid(): shape.get_window_extent() for shape in axes.patches if boxed(shape)}
    texts = [(text, text.get_window_extent()) for text in axes.texts]
    free = [(text.get_text(), place) for text, place in texts if text.get_gid() is None]
    problems = [
        f"{text.get_text()!r} leaves its box"
        for text, place in texts
        if text.get_gid() is not None and not inside(place, extent[text.get_gid()], MARGIN)
    ]
    problems += [f"{words!r} leaves the figure" for words, place in free if not inside(place, figure.bbox)]
    problems += [f"{name} leaves the figure" for name, place in extent.items() if not inside(place, figure.bbox)]
    places = [*free, *extent.items()]
    problems += [
        f"{one!r} and {other!r} overlap"
        for (one, place), (other, place_2) in combinations(places, 2)
        if overlap(place, place_2)
    ]
    problems += [
        f"{one.get_text()!r} and {other.get_text()!r} overlap"
        for (one, place), (other, place_2) in combinations(texts, 2)
        if overlap(place, place_2)
    ]
    problems += [f"{text.get_text()!r} is too small" for text, _ in texts if text.get_fontsize() < 9]
    return problems


def boxed(shape) -> bool:
    return isinstance(shape, FancyBboxPatch)


@pytest.mark.parametrize("draw", FIGURES, ids=lambda draw: draw.__name__)
def test_a_figure_is_drawn_without_warning_and_every_text_fits(draw):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw()
        assert layout_problems(figure) == []
    assert figure.get_size_inches()[0] == WIDTH


def test_faults_of_a_drawing_are_found():
    axes = canvas(2.0)
    box(axes, 0.1, 0.2, 1.0, 0.5, "much too long for a box of this width")
    box(axes, 0.9, 0.2, 1.0, 0.5, "beside")
    label(axes, 4.0, 1.5, "free")
    label(axes, 4.1, 1.5, "too near", fontsize=7)
    label(axes, 6.95, 1.0, "cut off")
    found = layout_problems(axes.figure)
    for words in ("'much too long for a box of this width' leaves its box", "'box 0' and 'box 1' overlap"):
        assert words in found
    assert {"'free' and 'too near' overlap", "'too near' is too small", "'cut off' leaves the figure"} <= set(found)


def test_the_roadmap_holds_the_eight_chapters_with_four_steps_each():
    chapters = [chapter for part in PARTS.values() for chapter in part]
    assert [chapter.number for chapter in chapters] == list(range(1, 9))
    assert all(len(set(chapter.steps)) == 4 for chapter in chapters)


def test_the_comparison_has_one_cell_for_each_approach():
    assert {len(cells) for cells in figures.APPROACHES.values()} == {3}


def test_the_illustration_says_that_it_is_one():
    words = [text.get_text() for text in figures.answers_after_stages().axes[0].texts]
    assert any("illustration" in text for text in words)


def test_every_figure_of_a_notebook_shows_and_not_only_the_first(root):
    """The style is a context that restores all settings; the notebook backend's interactive mode must survive it."""
    cell = "from shared.plots import new_figure\nfigure, axes = new_figure()"
    notebook = make_notebook([("code", cell), ("code", cell)])
    NotebookClient(notebook, resources={"metadata": {"path": str(root)}}, kernel_name="python3").execute()
    shown = [any("image/png" in output.get("data", {}) for output in cell.outputs) for cell in notebook.cells]
    assert shown == [True, True]

"""The plots of a data set hold what was counted by hand, and outlines are drawn where the shapes are."""

import base64
import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from steel_core import render
from steel_core.render import data_plots
from steel_core.render.plots import alternative
from steel_core.types import Box


def test_a_distribution_is_the_share_of_each_class_in_each_bin():
    rng = np.random.default_rng(0)
    values = {"rust <b>": rng.normal(0, 1, 900), "clear": rng.normal(1, 1, 100), "none": np.zeros(0)}
    figure = data_plots.distributions(values, "brightness", "brightness")
    assert figure.layout.meta["name"] == "brightness"
    for trace, result in zip(figure.data, values.values(), strict=True):
        half = (trace.x[1] - trace.x[0]) / 2
        counted = [((result >= x - half) & (result < x + half)).mean() if len(result) else 0 for x in trace.x[:-1]]
        np.testing.assert_allclose(trace.y[:-1], counted, atol=1e-9)
        assert sum(trace.y) == pytest.approx(1 if len(result) else 0)
    assert "<b>" not in figure.data[0].hovertemplate
    assert "(n = 900)" in alternative(figure)


def test_places_of_defects_are_counted_cell_by_cell():
    rows, columns = np.array([0.01, 0.01, 0.99, np.nan]), np.array([0.02, 0.02, 0.51, 0.5])
    counts = np.array(data_plots.defect_places(rows, columns).data[0].z)
    assert (counts[0, 0], counts[-1, 10], counts.sum()) == (2, 1, 3)


def test_a_map_of_many_classes_draws_every_image_once():
    rng = np.random.default_rng(1)
    by = pd.Series([f"class {i % 11}" for i in range(200)]).astype("category")
    figure = data_plots.feature_map(rng.normal(size=(200, 2)), [f"{i}" for i in range(200)], by, "label")
    assert sum(len(trace.x) for trace in figure.data) == 200
    assert figure.data[-1].name.startswith("others")
    assert len({(trace.marker.color, trace.marker.symbol) for trace in figure.data}) == len(figure.data)
    figure = data_plots.feature_map(rng.normal(size=(3, 2)), ["a", "b", "c"], pd.Series([1.0, np.nan, 3.0]), "loss")
    assert len(figure.data[0].x) == 3


def test_every_tile_of_a_strip_is_marked_once():
    tiles = [Box("", x, 0, x + 100, 100) for x in range(0, 500, 100)]
    outcomes = ["clear", "rust", "refer", "clear", "unfamiliar"]
    figure = data_plots.strip_tiles(np.zeros((50, 250, 3), np.uint8), (100, 500), tiles, outcomes, 1)
    assert sorted(i for trace in figure.data for i in trace.customdata) == [1, 2, 3, 4, 5]  # as the page counts
    assert "3 of them not clear" in alternative(figure)


@pytest.mark.parametrize("turned", [False, True])
def test_the_marks_of_a_strip_lie_on_their_tiles_whichever_way_it_lies(turned):
    """Two rows of five tiles; one of them is painted white, and there its mark must be."""
    tiles = [Box("", x, y, x + 100, y + 50) for y in (0, 50) for x in range(0, 500, 100)]
    picture, size = np.zeros((50, 250, 3), np.uint8), (100, 500)
    picture[:25, 50:100] = 255
    if turned:
        tiles = [Box("", box.ymin, box.xmin, box.ymax, box.xmax) for box in tiles]
        picture, size = picture.swapaxes(0, 1), (500, 100)
    outcomes = ["rust" if i == 1 else "clear" for i in range(10)]
    figure = data_plots.strip_tiles(picture, size, tiles, outcomes, 1)
    (mark,) = (trace for trace in figure.data if trace.name.startswith("rust"))
    drawn = figure.layout.images[0]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(drawn.source.partition(",")[2]))))
    column, row = int(mark.x[0] / drawn.sizex * pixels.shape[1]), int(mark.y[0] / drawn.sizey * pixels.shape[0])
    assert pixels[row, column].tolist() == [255] * 3 and pixels.mean() < 30
    assert (drawn.sizex, drawn.sizey, mark.x[0]) == (500, 100, 150)


def test_outlines_lie_on_the_edge_of_their_shapes_in_the_colour_of_their_class():
    picture = np.full((100, 200, 3), 128, np.uint8)
    mask = np.zeros((50, 100), bool)
    mask[10:30, 40:80] = True  # rows 20 to 59, columns 80 to 159 of the picture
    signs = render.assign_signs(["rust", "scratch"])
    drawn = render.draw_annotations(picture, {"rust": mask}, [Box("scratch", 5, 5, 20, 40)], (50, 100), signs)
    assert (picture == 128).all()
    assert np.abs(drawn[59, 120].astype(int) - signs["rust"].colour).max() < 40
    assert np.abs(drawn[79, 25].astype(int) - signs["scratch"].colour).max() < 40
    assert (drawn[40, 120] == 128).all() and (drawn[90, 180] == 128).all()  # inside, and far away
    changed = (drawn != 128).any(axis=2)
    assert not changed[:, 165:].any() and not changed[85:].any()
    assert signs["rust"].number != signs["scratch"].number

"""Plots as PNG: every plot of an evaluation becomes a picture that shows its data, without a browser."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from steel_core.metrics import confusion_table, curves, decisions, segments
from steel_core.render import audit_plots, evaluation_plots, plots
from steel_core.render.plot_png import png, pngs


def opened(content):
    return Image.open(io.BytesIO(content))


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    scores = np.clip(labels * 0.4 + rng.random(200) * 0.6, 0, 1)
    probs = np.stack([1 - scores, scores], axis=1)
    names, wrong = np.array(["<b>rust", "clear"]), probs.argmax(axis=1) != labels
    cells = confusion_table(list(names[labels]), list(names[probs.argmax(axis=1)]), [*names, "never"])
    cost = decisions.threshold_curve(probs, labels, list(names), "clear", decisions.Costs(), {})
    weak = segments.weak_segments(wrong, pd.DataFrame({"brightness": rng.random(200)}))
    doses = pd.DataFrame(
        {"words": ["<b>blot", "ring"], "excess": [0.1, np.nan], "low": [0.0, -1.0], "high": [0.3, 1.0], "n": [9, 0],
         "proved": [True, False]}
    )  # fmt: skip
    return {
        "Confusion matrix": evaluation_plots.confusion_matrix(cells),
        "ROC": evaluation_plots.roc({"a": curves.roc_points(scores, labels == 1)}),
        "Calibration": evaluation_plots.reliability({"after": curves.reliability_bins(probs, labels)}, {"after": 0.1}),
        "Scores": evaluation_plots.score_histogram(curves.score_histogram(scores, labels == 1), "a"),
        "Losses": evaluation_plots.loss_histogram(curves.loss_histogram(1 - scores, wrong)),
        "Risk": evaluation_plots.risk_coverage({"a": curves.risk_coverage(scores, ~wrong)}),
        "Costs": evaluation_plots.threshold_costs(cost, "clear", 0.7),
        "Weak segments": evaluation_plots.segments(weak),
        "Flips": audit_plots.flip_rates({"stain": (0.4, 0.3, 0.5), "control": (0.1, 0.05, 0.2)}, 40, "stain"),
        "Doses": audit_plots.doses(doses),
    }


def test_every_plot_becomes_a_wide_picture_with_its_sentence(drawn):
    for (name, content), figure in zip(pngs(drawn).items(), drawn.values(), strict=True):
        picture = opened(content)
        assert picture.size[0] == 1500, name
        assert picture.text["Description"] == plots.alternative(figure)
        assert np.asarray(picture.convert("L")).std() > 5, name
    assert list(pngs(drawn))[:2] == ["confusion-matrix.png", "roc.png"]


def test_bars_stand_where_the_images_are():
    """All images of the class are likely, all others unlikely: blue on the right, orange on the left, nothing else."""
    table = curves.score_histogram(np.r_[np.full(40, 0.9), np.full(40, 0.1)], np.repeat([True, False], 40))
    pixels = np.asarray(opened(png(evaluation_plots.score_histogram(table, "a"))).convert("RGB")).astype(int)
    plot = pixels[: int(0.8 * len(pixels))]  # above the legend
    blue = (plot[..., 2] - plot[..., 0] > 60).any(axis=0).nonzero()[0]
    orange = (plot[..., 0] - plot[..., 2] > 60).any(axis=0).nonzero()[0]
    assert blue.min() > 1200 and blue.max() < 1450
    assert orange.min() > 100 and orange.max() < 400


def test_a_cell_of_few_images_is_grey_and_a_full_one_dark():
    cells = confusion_table(["a"] * 40 + ["b"] * 5, ["a"] * 45, ["a", "b"])
    pixels = np.asarray(opened(png(evaluation_plots.confusion_matrix(cells))).convert("RGB"))
    colours = {tuple(c) for c in pixels[::7, ::7].reshape(-1, 3)}
    assert (0, 114, 178) in colours and (201, 206, 211) in colours

"""What the plots show is what the tables hold; nothing of the data acts as markup."""

import json

import numpy as np
import pandas as pd
import pytest

from steel_core import metrics
from steel_core.metrics import curves, decisions, segments
from steel_core.render import evaluation_plots, plots

EVIL = "<b onclick=x>rust</b>"


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 120)
    sure = rng.beta(5, 2, 120)
    return np.where(np.arange(2) == labels[:, None], sure[:, None], 1 - sure[:, None]), labels


def all_plots(probs, labels, name=EVIL):
    classes = [name, "clear"]
    called = np.array(classes)[probs.argmax(axis=1)]
    cells = metrics.confusion_table(list(np.array(classes)[labels]), list(called), classes)
    roc = curves.roc_points(probs[:, 0], labels == 0)
    costs = decisions.threshold_curve(probs, labels, classes, name, decisions.Costs(), {})
    wrong = probs.argmax(axis=1) != labels
    weak = segments.weak_segments(wrong, pd.DataFrame({"camera": [name] * 60 + ["other"] * 60}))
    return {
        "confusion": evaluation_plots.confusion_matrix(cells),
        "reliability": evaluation_plots.reliability(
            {"after": curves.reliability_bins(probs, labels)}, {"after": 0.0123}
        ),
        "roc": evaluation_plots.roc({name: roc}, {name: 0.987}),
        "pr": evaluation_plots.precision_recall({name: curves.precision_recall_points(probs[:, 0], labels == 0)}),
        "histogram": evaluation_plots.score_histogram(curves.score_histogram(probs[:, 0], labels == 0), name),
        "risk": evaluation_plots.risk_coverage({name: curves.risk_coverage(probs.max(axis=1), ~wrong)}),
        "costs": evaluation_plots.threshold_costs(costs, name, 0.7),
        "segments": evaluation_plots.segments(weak),
    }


def test_every_plot_has_a_sentence_and_no_markup_from_data(case):
    for name, figure in all_plots(*case).items():
        assert len(plots.alternative(figure)) > 30, name
        drawn = json.loads(figure.to_json())
        drawn["layout"]["meta"] = None  # read by the page, which escapes it; Plotly does not draw it
        assert "<b onclick" not in json.dumps(drawn), name
        assert figure.layout.paper_bgcolor == "rgba(0,0,0,0)", name


def test_the_matrix_shows_the_cells(case):
    probs, labels = case
    names = np.array(["a", "b"])
    cells = metrics.confusion_table(list(names[labels]), list(names[probs.argmax(axis=1)]), ["a", "b"])
    drawn = evaluation_plots.confusion_matrix(cells).data[0]
    np.testing.assert_allclose(np.asarray(drawn.z, float).ravel(), cells["share"])
    assert [text.split("<br>")[0] for row in drawn.text for text in row] == [f"{share:.1%}" for share in cells["share"]]


def test_cells_of_few_images_have_no_colour_but_their_text():
    cells = metrics.confusion_table(["a"] * 40 + ["b"] * 5, ["a"] * 43 + ["b"] * 2, ["a", "b", "c"])
    figure = evaluation_plots.confusion_matrix(cells)
    z = np.asarray(figure.data[0].z, float)
    assert not np.isnan(z[0]).any()
    assert np.isnan(z[1:]).all()
    assert len(figure.layout.annotations) == 6
    assert any("no images" in note.text for note in figure.layout.annotations)


def test_curves_are_drawn_point_by_point(case):
    probs, labels = case
    table = curves.roc_points(probs[:, 0], labels == 0)
    band, line = evaluation_plots.roc({"a": table}).data[:2]
    np.testing.assert_allclose(line.y, table["true_positive_rate"])
    assert band.fill == "toself"
    two = evaluation_plots.roc({"a": table, "b": table}, {"a": 0.5, "b": None})
    assert [trace.name for trace in two.data] == ["a (0.500)", "b", "chance"]


def test_dots_keep_order_and_intervals_and_tell_yardsticks_apart():
    figure = evaluation_plots.dots({"good<b>": (0.9, 0.8, 0.95), "poor": (0.5, 0.4, 0.7)}, "Accuracy", ["poor"])
    (dots,) = figure.data
    assert list(dots.y) == ["poor", "good&lt;b&gt;"]  # plotted from below
    assert list(dots.error_x.array) == pytest.approx([0.2, 0.05])
    assert list(dots.error_x.arrayminus) == pytest.approx([0.1, 0.1])
    assert list(dots.marker.symbol) == ["diamond-open", "circle"]
    assert "good<b> 0.900 (0.800 to 0.950)" in plots.alternative(figure)

"""What the plots show is what the tables hold; nothing of the data acts as markup."""

import json

import numpy as np
import pandas as pd
import pytest

from steel_core import metrics
from steel_core.metrics import curves, decisions, segments
from steel_core.render import plots

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
    roc = curves.roc(probs[:, 0], labels == 0)
    costs = decisions.threshold_curve(probs, labels, classes, name, decisions.Costs(), {})
    wrong = probs.argmax(axis=1) != labels
    weak = segments.weak_segments(wrong, pd.DataFrame({"camera": [name] * 60 + ["other"] * 60}))
    return {
        "confusion": plots.confusion_matrix(cells),
        "counts": plots.confusion_matrix(cells, shares=False),
        "reliability": plots.reliability({"after": curves.reliability(probs, labels)}, {"after": 0.0123}),
        "roc": plots.roc({name: roc}, {name: 0.987}),
        "pr": plots.precision_recall({name: curves.precision_recall(probs[:, 0], labels == 0)}),
        "histogram": plots.score_histogram(curves.score_histogram(probs[:, 0], labels == 0), name),
        "risk": plots.risk_coverage({name: curves.risk_coverage(probs.max(axis=1), ~wrong)}),
        "costs": plots.threshold_costs(costs, name, 0.7),
        "segments": plots.segments(weak),
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
    drawn = plots.confusion_matrix(cells).data[0]
    np.testing.assert_allclose(np.asarray(drawn.z, float).ravel(), cells["share"])
    counts = plots.confusion_matrix(cells, shares=False).data[0]
    assert [text.split("<br>")[0] for row in counts.text for text in row] == [str(n) for n in cells["n"]]


def test_cells_of_few_images_have_no_colour_but_their_text():
    cells = metrics.confusion_table(["a"] * 40 + ["b"] * 5, ["a"] * 43 + ["b"] * 2, ["a", "b", "c"])
    figure = plots.confusion_matrix(cells)
    z = np.asarray(figure.data[0].z, float)
    assert not np.isnan(z[0]).any()
    assert np.isnan(z[1:]).all()
    assert len(figure.layout.annotations) == 6
    assert any("no images" in note.text for note in figure.layout.annotations)


def test_curves_are_drawn_point_by_point(case):
    probs, labels = case
    table = curves.roc(probs[:, 0], labels == 0)
    band, line = plots.roc({"a": table}).data[:2]
    np.testing.assert_allclose(line.y, table["true_positive_rate"])
    assert band.fill == "toself"
    two = plots.roc({"a": table, "b": table}, {"a": 0.5, "b": None})
    assert [trace.name for trace in two.data] == ["a (0.500)", "b", "chance"]

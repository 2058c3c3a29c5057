"""Several classes in one image: figures against scikit-learn and by hand, thresholds and outcomes their promise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit
from sklearn import metrics as oracle

from steel_core import metrics
from steel_core.errors import DataError
from steel_core.metrics import multi_label
from steel_core.types import CLEAR, DEFECT, REFER

CLASSES = ("hole", "scratch", "stain")


def evaluated(probs, truth, classes=CLASSES, lines=None, said=None, groups=None):
    lines = lines or {}
    outcomes = multi_label.decide_outcomes(probs, classes, lines) if said is None else said
    return multi_label.evaluate(probs, truth, classes, multi_label.named_types(probs, classes, lines), outcomes, groups)


@pytest.fixture
def case():
    """Probabilities with ties and the truth of 240 images; a quarter are clear."""
    rng = np.random.default_rng(4)
    truth = (rng.random((240, 3)) < 0.4).astype(float)
    truth[:60] = 0
    return np.round(expit(rng.normal(size=(240, 3)) + 3 * truth - 1.5), 2), truth


def test_the_truth_is_a_row_of_zeros_and_ones():
    result = multi_label.encode_targets(["scratch|hole", CLEAR, "", "stain", "stain|rust"], CLASSES)
    np.testing.assert_array_equal(result, [[1, 1, 0], [0, 0, 0], [np.nan] * 3, [0, 0, 1], [np.nan] * 3])


def test_classes_are_the_defect_types():
    assert multi_label.defect_types(("clear", "hole", "stain")) == ("hole", "stain")


def test_outcomes_by_hand():
    probs = np.array([[0.9, 0.8, 0.1], [0.3, 0.2, 0.1], [0.04, 0.05, 0.01], [0.65, 0.3, 0.3], [0.2, 0.75, 0.1]])
    lines = {"hole": 0.7, "scratch": 0.75, "stain": 0.5, CLEAR: 0.95}
    assert multi_label.named_types(probs, CLASSES, lines).tolist() == [
        [True, True, False], [False] * 3, [False] * 3, [False] * 3, [False, True, False],
    ]  # fmt: skip
    assert multi_label.decide_outcomes(probs, CLASSES, lines).tolist() == [DEFECT, REFER, CLEAR, REFER, DEFECT]
    without = {name: line for name, line in lines.items() if name != CLEAR}
    assert CLEAR not in multi_label.decide_outcomes(np.zeros((1, 3)), CLASSES, without), "no threshold, no clear sheet"
    both = {"hole": 0.01, "scratch": 0.5, "stain": 0.5, CLEAR: 0.5}
    assert multi_label.decide_outcomes(probs[2:3], CLASSES, both).tolist() == [DEFECT], "in doubt a sheet is held back"


def test_figures_equal_scikit_learn(case):
    probs, truth = case
    lines = dict.fromkeys(CLASSES, 0.5) | {CLEAR: 0.8}
    called = probs >= 0.5
    result = evaluated(probs, truth, lines=lines)
    values = {name: figure.value for name, figure in result.estimates.items()}
    assert values["mean_average_precision"] == pytest.approx(oracle.average_precision_score(truth, probs), abs=1e-12)
    assert values["auc"] == pytest.approx(oracle.roc_auc_score(truth, probs), abs=1e-12)
    assert values["macro_f1"] == pytest.approx(oracle.f1_score(truth, called, average="macro"), abs=1e-12)
    assert values["exact_match"] == pytest.approx(oracle.accuracy_score(truth, called), abs=1e-12)
    tables = oracle.multilabel_confusion_matrix(truth, called)
    for k, name in enumerate(CLASSES):
        (absent, false), (missed, there) = tables[k].tolist()
        assert result.tables[name] == {"found": there, "missed": missed, "false": false, "absent": absent}
        of = {key: figure.value for key, figure in result.per_class[name].items()}
        assert of == pytest.approx({
            "recall": oracle.recall_score(truth[:, k], called[:, k]),
            "precision": oracle.precision_score(truth[:, k], called[:, k]),
            "f1": oracle.f1_score(truth[:, k], called[:, k]),
            "auc": oracle.roc_auc_score(truth[:, k], probs[:, k]),
            "average_precision": oracle.average_precision_score(truth[:, k], probs[:, k]),
        }, abs=1e-12)  # fmt: skip
    for figure in (*result.estimates.values(), *(f for row in result.per_class.values() for f in row.values())):
        assert 0 <= figure.low <= figure.value <= figure.high <= 1


def test_weighted_means_equal_scikit_learn(case):
    probs, truth = case
    weights = np.random.default_rng(0).integers(0, 3, (4, len(probs))).astype(float)
    for mine, theirs in (
        (multi_label.mean_average_precision, oracle.average_precision_score),
        (multi_label.mean_auc, oracle.roc_auc_score),
    ):
        expected = [theirs(truth, probs, sample_weight=w) for w in weights]
        np.testing.assert_allclose(mine(probs, truth, weights), expected, rtol=1e-12)
    f1 = [oracle.f1_score(truth, probs >= 0.5, average="macro", sample_weight=w) for w in weights]
    np.testing.assert_allclose(multi_label.mean_f1((probs >= 0.5) * 1.0, truth, weights), f1, rtol=1e-12)


def test_sheets_by_hand():
    """Two defective sheets, one of them called clear; two clear ones, one of them called defective."""
    probs = np.array([[0.01, 0.02], [0.99, 0.6], [0.01, 0.01], [0.2, 0.9]])
    truth = np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    result = evaluated(probs, truth, ("hole", "scratch"), {CLEAR: 0.9})
    figures = {name: (figure.value, figure.n) for name, figure in result.estimates.items()}
    assert figures["escape"] == (0.5, 2)
    assert figures["false_call"] == (0.5, 2)
    assert figures["referred"] == (0.0, 4)
    assert figures["exact_match"] == (0.5, 4)
    said = ["refer", DEFECT, "unfamiliar", DEFECT]
    again = evaluated(probs, truth, ("hole", "scratch"), {CLEAR: 0.9}, said=said)
    assert {name: again.estimates[name].value for name in ("escape", "referred")} == {"escape": 0.0, "referred": 0.5}


def test_near_duplicates_widen_the_intervals(case):
    probs, truth = case
    alone = evaluated(probs, truth)
    grouped = evaluated(probs, truth, groups=[str(i // 24) for i in range(len(probs))])
    assert grouped.groups == 10
    for name in ("exact_match", "referred"):
        wide, narrow = grouped.estimates[name], alone.estimates[name]
        assert wide.value == narrow.value
        assert wide.high - wide.low > narrow.high - narrow.low


def test_types_without_both_sides_do_not_count():
    probs, truth = np.array([[0.9, 0.3], [0.2, 0.4]]), np.array([[1.0, 0.0], [0.0, 0.0]])
    result = evaluated(probs, truth, ("hole", "scratch"))
    assert result.estimates["mean_average_precision"].value == 1.0
    assert result.per_class["scratch"]["average_precision"].value is None
    none = evaluated(probs, np.zeros((2, 2)), ("hole", "scratch"))
    assert none.estimates["auc"].value is None
    assert none.estimates["escape"].n == 0
    with pytest.raises(DataError, match="at least one"):
        evaluated(probs[:0], truth[:0], ("hole", "scratch"))


def test_losses_and_temperature_are_those_of_each_class():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(3000, 3)) * 2
    truth = (rng.random((3000, 3)) < expit(logits)).astype(float)
    expected = [sum(oracle.log_loss([t], [p], labels=[0, 1]) for t, p in zip(row, probs, strict=True))
                for row, probs in zip(truth[:5], expit(logits[:5]), strict=True)]  # fmt: skip
    np.testing.assert_allclose(metrics.log_losses(logits[:5], truth[:5], "sigmoid"), expected, rtol=1e-9)
    assert np.isnan(metrics.log_losses(logits[:1], np.full((1, 3), np.nan), "sigmoid")).all()
    assert metrics.fit_temperature(logits * 3, truth, "sigmoid") == pytest.approx(3.0, rel=0.1)
    assert multi_label.mean_ece(expit(logits), truth)[0] < 0.03
    assert multi_label.mean_ece(expit(logits * 3), truth)[0] > 0.1


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float64, (40, 3), elements=st.floats(0, 1)),
    arrays(np.bool_, (40, 3)),
)
def test_thresholds_keep_their_promise_on_the_images_they_were_chosen_on(probs, there):
    truth = there.astype(float)
    lines = multi_label.fit_thresholds(probs, truth, CLASSES)
    said = multi_label.decide_outcomes(probs, CLASSES, lines)
    named = multi_label.named_types(probs, CLASSES, lines)
    assert ((said == DEFECT) == named.any(axis=1)).all()
    assert not ((said == CLEAR) & (probs.max(axis=1) > 0.5)).any()
    for k, name in enumerate(CLASSES):
        assert 0.5 <= lines[name] <= 0.99
        if lines[name] < 0.99 and named[:, k].any():
            assert truth[named[:, k], k].mean() >= 0.99
    if (said == CLEAR).any():
        assert truth[said == CLEAR].any(axis=1).mean() <= 0.01
    if truth.any(axis=1).all():
        assert not (said == CLEAR).any(), "of clear sheets nothing is known"

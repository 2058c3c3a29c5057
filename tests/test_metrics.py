"""Figures against scikit-learn, closed forms and simulation."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics as oracle

from steel_core import metrics
from steel_core.errors import DataError


@pytest.fixture
def case():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 4, 300)
    logits = rng.normal(size=(300, 4)) + 2.0 * np.eye(4)[labels]
    logits[::7] = np.round(logits[::7])  # ties
    return softmax(logits, axis=1), labels


def test_figures_equal_scikit_learn(case):
    probs, labels = case
    pred = probs.argmax(axis=1)
    report = metrics.evaluate(probs, labels, list("abcd"))
    assert report.accuracy == pytest.approx(oracle.accuracy_score(labels, pred), abs=1e-12)
    assert report.macro_recall == pytest.approx(oracle.balanced_accuracy_score(labels, pred), abs=1e-12)
    assert report.macro_f1 == pytest.approx(oracle.f1_score(labels, pred, average="macro"), abs=1e-12)
    assert report.auc == pytest.approx(oracle.roc_auc_score(labels, probs, multi_class="ovr"), abs=1e-12)
    assert report.confusion == oracle.confusion_matrix(labels, pred).tolist()


def test_weighted_auc_equals_scikit_learn_with_ties():
    rng = np.random.default_rng(0)
    scores, positive = np.round(rng.random(120), 1), rng.random(120) < 0.4
    weights = rng.integers(0, 3, (5, 120)).astype(float)
    found = metrics.auc(scores, positive, weights)
    expected = [oracle.roc_auc_score(positive, scores, sample_weight=w) for w in weights]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_auc_is_missing_where_only_one_class_occurs():
    report = metrics.evaluate(np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 0]), ["a", "b"])
    assert report.auc is None
    assert report.intervals["auc"] is None
    assert report.recall == {"a": 1.0, "b": None}
    assert report.macro_recall == 1.0


def test_ece_by_hand():
    probs = np.array([[0.95, 0.05], [0.95, 0.05], [0.55, 0.45], [0.3, 0.7]])
    labels = np.array([0, 1, 0, 1])
    # bins of 1/15: 0.95 twice (half right), 0.55 (right), 0.7 (right)
    expected = (2 * abs(0.5 - 0.95) + abs(1 - 0.55) + abs(1 - 0.7)) / 4
    assert metrics.ece(probs, labels)[0] == pytest.approx(expected, abs=1e-12)


def test_wilson_by_formula():
    low, high = metrics.wilson(0.8, 10)
    z, p, n = 1.959963984540054, 0.8, 10
    middle, half = (
        (p + z * z / (2 * n)) / (1 + z * z / n),
        z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n),
    )
    assert (low, high) == (pytest.approx(middle - half, abs=1e-9), pytest.approx(middle + half, abs=1e-9))


def test_a_perfect_result_still_has_a_lower_bound_below_one():
    labels = np.arange(60) % 3
    report = metrics.evaluate(np.eye(3)[labels] * 0.97 + 0.01, labels, list("abc"))
    assert report.macro_recall == 1.0
    assert 0.8 < report.intervals["macro_recall"][0] < 0.99
    assert report.intervals["macro_recall"][1] == 1.0


def test_groups_widen_the_interval():
    rng = np.random.default_rng(1)
    labels = np.arange(200) % 2
    right = np.repeat(rng.random(20) < 0.8, 10)
    probs = np.eye(2)[np.where(right, labels, 1 - labels)] * 0.8 + 0.1
    alone = metrics.evaluate(probs, labels, ["a", "b"]).intervals["accuracy"]
    grouped = metrics.evaluate(probs, labels, ["a", "b"], [str(i // 10) for i in range(200)]).intervals["accuracy"]
    assert grouped[1] - grouped[0] > 2 * (alone[1] - alone[0])


def test_macro_recall_interval_covers_the_truth():
    rng = np.random.default_rng(7)
    truth, n, runs, covered = np.array([0.9, 0.8, 0.95]), 60, 400, 0
    for _ in range(runs):
        hits = rng.binomial(n, truth)
        low, high = metrics._mover(list(hits / n), [metrics.wilson(h / n, n) for h in hits])
        covered += low <= truth.mean() <= high
    assert 0.92 <= covered / runs <= 0.99


def test_bootstrap_draws_whole_groups():
    weights = metrics.group_weights(["x", "x", "y", "z", "z", "z"], resamples=50)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 3] == weights[:, 5]).all()
    assert (weights[:, 0] + weights[:, 2] + weights[:, 3] == 3).all()


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_temperature_recovers_a_planted_one(head):
    rng = np.random.default_rng(5)
    logits = rng.normal(size=(4000, 3)) * 2
    probs = metrics.probabilities(logits, "softmax")
    labels = np.array([rng.choice(3, p=p) for p in probs])
    if head == "softmax":
        assert metrics.fit_temperature(logits * 2.5, labels, head) == pytest.approx(2.5, rel=0.1)
    else:
        sharper, duller = (metrics.fit_temperature(logits * s, labels, head) for s in (4.0, 1.0))
        assert sharper == pytest.approx(4 * duller, rel=0.05)


def test_thresholds_refer_what_was_wrong_on_validation():
    confidence = np.r_[np.linspace(0.99, 0.8, 50), [0.7, 0.65, 0.6]]
    probs = np.stack([confidence, 1 - confidence], axis=1)
    labels = np.r_[np.zeros(50, int), [1, 1, 1]]
    threshold = metrics.refer_thresholds(probs, labels)[0]
    assert threshold > 0.7
    assert (confidence[:50] >= threshold).mean() > 0.9


def test_thresholds_let_pass_where_all_is_right():
    confidence = np.linspace(0.99, 0.6, 100)
    probs = np.stack([confidence, 1 - confidence], axis=1)
    threshold = metrics.refer_thresholds(probs, np.zeros(100, int))[0]
    assert (confidence < threshold).sum() == 2  # the least typical two in a hundred


def test_no_sample_is_a_sentence():
    with pytest.raises(DataError, match="at least one"):
        metrics.evaluate(np.zeros((0, 2)), np.zeros(0, int), ["a", "b"])


def test_a_class_that_was_never_right_is_nearly_always_referred():
    probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
    thresholds = metrics.refer_thresholds(probs, np.array([1, 1, 1]))
    assert thresholds.tolist() == [0.99, 0.99]


@pytest.mark.parametrize(("sizes", "expected"), [([1] * 7, 7), ([7], 1), ([3, 3], 2), ([9, 1], 100 / 82)])
def test_effective_observations_by_hand(sizes, expected):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    assert metrics.effective_observations(groups) == pytest.approx(expected)


def test_wilson_grows_evenly_with_the_share_and_shrinks_with_n():
    lows = [metrics.wilson(share, 2.5)[0] for share in np.linspace(0, 1, 21)]
    assert lows == sorted(lows)
    assert metrics.wilson(0.9, 100)[0] > metrics.wilson(0.9, 20.5)[0]


def test_every_interval_holds_its_figure_and_none_is_a_point():
    rng = np.random.default_rng(11)
    for n in (10, 60, 200):
        labels = np.arange(n) % 3
        sure = np.eye(3)[labels] * 0.97 + 0.01
        random = softmax(rng.normal(size=(n, 3)) + 3 * np.eye(3)[labels], axis=1)
        for probs in (sure, random):
            report = metrics.evaluate(probs, labels, list("abc"))
            for name in ("accuracy", "macro_recall", "macro_f1", "auc", "ece"):
                low, high = report.intervals[name]
                assert 0 <= low <= getattr(report, name) <= high <= 1
                assert high - low > 0.001


def test_accuracy_interval_covers_the_truth_where_unequal_groups_err_together():
    rng = np.random.default_rng(5)
    sizes = np.array([40, 25, 12, 6] + [2] * 25 + [1] * 40)
    groups, truth, covered, runs = np.repeat(np.arange(len(sizes)), sizes), 0.85, 0, 500
    for _ in range(runs):
        share = np.repeat(rng.random(len(sizes)) < truth, sizes).mean()
        low, high = metrics.wilson(share, metrics.effective_observations(groups))
        covered += low <= truth <= high
    assert 0.90 <= covered / runs <= 0.99

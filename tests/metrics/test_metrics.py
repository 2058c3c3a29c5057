"""Figures against scikit-learn, closed forms and simulation."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from scipy.stats import binomtest, fisher_exact
from sklearn import metrics as oracle

from steel_core import metrics
from steel_core.errors import DataError, UsageError
from steel_core.metrics import classification, curves, decisions, segments


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
    result = classification.auc(scores, positive, weights)
    expected = [oracle.roc_auc_score(positive, scores, sample_weight=w) for w in weights]
    np.testing.assert_allclose(result, expected, rtol=1e-12)


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
    low, high = metrics.wilson_interval(0.8, 10)
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
        low, high = metrics.intervals.mover_interval(list(hits / n), [metrics.wilson_interval(h / n, n) for h in hits])
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
    probs = metrics.logits_to_probabilities(logits, "softmax")
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
    threshold = metrics.fit_refer_thresholds(probs, labels)[0]
    assert threshold > 0.7
    assert (confidence[:50] >= threshold).mean() > 0.9


def test_thresholds_let_pass_where_all_is_right():
    confidence = np.linspace(0.99, 0.6, 100)
    probs = np.stack([confidence, 1 - confidence], axis=1)
    threshold = metrics.fit_refer_thresholds(probs, np.zeros(100, int))[0]
    assert (confidence < threshold).sum() == 2  # the least typical two in a hundred


def test_no_sample_is_a_sentence():
    with pytest.raises(DataError, match="at least one"):
        metrics.evaluate(np.zeros((0, 2)), np.zeros(0, int), ["a", "b"])


def test_a_class_that_was_never_right_is_nearly_always_referred():
    probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
    thresholds = metrics.fit_refer_thresholds(probs, np.array([1, 1, 1]))
    assert thresholds.tolist() == [0.99, 0.99]


@pytest.mark.parametrize(("sizes", "expected"), [([1] * 7, 7), ([7], 1), ([3, 3], 2), ([9, 1], 100 / 82)])
def test_effective_observations_by_hand(sizes, expected):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    assert metrics.effective_observations(groups) == pytest.approx(expected)


def test_wilson_grows_evenly_with_the_share_and_shrinks_with_n():
    lows = [metrics.wilson_interval(share, 2.5)[0] for share in np.linspace(0, 1, 21)]
    assert lows == sorted(lows)
    assert metrics.wilson_interval(0.9, 100)[0] > metrics.wilson_interval(0.9, 20.5)[0]


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
        low, high = metrics.wilson_interval(share, metrics.effective_observations(groups))
        covered += low <= truth <= high
    assert 0.90 <= covered / runs <= 0.99


# Figures of each class, cells, losses ---------------------------------------------------------------------------------


def test_figures_of_each_class_equal_scikit_learn(case):
    probs, labels = case
    pred = probs.argmax(axis=1)
    result = metrics.per_class_estimates(probs, labels, list("abcd"))
    precision, recall, f1, support = oracle.precision_recall_fscore_support(labels, pred)
    for k, name in enumerate("abcd"):
        expected = {
            "recall": recall[k],
            "precision": precision[k],
            "f1": f1[k],
            "auc": oracle.roc_auc_score(labels == k, probs[:, k]),
            "average_precision": oracle.average_precision_score(labels == k, probs[:, k]),
        }
        assert {key: figure.value for key, figure in result[name].items()} == pytest.approx(expected, abs=1e-12)
        assert result[name]["recall"].n == support[k]
        for figure in result[name].values():
            assert 0 <= figure.low <= figure.value <= figure.high <= 1
            assert figure.high - figure.low > 0.005


def test_weighted_average_precision_equals_scikit_learn_with_ties():
    rng = np.random.default_rng(1)
    scores, positive = np.round(rng.random(120), 1), rng.random(120) < 0.4
    weights = rng.integers(0, 3, (5, 120)).astype(float)
    expected = [oracle.average_precision_score(positive, scores, sample_weight=w) for w in weights]
    np.testing.assert_allclose(classification.average_precision(scores, positive, weights), expected, rtol=1e-12)


def test_a_class_without_images_has_no_figures_and_says_so():
    result = metrics.per_class_estimates(np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 0]), ["a", "b"])
    assert result["b"]["recall"] == (None, 0.0, 1.0, 0, 0.0)
    assert result["b"]["f1"].value is None
    assert result["a"]["auc"].value is None
    assert str(result["b"]["recall"]) == "no such images, n = 0"


def test_cells_hold_counts_shares_and_intervals():
    actual, called = list("aaaabbb"), ["a", "a", "a", "b", "b", "refer", "b"]
    table = metrics.confusion_table(actual, called, ["a", "b"], ["a", "b", "refer"]).set_index(["actual", "predicted"])
    assert table["n"].tolist() == [3, 1, 0, 0, 2, 1]
    assert table.loc[("b", "b"), "share"] == pytest.approx(2 / 3)
    low, high = metrics.wilson_interval(2 / 3, 3)
    assert table.loc[("b", "b"), ["low", "high", "n_low", "n_high"]].tolist() == pytest.approx(
        [low, high, 3 * low, 3 * high]
    )
    assert table["few"].all()
    confused = metrics.most_confused(table.reset_index())
    assert confused[["actual", "predicted", "n"]].to_numpy().tolist() == [["a", "b", 1]], "to refer is no confusion"


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_losses_equal_torch(head):
    import torch
    import torch.nn.functional as F

    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(20, 3)) * 3, rng.integers(0, 3, 20)
    scaled, truth = torch.tensor(logits / 0.7), torch.tensor(labels)
    if head == "softmax":
        expected = F.cross_entropy(scaled, truth, reduction="none")
    else:
        hot = F.one_hot(truth, 3).double()
        expected = F.binary_cross_entropy_with_logits(scaled, hot, reduction="none").sum(dim=1)
    np.testing.assert_allclose(metrics.log_losses(logits, labels, head, 0.7), expected, rtol=1e-9)
    assert np.isnan(metrics.log_losses(logits, np.full(20, -1), head)).all()


def test_holm_by_hand():
    assert metrics.holm_correction([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert metrics.holm_correction([]) == []
    assert metrics.holm_correction([0.9, 0.8]) == [1.0, 1.0]


# Curves ---------------------------------------------------------------------------------------------------------------


def test_areas_under_the_curves_are_the_figures(case):
    probs, labels = case
    drawn = curves.roc_points(probs[:, 0], labels == 0)
    area = np.trapezoid(drawn["true_positive_rate"], drawn["false_positive_rate"])
    assert area == pytest.approx(classification.auc(probs[:, 0], labels == 0)[0], abs=1e-12)
    drawn = curves.precision_recall_points(probs[:, 0], labels == 0)
    steps = -np.diff(drawn["recall"]) * drawn["precision"].iloc[:-1]
    assert steps.sum() == pytest.approx(classification.average_precision(probs[:, 0], labels == 0)[0], abs=1e-12)
    for table, figure in ((curves.roc_points(probs[:, 0], labels == 0), "true_positive_rate"), (drawn, "precision")):
        assert ((table["low"] <= table[figure]) & (table[figure] <= table["high"])).all()


def test_curves_of_one_side_are_empty():
    scores = np.array([0.1, 0.9])
    assert curves.roc_points(scores, np.array([True, True])).empty
    assert curves.roc_points(scores, np.array([False, False])).empty
    assert curves.precision_recall_points(scores, np.array([False, False])).empty


def test_the_reliability_diagram_adds_up_to_the_ece(case):
    probs, labels = case
    table = curves.reliability_bins(probs, labels)
    gap = (table["n"] * (table["confidence"] - table["accuracy"]).abs()).sum() / table["n"].sum()
    assert gap == pytest.approx(metrics.ece(probs, labels)[0], abs=1e-12)
    assert table["n"].sum() == len(labels)


def test_temperature_lowers_the_ece_of_logits_that_are_too_sure():
    rng = np.random.default_rng(5)
    logits = rng.normal(size=(4000, 3)) * 2
    labels = np.array([rng.choice(3, p=p) for p in metrics.logits_to_probabilities(logits, "softmax")])
    before, after = (
        metrics.ece(metrics.logits_to_probabilities(logits * 3, "softmax", t), labels)[0] for t in (1.0, 3.0)
    )
    assert after < 0.03
    assert before > 0.1


def test_softmax_names_a_winner_where_sigmoid_finds_none():
    table = curves.compare_heads(np.array([-6.0, -3.0, -9.0]), ["a", "b", "c"])
    assert table["label"].tolist() == ["b", "a", "c"]
    assert table.loc[0, "softmax"] > 0.9
    assert table["sigmoid"].max() < 0.05


def test_risk_falls_as_coverage_does():
    confidence = np.array([0.9, 0.8, 0.8, 0.6])
    table = curves.risk_coverage(confidence, np.array([True, True, False, False]))
    assert table[["threshold", "coverage", "risk", "n"]].to_numpy().tolist() == [
        [0.9, 0.25, 0.0, 1.0], [0.8, 0.75, pytest.approx(1 / 3), 3.0], [0.6, 1.0, 0.5, 4.0]]  # fmt: skip
    assert curves.risk_coverage(np.zeros(0), np.zeros(0, bool)).empty


def test_histogram_counts_every_score_once():
    table = curves.score_histogram(np.array([0.0, 0.05, 0.5, 1.0]), np.array([True, False, True, True]), bins=2)
    assert table[["positive", "negative"]].to_numpy().tolist() == [[1, 1], [2, 0]]


# Decisions ------------------------------------------------------------------------------------------------------------


def test_costs_with_and_without_the_class_clear():
    costs = decisions.Costs(escape={"rust": 50}, false_call={"rust": 3}, refer=1)
    assert costs.matrix(["clear", "rust", "scratch"]).tolist() == [[0, 3, 1], [50, 0, 0], [1, 0, 0]]
    assert costs.matrix(["rust", "scratch"]).tolist() == [[0, 51], [4, 0]]
    with pytest.raises(UsageError):
        decisions.Costs(refer=-1)


def test_chosen_thresholds_cost_least_of_all_grids():
    """Every pair of thresholds tried by brute force."""
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 26)
    sure = rng.beta(4, 2, 26)
    probs = np.where(np.arange(2) == labels[:, None], sure[:, None], 1 - sure[:, None])
    costs = decisions.Costs(escape={"defect": 8}, false_call={"defect": 2}, refer=0.7)
    classes = ["clear", "defect"]

    def cost(lines):
        said = decisions.decide_outcomes(probs, classes, lines)
        return decisions.plant_estimates(said, labels, classes, costs)["cost_per_1000"].iloc[-1]

    chosen = decisions.choose_thresholds(probs, labels, classes, costs)
    grid = np.r_[np.unique(probs.max(axis=1)), 1.0]
    best = min(cost({"clear": a, "defect": b}) for a in grid for b in grid)
    assert cost(chosen) == pytest.approx(best)


def test_costs_move_thresholds_as_they_should():
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 2, 400)
    sure = rng.beta(5, 2, 400)
    probs = np.where(np.arange(2) == labels[:, None], sure[:, None], 1 - sure[:, None])
    classes = ["clear", "defect"]
    cheap, dear = (
        decisions.choose_thresholds(probs, labels, classes, decisions.Costs(escape={"defect": e}, refer=0.2))
        for e in (1, 100)
    )
    assert dear["clear"] > cheap["clear"]
    assert dear["defect"] == cheap["defect"]
    free = decisions.choose_thresholds(probs, labels, classes, decisions.Costs(refer=0))
    assert (decisions.decide_outcomes(probs, classes, free) == "refer").all(), (
        "a look that costs nothing is always taken"
    )


def test_a_class_never_predicted_gets_the_careful_threshold():
    probs = np.array([[0.9, 0.1], [0.8, 0.2]])
    chosen = decisions.choose_thresholds(probs, np.array([0, 1]), ["a", "b"], decisions.Costs())
    assert chosen["b"] == decisions.UNKNOWN_THRESHOLD


def test_escapes_and_false_calls_by_hand():
    classes = ["clear", "rust", "scratch"]
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 2])
    said = ["clear", "rust", "refer", "clear", "rust", "scratch", "unfamiliar", "clear"]
    table = decisions.plant_estimates(said, labels, classes, decisions.Costs(escape={"rust": 10}, refer=2)).set_index(
        "label"
    )
    assert table.loc["rust", ["escape", "escape_n"]].tolist() == [0.25, 4]
    assert table.loc["scratch", "escape"] == 1.0
    assert table.loc["all", ["escape", "escape_n"]].tolist() == [2 / 5, 5]
    assert table.loc["rust", ["false_call", "false_call_n"]].tolist() == [pytest.approx(1 / 3), 3]
    assert np.isnan(table.loc["clear", "escape"])
    assert table.loc["all", "referred"] == 2 / 8
    assert table.loc["all", "cost_per_1000"] == pytest.approx(1000 * (1 + 2 + 10 + 2 + 1) / 8)
    assert table["cost_per_1000"].iloc[:-1].sum() == pytest.approx(table.loc["all", "cost_per_1000"])


def test_a_model_without_clear_escapes_by_any_other_name():
    labels = np.array([0, 0, 1, 1])
    table = decisions.plant_estimates(["a", "b", "b", "refer"], labels, ["a", "b"]).set_index("label")
    assert table.loc["a", "escape"] == 0.5
    assert table.loc["b", "false_call"] == 0.5
    assert table.loc["all", ["escape", "false_call"]].tolist() == [0.25, 0.25]


def test_the_mix_of_production_weighs_the_costs():
    labels, said = np.array([0, 0, 1, 1]), ["clear", "clear", "clear", "defect"]
    costs = decisions.Costs(escape={"defect": 100})
    for share, expected in ((0.5, 25_000), (0.01, 500)):
        mix = {"clear": 1 - share, "defect": share}
        table = decisions.plant_estimates(said, labels, ["clear", "defect"], costs, mix)
        assert table["cost_per_1000"].iloc[-1] == pytest.approx(expected)
    with pytest.raises(UsageError, match="no image of rust"):
        decisions.plant_estimates(said, labels, ["clear", "defect", "rust"], costs, {"clear": 1, "rust": 1})


def test_the_threshold_curve_passes_through_the_figures():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 60)
    sure = rng.beta(4, 2, 60)
    probs = np.where(np.arange(2) == labels[:, None], sure[:, None], 1 - sure[:, None])
    classes, costs = ["clear", "defect"], decisions.Costs(escape={"defect": 8})
    curve = decisions.threshold_curve(probs, labels, classes, "clear", costs, {"defect": 0.6}, points=11)
    for row in curve.to_dict("records"):
        said = decisions.decide_outcomes(probs, classes, {"clear": row["threshold"], "defect": 0.6})
        assert row["cost_per_1000"] == pytest.approx(
            decisions.plant_estimates(said, labels, classes, costs)["cost_per_1000"].iloc[-1]
        )
        assert row["escape"] == pytest.approx(((labels == 1) & (said == "clear")).mean())
        assert row["referred"] == pytest.approx((said == "refer").mean())
    with pytest.raises(UsageError, match="unknown class"):
        decisions.threshold_curve(probs, labels, classes, "rust", costs, {})


@pytest.mark.parametrize("method", ["lac", "aps"])
def test_conformal_sets_keep_their_promise(method):
    rng = np.random.default_rng(8)
    result = []
    for _ in range(60):
        logits = rng.normal(size=(400, 4)) * 2
        labels = np.array([rng.choice(4, p=p) for p in softmax(logits, axis=1)])
        probs = softmax(logits * 1.7, axis=1)  # too sure: the promise must not need calibrated probabilities
        quantile = decisions.conformal_quantile(probs[:200], labels[:200], 0.9, method)
        sets = decisions.conformal_sets(probs[200:], quantile, method)
        result.append(decisions.estimate_coverage(sets, labels[200:])["coverage"].value)
    assert 0.89 <= np.mean(result) <= 0.93


def test_conformal_quantile_by_hand():
    probs = np.stack([np.linspace(0.5, 0.95, 10), np.linspace(0.5, 0.05, 10)], axis=1)
    labels = np.zeros(10, int)
    # scores 0.5, 0.45, ..., 0.05; ceil(11 x 0.8) = 9th smallest
    assert decisions.conformal_quantile(probs, labels, 0.8) == pytest.approx(0.45)
    assert decisions.conformal_quantile(probs, labels, 0.95) == float("inf")
    assert decisions.conformal_sets(probs, float("inf")).all()
    with pytest.raises(UsageError, match="between 0 and 1"):
        decisions.conformal_quantile(probs, labels, 1.0)
    with pytest.raises(UsageError, match="lac or aps"):
        decisions.conformal_quantile(probs, labels, 0.9, "magic")


# Weak segments --------------------------------------------------------------------------------------------------------


def test_a_planted_weak_range_is_found():
    rng = np.random.default_rng(0)
    brightness = rng.random(400)
    wrong = rng.random(400) < np.where(brightness < 0.25, 0.4, 0.03)
    table = segments.weak_segments(wrong, pd.DataFrame({"brightness": brightness, "contrast": rng.random(400)}))
    first = table.iloc[0]
    assert first["property"] == "brightness"
    assert first["end"] == pytest.approx(0.25, abs=0.05)
    assert first["weak"]
    assert table["weak"].sum() == 1
    assert len(table) == 8


def test_p_equals_fishers_exact_test():
    wrong = np.r_[np.ones(6), np.zeros(24), np.ones(3), np.zeros(67)].astype(bool)
    table = segments.weak_segments(wrong, pd.DataFrame({"camera": ["one"] * 30 + ["two"] * 70}))
    expected = fisher_exact([[6, 24], [3, 67]], alternative="greater").pvalue
    assert table.set_index("segment").loc["one", "p"] == pytest.approx(expected)


def test_chance_alone_is_rarely_called_weak():
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(60):
        properties = pd.DataFrame(rng.random((150, 6)), columns=list("abcdef"))
        alarms += segments.weak_segments(rng.random(150) < 0.1, properties)["weak"].any()
    assert alarms <= 7  # 5 % of 60 is 3


def test_near_duplicates_that_err_together_prove_little():
    wrong = np.r_[np.ones(12), np.zeros(88)].astype(bool)
    properties = pd.DataFrame({"brightness": np.r_[np.full(20, 0.1), np.full(80, 0.9)].astype(str)})
    alone = segments.weak_segments(wrong, properties)
    together = segments.weak_segments(wrong, properties, ["strip"] * 20 + [str(i) for i in range(80)])
    assert alone["weak"].any()
    assert not together["weak"].any()


def test_missing_properties_and_tiny_segments_are_passed_over():
    properties = pd.DataFrame({"area": [np.nan] * 40, "group": ["a"] * 37 + ["b"] * 3})
    assert segments.weak_segments(np.zeros(40, bool), properties).empty


def test_the_cost_of_sheets_has_an_interval_that_knows_how_few_were_seen():
    """24 sheets a class, none wrong: an escape at 100 cannot be excluded below Wilson's upper end of 0 in 24."""
    labels = np.repeat([0, 1], 24)
    said = np.array(["clear", "defect"], dtype=object)[labels]
    costs = decisions.Costs(escape={"defect": 100.0}, false_call={"defect": 0.0}, refer=0.0)
    table = decisions.plant_estimates(said, labels, ["clear", "defect"], costs).set_index("label")
    _, high = binomtest(0, 24).proportion_ci(method="wilson")
    assert table.loc["defect", "cost_per_1000"] == 0 and table.loc["defect", "cost_low"] == 0
    assert table.loc["defect", "cost_high"] == pytest.approx(1000 * 0.5 * 100 * high)
    assert table.loc["clear", "cost_high"] == 0
    assert table.loc["all", "cost_high"] == pytest.approx(table.loc["defect", "cost_high"])
    said[-6:] = "clear"
    table = decisions.plant_estimates(said, labels, ["clear", "defect"], costs).set_index("label")
    low, high = binomtest(6, 24).proportion_ci(method="wilson")
    assert table.loc["defect", ["cost_low", "cost_per_1000", "cost_high"]].to_list() == pytest.approx(
        [50_000 * low, 50_000 * 6 / 24, 50_000 * high]
    )


@pytest.mark.parametrize(
    ("figures", "beats"),
    [
        ({"support": {"a": 9, "b": 9, "c": 0}, "intervals": {"macro_recall": (0.51, 0.7)}}, True),
        ({"support": {"a": 9, "b": 9, "c": 0}, "intervals": {"macro_recall": (0.49, 0.9)}}, False),
        ({"support": {"a": 9}, "intervals": {"macro_recall": None}}, False),
        ({"multi_label": True, "intervals": {"auc": (0.6, 0.8)}}, True),
        ({"multi_label": True, "intervals": {"auc": (0.35, 0.65)}}, False),
        ({"multi_label": True, "intervals": {"auc": (None, None)}}, False),
    ],
)
def test_skill_is_shown_by_an_interval_above_chance(figures, beats):
    assert metrics.beats_chance(figures) is beats

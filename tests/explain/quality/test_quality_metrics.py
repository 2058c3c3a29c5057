"""Every metric against an oracle: hand-computed arrays, slow re-implementations, known extremes."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from explain.tiny_nets import LinearNet, noise, one_thread, tiny  # noqa: F401 - a fixture
from scipy import sparse, stats
from scipy.sparse.linalg import spsolve

from steel_core.explain.base import Explainer, ExplainerInfo
from steel_core.explain.quality import faithfulness, localisation, randomisation, robustness
from steel_core.explain.quality.agreement import compare_methods, strongest_pixels
from steel_core.explain.quality.base import FAMILIES, METRICS, Case, attribute, rank_pixels, ranks, spearman
from steel_core.explain.quality.completeness import relative_error
from steel_core.explain.regions import dice
from steel_core.models.card import RegionRule

pytestmark = pytest.mark.usefixtures("one_thread")
H, W = 8, 9


def info(**facts):
    return ExplainerInfo(title="", plain="", source="", forward=1, backward=1, **facts)


@dataclass(frozen=True)
class TimesInput(Explainer):
    """Exact for a linear model: weight times input."""

    info: ClassVar[ExplainerInfo] = info(additive=True)

    def _attribute(self, query):
        weights, targets = query.model.head.weight.detach(), query.targets
        mixed = weights[targets] if not targets.is_floating_point() else targets @ weights
        return mixed.view_as(query.inputs) * query.inputs


@dataclass(frozen=True)
class Blind(Explainer):
    """A map that knows nothing of the model."""

    info: ClassVar[ExplainerInfo] = info(signed=False)

    def _attribute(self, query):
        return query.inputs.abs()


def linear(classes=3, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LinearNet(3 * H * W, classes).eval()


def case(model=None, explainer=None, n=4, **facts):
    model, explainer = model or linear(), explainer or TimesInput()
    inputs = noise(n, 1, H, W).expand(-1, 3, -1, -1).contiguous()
    targets = torch.arange(n) % 3
    values = attribute(explainer, model, inputs, targets)
    return Case(model, inputs, targets, explainer, values, **{"truth": (None,) * n, "head": "sigmoid"} | facts)


def _with(some, **changes):
    fields = {name: getattr(some, name) for name in some.__dataclass_fields__}
    return Case(**fields | changes)


@pytest.mark.parametrize("name", METRICS)
def test_contract(name):
    """What holds for every metric: a family, a source, one value an image, the map left as it was."""
    metric = METRICS[name]
    assert metric.family in FAMILIES
    assert metric.title
    assert metric.source
    truth = np.zeros((H, W), bool)
    truth[1:3, 2:5] = True
    some = case(truth=(truth, None, truth, truth), rule=RegionRule(mean=0.0, std=1.0, k=0.5, blur=0.0, smallest=0.0))
    before = some.values.copy()
    values = metric.measure(some)
    assert values.shape == (4,)
    np.testing.assert_array_equal(some.values, before)
    known = values[np.isfinite(values)]
    if metric.bounded:
        assert ((known >= 0) & (known <= 1)).all()
    if metric.family == "localisation":
        assert np.isnan(values).tolist() == [False, True, False, False]
        assert np.isnan(metric.chance(some)).tolist() == [False, True, False, False]
    np.testing.assert_array_equal(metric.measure(some), values)  # the same seed, the same figure


# ----- localisation

TRUTH = np.zeros((H, W), bool)
TRUTH[1:3, 2:6] = True  # 8 of 72 pixels


def test_a_map_equal_to_the_mask_is_perfect_and_its_opposite_is_nothing():
    perfect = case(n=1, truth=(TRUTH,), rule=RegionRule(mean=0.5, std=0.0, k=0.0, blur=0.0, smallest=0.0))
    for flipped, expected in ((False, 1.0), (True, 0.0)):
        shown = (TRUTH ^ flipped).astype(np.float32)
        one = _with(perfect, values=shown[None])
        for name in METRICS:
            if METRICS[name].family == "localisation":
                assert METRICS[name].measure(one)[0] == expected, name


def test_a_map_that_knows_nothing_reaches_chance():
    rule = RegionRule(mean=0.0, std=1.0, k=0.0, blur=0.0, smallest=0.0)
    flat = case(n=1, truth=(TRUTH,), rule=rule)
    flat = _with(flat, values=np.ones((1, H, W), np.float32))
    for name in METRICS:
        metric = METRICS[name]
        if metric.family == "localisation":
            assert metric.measure(flat)[0] == pytest.approx(metric.chance(flat)[0]), name


def test_chance_of_an_overlap_is_what_random_regions_have_on_average():
    rng = np.random.default_rng(0)
    truth = np.zeros((40, 50), bool)
    truth[:10] = True
    computed = [rng.permutation(2000).reshape(40, 50) < 600 for _ in range(200)]
    assert np.mean([dice(f, truth) for f in computed]) == pytest.approx(
        localisation._dice_by_chance(computed[0], truth), rel=0.02
    )
    assert np.mean([localisation.iou(f, truth) for f in computed]) == pytest.approx(
        localisation._iou_by_chance(computed[0], truth), rel=0.02
    )


def test_localisation_by_hand():
    shown = np.zeros((H, W), np.float32)
    shown[1, 2], shown[0, 0], shown[5, 5], shown[2, 5] = 4.0, 3.0, -9.0, 1.0
    assert localisation.pointing_game(shown, TRUTH) == 1
    assert localisation.pointing_game(-shown, TRUTH) == 0
    assert localisation.energy_inside(shown, TRUTH) == pytest.approx(5 / 8)
    assert localisation.energy_inside(-np.abs(shown), TRUTH) == 0
    computed = np.zeros((H, W), bool)
    computed[1, 2:6] = computed[0, :2] = True
    assert localisation.precision(computed, TRUTH) == pytest.approx(4 / 6)
    assert localisation.recall(computed, TRUTH) == pytest.approx(4 / 8)
    assert localisation.iou(computed, TRUTH) == pytest.approx(4 / 10)
    assert dice(computed, TRUTH) == pytest.approx(8 / 14)
    assert localisation.precision(np.zeros((H, W), bool), TRUTH) == 0


def test_rank_accuracy_against_a_sort():
    shown = np.random.default_rng(3).standard_normal((H, W)).astype(np.float32)
    strongest = np.argsort(-shown.ravel())[: TRUTH.sum()]
    assert localisation.rank_accuracy(shown, TRUTH) == pytest.approx(TRUTH.ravel()[strongest].mean())


# ----- faithfulness


def curve_by_hand(some, i, keep):
    """Trapezoid area under the sigmoid of a linear model, pixel groups replaced one step after the other."""
    weights, bias = some.model.head.weight.detach().numpy(), some.model.head.bias.detach().numpy()
    k = int(some.targets[i])
    image = some.inputs[i].numpy()
    other = np.zeros_like(image) if keep == "deletion" else faithfulness.blur_images(some.inputs)[i].numpy()
    start, end = (image, other) if keep == "deletion" else (other, image)
    sequence = np.argsort(-some.evidence[i].ravel(), kind="stable")
    probs = []
    for step in range(faithfulness.STEPS + 1):
        mixed = start.copy().reshape(3, -1)
        gone = sequence[: round(step / faithfulness.STEPS * H * W)]
        mixed[:, gone] = end.reshape(3, -1)[:, gone]
        probs.append(1 / (1 + np.exp(-(weights[k] @ mixed.ravel() + bias[k]))))
    return np.trapezoid(probs, dx=1 / faithfulness.STEPS)


@pytest.mark.parametrize("name", ["deletion", "insertion"])
def test_areas_of_a_linear_model_by_hand(name):
    some = case()
    measured = METRICS[name].measure(some)
    expected = [curve_by_hand(some, i, name) for i in range(len(some))]
    np.testing.assert_allclose(measured, expected, rtol=1e-6)


def test_the_exact_map_is_more_faithful_than_its_opposite():
    some = case(n=8)
    opposite = _with(some, values=-some.values)
    assert (METRICS["deletion"].measure(some) < METRICS["deletion"].measure(opposite)).all()
    np.testing.assert_allclose(METRICS["road"].measure(some), -METRICS["road"].measure(opposite), atol=2e-3)


def test_equal_pixels_fall_in_random_order_and_each_place_is_taken_once():
    place = rank_pixels(np.zeros((2, H, W), np.float32), 0)
    assert sorted(place[0].ravel().tolist()) == list(range(H * W))
    assert not (place[0].ravel() == np.arange(H * W)).all()
    shown = np.random.default_rng(0).standard_normal((2, H, W)).astype(np.float32)
    np.testing.assert_array_equal(rank_pixels(shown, 0)[1].ravel()[np.argsort(-shown[1].ravel())], np.arange(H * W))


def solved_directly(plane, gone):
    """Each unknown pixel is the weighted mean of its neighbours: one sparse system, solved exactly."""
    height, width = plane.shape
    number = np.full(plane.shape, -1)
    number[gone] = np.arange(gone.sum())
    matrix, right = sparse.lil_matrix((gone.sum(), gone.sum())), np.zeros(gone.sum())
    for y, x in zip(*np.nonzero(gone), strict=True):
        i = number[y, x]
        for v in range(max(0, y - 1), min(height, y + 2)):
            for u in range(max(0, x - 1), min(width, x + 2)):
                weight = 1 / 12 if v != y and u != x else 1 / 6
                if (v, u) == (y, x):
                    continue
                matrix[i, i] += weight
                if gone[v, u]:
                    matrix[i, number[v, u]] -= weight
                else:
                    right[i] += weight * plane[v, u]
    out = plane.astype(np.float64)
    out[gone] = spsolve(matrix.tocsc(), right)
    return out


@pytest.mark.parametrize("share", [0.2, 0.8])
@pytest.mark.parametrize("shape", [(40, 40), (33, 21)])
def test_imputation_against_a_direct_solver(share, shape, monkeypatch):
    monkeypatch.setattr(faithfulness, "_ROAD_NOISE", 0.0)
    rng = np.random.default_rng(0)
    plane = rng.standard_normal(shape).astype(np.float32)
    scattered = rng.random(shape) < share
    block = np.zeros(shape, bool)
    block[2 : 2 + int(shape[0] * share), : shape[1] - 3] = True
    filled = faithfulness.impute_pixels(np.stack([plane] * 3), [scattered, block])
    assert filled.shape == (2, 3, *shape)
    for gone, result in zip((scattered, block), filled, strict=True):
        np.testing.assert_array_equal(result[0], result[2])
        np.testing.assert_array_equal(result[0][~gone], plane[~gone])
        error = result[0] - solved_directly(plane, gone)
        assert np.sqrt(np.mean(error**2)) < 0.04 * plane.std()  # the noise of the method itself is a quarter of that


def test_imputation_of_a_plain_image_is_plain_and_colours_stay_apart():
    image = np.stack([np.full((20, 20), v, np.float32) for v in (1.0, 2.0, 3.0)])
    gone = np.random.default_rng(0).random((20, 20)) < 0.5
    np.testing.assert_allclose(faithfulness.impute_pixels(image, [gone])[0], image, atol=1e-4)


# ----- robustness


def test_relative_change_by_hand():
    a = np.array([[[3.0, 4.0]], [[0.0, 0.0]]], np.float32)
    b = np.array([[[3.0, 4.0 + 5.0]], [[0.0, 0.0]]], np.float32)
    np.testing.assert_allclose(robustness.relative_change(a, b), [1.0, 0.0])


def test_noise_moves_a_linear_map_by_the_weights_times_the_noise():
    some = case(std=0.2)
    draws = np.random.default_rng(0).standard_normal((H, W)) * (robustness.NOISE / 0.2)
    weights = some.model.head.weight.detach().numpy().reshape(3, 3, H, W).sum(axis=1)
    expected = [
        np.linalg.norm(weights[int(k)] * draws) / np.linalg.norm(values)
        for k, values in zip(some.targets, some.values, strict=True)
    ]
    measured = METRICS["noise-change"].measure(some)
    stands = np.isfinite(measured)
    assert stands.any()
    np.testing.assert_allclose(measured[stands], np.array(expected)[stands], rtol=1e-3)


def test_a_map_that_moves_with_its_image_does_not_change():
    steady = linear()
    with torch.no_grad():
        steady.head.weight.zero_()  # the bias alone decides: every prediction stands
    some = case(steady, Blind())
    np.testing.assert_allclose(METRICS["shift-change"].measure(some), 0, atol=1e-6)
    turned = _with(some, values=some.values[:, ::-1].copy())
    assert (METRICS["shift-change"].measure(turned) > 0.1).all()


def test_images_whose_prediction_falls_do_not_count():
    class Touchy(LinearNet):
        def classify(self, features):
            return super().classify(features) * (1 if torch.equal(features, first) else -1)

    some = case()
    first = some.model.features(some.inputs)
    fickle = Touchy(3 * H * W)
    fickle.load_state_dict(some.model.state_dict())
    assert np.isnan(METRICS["noise-change"].measure(_with(some, model=fickle))).all()


# ----- randomisation


def test_the_cascade_starts_at_the_head_and_keeps_the_weights_distribution():
    model = tiny()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    head = randomisation.randomise_model(model, 0.0)
    whole = randomisation.randomise_model(model, 1.0)
    for name, value in before.items():
        assert torch.equal(model.state_dict()[name], value)  # the model itself is left alone
        assert torch.equal(head.state_dict()[name], value) == (not name.startswith("head"))
        assert torch.equal(whole.state_dict()[name].flatten().sort().values, value.flatten().sort().values)
    assert not any(torch.equal(whole.state_dict()[n], v) for n, v in before.items() if n.endswith("weight"))
    half = randomisation.randomise_model(model, 0.67)  # the head and the last convolution
    assert torch.equal(half.state_dict()["features.0.weight"], before["features.0.weight"])
    assert not torch.equal(half.state_dict()["features.2.weight"], before["features.2.weight"])


def test_a_blind_map_survives_and_a_seeing_one_does_not():
    for name in ("randomised-head", "randomised-model", "randomised-model-ssim", "random-logit"):
        np.testing.assert_allclose(METRICS[name].measure(case(explainer=Blind())), 1, rtol=1e-6)
        assert METRICS[name].measure(case(n=8)).mean() < randomisation.SURVIVES


def test_ssim_of_equal_opposite_and_empty_maps():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((1, 16, 16)).astype(np.float32)
    assert randomisation.ssim(a, 5 * a)[0] == pytest.approx(1)
    assert randomisation.ssim(a, -a)[0] < 0.5
    assert randomisation.ssim(a, 0 * a)[0] == 0


# ----- completeness, agreement


def test_a_linear_models_map_sums_to_the_gap_and_a_scaled_one_does_not():
    some = case()
    np.testing.assert_allclose(METRICS["completeness-error"].measure(some), 0, atol=1e-5)
    tripled = _with(some, values=3 * some.values)
    np.testing.assert_allclose(METRICS["completeness-error"].measure(tripled), 0.5, atol=1e-5)
    assert np.isnan(METRICS["completeness-error"].measure(case(explainer=Blind()))).all()


def test_relative_error_by_hand():
    got = relative_error(np.array([2.0, 2.0, 1.0, 0.0]), np.array([2.0, -2.0, 3.0, 0.0]))
    np.testing.assert_allclose(got, [0, 1, 0.5, 0])


def test_rank_correlation_is_scipys():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, (2, 3, H, W)).astype(np.float32)  # with ties
    expected = [stats.spearmanr(x.ravel(), y.ravel()).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(spearman(a, b), expected, rtol=1e-9)
    assert spearman(a[:1], np.zeros((1, H, W)))[0] == 0
    np.testing.assert_allclose(np.square(ranks(a)).sum(axis=1), 1)


def test_agreement_by_hand():
    a = np.arange(100, dtype=np.float32).reshape(1, 10, 10)
    b = a.copy()
    b[0, 9, :5] = -1  # five of the strongest ten fall out
    computed = compare_methods({"a": a, "same": 2 * a, "b": b, "opposite": -a})
    assert computed["a", "same"][0] == pytest.approx(1)
    assert computed["a", "same"][1] == 1
    assert computed["a", "b"][1] == pytest.approx(5 / 15)
    assert computed["a", "opposite"][0] == pytest.approx(-1)
    assert computed["a", "opposite"][1] == 0
    assert strongest_pixels(a).sum() == 10

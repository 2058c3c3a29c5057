"""What every registered explainer promises, and that the shared model never notices."""

import random
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_nets import noise, one_thread, tiny  # noqa: F401
from torch import nn

import steel_core
from steel_core.errors import UsageError
from steel_core.explain.base import EXPLAINERS
from steel_core.explain.hooks import isolated
from steel_core.models.base import BACKBONES

pytestmark = [
    pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU"),
    pytest.mark.usefixtures("one_thread"),
]

HEIGHT, WIDTH, CLASSES = 40, 56, 4


@pytest.fixture
def model():
    torch.manual_seed(0)
    return BACKBONES["squeezenet-reduced"](classes=CLASSES).eval()


@pytest.fixture
def images():
    return noise(2, 3, HEIGHT, WIDTH)


BACKGROUND = noise(3, 3, HEIGHT, WIDTH, seed=5) * 0.1
TARGETS = torch.tensor([1, 3])
ASKING = [name for name in EXPLAINERS if not EXPLAINERS[name].info.control]
"""The methods that ask the model; a control does not."""


def explain(name, model, images, targets=TARGETS, seed=0):
    return EXPLAINERS[name]().attribute(model, images, targets, background=BACKGROUND, seed=seed)


def hooks_on(model):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [module for module in model.modules() if any(getattr(module, kind) for kind in kinds)]


def assert_untouched(model, before):
    assert not hooks_on(model)
    assert not any(module.training for module in model.modules())
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def snapshot(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_the_registry_is_not_empty():
    assert len(EXPLAINERS) >= 3


@pytest.mark.parametrize("name", EXPLAINERS)
def test_shape_type_and_signed_raw_values(name, model, images):
    values = explain(name, model, images)
    assert values.shape == (2, 1, HEIGHT, WIDTH)
    assert values.dtype == torch.float32
    assert values.device == images.device
    assert not values.requires_grad
    assert torch.isfinite(values).all()
    assert values.min() < 0 < values.max() or EXPLAINERS[name].info.control


@pytest.mark.parametrize("name", ASKING)
def test_values_are_not_normalised(name, model, images):
    """Ten times the logits make at least ten times the map."""
    before = explain(name, model, images).abs().max()
    with torch.no_grad():
        model.head.weight *= 10
        model.head.bias *= 10
    assert explain(name, model, images).abs().max() > 9.9 * before


@pytest.mark.parametrize("name", EXPLAINERS)
def test_a_map_does_not_depend_on_its_batch(name, model, images):
    together = explain(name, model, images)
    for row in range(2):
        alone = explain(name, model, images[row : row + 1], TARGETS[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-6 * together.abs().max().item())


@pytest.mark.parametrize("name", EXPLAINERS)
def test_the_target_matters_where_it_is_said_to(name, model, images):
    same = torch.equal(explain(name, model, images), explain(name, model, images, torch.tensor([0, 2])))
    assert same != EXPLAINERS[name].info.class_dependent


@pytest.mark.parametrize("name", EXPLAINERS)
def test_the_seed_decides(name, model, images):
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    first = explain(name, model, images, seed=3)
    random.seed(2), np.random.seed(2), torch.manual_seed(2)
    assert torch.equal(first, explain(name, model, images, seed=3))
    assert torch.equal(first, explain(name, model, images, seed=4)) != ("seed" in EXPLAINERS[name].info.needs)


@pytest.mark.parametrize("name", EXPLAINERS)
def test_global_random_numbers_are_left_alone(name, model, images):
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(1)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    explain(name, model, images)
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected


@pytest.mark.parametrize("name", EXPLAINERS)
def test_model_and_inputs_are_left_as_they_came(name, model, images):
    before, copy = snapshot(model), images.clone()
    explain(name, model, images)
    assert_untouched(model, before)
    assert torch.equal(images, copy)
    assert not images.requires_grad
    assert images.grad is None


@pytest.mark.parametrize("name", ASKING)
def test_model_is_left_as_it_came_by_a_failure(name, model, images, monkeypatch):
    class BrokenError(Exception):
        pass

    def broken(self, features):  # fails late, when all that could be set is set
        raise BrokenError

    before = snapshot(model)
    monkeypatch.setattr(type(model), "classify", broken)
    if EXPLAINERS[name].info.control:
        return
    with pytest.raises(BrokenError):
        explain(name, model, images)
    assert_untouched(model, before)


@pytest.mark.parametrize("name", EXPLAINERS)
def test_no_hook_ever_lies_on_the_shared_model(name, model, images, monkeypatch):
    shared = set(model.modules())
    seen = []
    for kind in ("register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"):
        original = getattr(nn.Module, kind)

        def spy(self, *args, _original=original, **kwargs):
            seen.append(self)
            return _original(self, *args, **kwargs)

        monkeypatch.setattr(nn.Module, kind, spy)
    explain(name, model, images)
    assert not shared & set(seen)


def test_the_spy_on_hooks_sees_those_of_captum(model, images, monkeypatch):
    seen = []
    original = nn.Module.register_forward_hook
    monkeypatch.setattr(
        nn.Module, "register_forward_hook", lambda self, *a, **k: (seen.append(self), original(self, *a, **k))[1]
    )
    EXPLAINERS["grad-cam"]("features.3.squeeze").attribute(model, images, TARGETS)  # no stage: captum serves
    assert seen
    assert not set(model.modules()) & set(seen)


@pytest.mark.parametrize("name", EXPLAINERS)
def test_a_caller_without_gradients_gets_the_same_map(name, model, images):
    expected = explain(name, model, images)
    with torch.inference_mode():
        got = explain(name, model, images.clone())
    assert torch.equal(got, expected)


@pytest.mark.parametrize("name", EXPLAINERS)
def test_a_model_in_training_mode_is_explained_as_it_predicts(name, model, images):
    expected = explain(name, model, images)
    model.train()
    assert torch.equal(explain(name, model, images), expected)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("name", ASKING)
@pytest.mark.parametrize("targets", [[0, CLASSES], [-1, 0]])
def test_classes_that_do_not_exist_are_refused(name, model, images, targets):
    before = snapshot(model)
    with pytest.raises(UsageError, match="expected"):
        explain(name, model, images, torch.tensor(targets))
    assert_untouched(model, before)


@pytest.mark.parametrize("name", EXPLAINERS)
@pytest.mark.parametrize("targets", [[0], [0, 0, 0], [[0], [0]], [0.0, 1.0]])
def test_misshapen_targets_are_refused(name, model, images, targets):
    before = snapshot(model)
    with pytest.raises(UsageError, match="expected"):
        explain(name, model, images, torch.tensor(targets))
    assert_untouched(model, before)


@pytest.mark.parametrize("name", EXPLAINERS)
@pytest.mark.parametrize("shape", [(3, HEIGHT, WIDTH), (0, 3, HEIGHT, WIDTH)])
def test_wrong_images_are_refused(name, model, shape):
    with pytest.raises(UsageError, match="expected images"):
        explain(name, model, torch.zeros(shape))


@pytest.mark.parametrize("name", [name for name in EXPLAINERS if "background" in EXPLAINERS[name].info.needs])
@pytest.mark.parametrize("background", [None, torch.zeros(0, 3, HEIGHT, WIDTH), torch.zeros(2, 3, WIDTH, HEIGHT)])
def test_a_missing_or_misshapen_background_is_refused(name, model, images, background):
    with pytest.raises(UsageError, match="expected a background"):
        EXPLAINERS[name]().attribute(model, images, TARGETS, background=background)


@pytest.mark.parametrize("name", EXPLAINERS)
def test_info_is_filled_in(name):
    info = EXPLAINERS[name].info
    assert info.title
    assert re.search(r"\b(19|20)\d\d\b", info.source), "a source has a year"
    assert info.plain.endswith(".") and len(info.plain) > 30
    assert info.needs <= {"gradients", "cam layer", "background", "baseline", "seed"}
    assert info.forward >= (not info.control) and info.backward >= 0
    assert type(info.class_dependent) is type(info.signed) is bool


@pytest.mark.parametrize("name", EXPLAINERS)
def test_the_declared_cost_is_what_a_model_sees(name, images, monkeypatch):
    """Images through the network, by counting, with as many reference images as a checkpoint stores."""
    counted = []
    torch.manual_seed(0)
    model = BACKBONES["squeezenet-reduced"](classes=CLASSES).eval()
    original = nn.Conv2d.forward

    def counting(self, inputs):
        if self.in_channels == 3:  # the first layer
            counted.append(len(inputs))
        return original(self, inputs)

    monkeypatch.setattr(nn.Conv2d, "forward", counting)
    background = noise(20, 3, HEIGHT, WIDTH, seed=5)
    EXPLAINERS[name]().attribute(model, images[:1], TARGETS[:1], background=background)
    assert sum(counted) == EXPLAINERS[name].info.forward


@pytest.mark.parametrize("name", EXPLAINERS)
def test_parameters_make_the_explainer_again(name):
    explainer = EXPLAINERS[name]()
    assert EXPLAINERS[name](**explainer.parameters()) == explainer


@pytest.mark.parametrize("samples", [0, -1])
def test_shap_refuses_settings_that_mean_nothing(samples):
    with pytest.raises(UsageError, match="expected"):
        EXPLAINERS["shap"](samples=samples).attribute(
            tiny(), noise(1, 3, 7, 9), torch.tensor([0]), background=noise(1, 3, 7, 9)
        )


def test_four_threads_of_mixed_methods_equal_the_serial_result(model):
    """One model, four threads, every method, other classes and seeds: 0 wrong, 0 raised."""
    images = noise(3, 3, HEIGHT, WIDTH, seed=9)
    jobs = [(name, row) for row in range(3) for name in EXPLAINERS]
    before = snapshot(model)
    np.random.seed(3)
    state = np.random.get_state()[1].copy()

    def run(job):
        name, row = job
        return explain(name, model, images[row : row + 1], torch.tensor([row % CLASSES]), seed=row)

    serial = [run(job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        parallel = list(pool.map(run, jobs))
    wrong = [job for job, one, other in zip(jobs, serial, parallel, strict=True) if not torch.equal(one, other)]
    assert not wrong
    assert_untouched(model, before)
    assert np.array_equal(np.random.get_state()[1], state)


def test_isolated_shares_memory_but_nothing_else(model):
    with isolated(model) as private:
        mine, theirs = dict(model.named_parameters()), dict(private.named_parameters())
        assert mine.keys() == theirs.keys()
        for name, weight in mine.items():
            assert weight.data_ptr() == theirs[name].data_ptr()
            assert not theirs[name].requires_grad
        assert not set(model.modules()) & set(private.modules())


def test_isolated_keeps_tied_weights_tied_and_buffers_shared():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.BatchNorm1d(3)).eval()
    net[1].weight = net[0].weight
    with isolated(net) as private:
        assert private[0].weight is private[1].weight
        assert private[2].running_mean.data_ptr() == net[2].running_mean.data_ptr()


def test_isolated_removes_the_hooks_of_its_copy(model):
    with pytest.raises(ZeroDivisionError), isolated(model) as private:
        private.features.register_forward_hook(lambda *_: None)
        private.features.register_full_backward_hook(lambda *_: None)
        raise ZeroDivisionError
    assert not hooks_on(private)


def test_hooks_on_modules_are_registered_nowhere_else():
    root = Path(steel_core.__file__).parent
    sources = {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in root.rglob("*.py")}
    guilty = [name for name, text in sources.items() if re.search(r"register_\w*(forward|backward)\w*hook", text)]
    assert set(guilty) <= {"explain/hooks.py"}
    uses = re.compile(r"^(import|from) (captum|shap)\b", re.M)
    libraries = [name for name, text in sources.items() if name.startswith("explain/") and uses.search(text)]
    assert libraries, "the search finds nothing"
    assert all("with isolated(" in sources[name] for name in libraries)


def test_nothing_draws_from_numpys_global_generator():
    """SHAP's determinism rests on it: shap seeds that generator and draws from it. `device.py` seeds it for recipes."""
    root = Path(steel_core.__file__).parent
    pattern = r"np\.random\.(?!default_rng|Generator|SeedSequence|get_state|set_state)\w+"
    guilty = [path.name for path in root.rglob("*.py") if re.search(pattern, path.read_text(encoding="utf-8"))]
    assert set(guilty) <= {"device.py"}

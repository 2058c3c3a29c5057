"""Registries: names, collisions, broken plug-ins."""

import importlib
import os
import subprocess
import sys

import pytest
from helpers.small import ROOT

from steel_core.baselines.base import BASELINES
from steel_core.data.readers.base import READERS
from steel_core.errors import UsageError
from steel_core.explain.base import EXPLAINERS
from steel_core.explain.quality.base import METRICS
from steel_core.models.base import BACKBONES
from steel_core.perturb.base import PERTURBATIONS
from steel_core.registry import NameTakenError, Registry


def test_a_collision_raises():
    registry: Registry[int] = Registry("thing", "json")
    registry.register("one")(1)
    with pytest.raises(ValueError, match="taken"):
        registry.register("one")(2)


@pytest.mark.parametrize("name", ["One", "one_two", "", "-one", "one "])
def test_a_malformed_name_raises(name):
    with pytest.raises(ValueError, match="hyphens"):
        Registry("thing", "json").register(name)


def test_an_unknown_name_lists_the_known_ones():
    registry: Registry[int] = Registry("thing", "json")
    registry.register("b")(1)
    registry.register("a")(2)
    with pytest.raises(UsageError, match=r"unknown thing 'c'; there are: a, b"):
        registry["c"]
    assert list(registry) == ["a", "b"]


def test_a_broken_plug_in_raises(tmp_path, monkeypatch):
    package = tmp_path / "broken_plugins"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "bad.py").write_text("import no_such_module_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry: Registry[int] = Registry("thing", "broken_plugins")
    for _ in range(2):  # it stays broken, it does not turn into an empty registry
        with pytest.raises(ModuleNotFoundError):
            list(registry)
    sys.modules.pop("broken_plugins", None)


# Plug-ins of other packages


def distribution(folder, name, module, source, group="steel_lens.things"):
    """A small installed package: its module, and the metadata that pip would write."""
    (folder / f"{module}.py").write_text(source)
    metadata = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{module} = {module}\n")


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on the path, whose modules are forgotten in the end; `things` is the registry's own package."""
    before = set(sys.modules)
    (tmp_path / "things").mkdir()
    (tmp_path / "things" / "__init__.py").write_text(
        "from steel_core.registry import Registry\nTHINGS = Registry('thing', 'things', 'steel_lens.things')\n"
    )
    (tmp_path / "things" / "own.py").write_text("from things import THINGS\nTHINGS.register('own')(1)\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def things():
    return importlib.import_module("things").THINGS


REGISTERS = "from things import THINGS\nTHINGS.register('{}')(2)\n"


def test_a_plug_in_of_another_package_is_found_when_first_asked(site):
    distribution(site, "steel-lens-more", "more_things", REGISTERS.format("more"))
    registry = things()
    assert "more_things" not in sys.modules
    assert list(registry) == ["more", "own"]
    assert registry["more"] == 2


def test_an_entry_point_of_another_group_is_left_alone(site):
    distribution(site, "steel-lens-more", "more_things", REGISTERS.format("more"), group="steel_lens.others")
    assert list(things()) == ["own"]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_module_at_all\n", "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        (REGISTERS.format("half") + "1 / 0\n", "ZeroDivisionError: division by zero"),
        (REGISTERS.format("Bad Name"), "ValueError: thing name 'Bad Name': expected lower-case words"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
        ("def broken(:\n", "SyntaxError: invalid syntax"),
    ],
)
def test_a_broken_one_is_left_out_with_one_sentence(site, caplog, source, reason):
    distribution(site, "steel-lens-broken", "broken_things", source)
    distribution(site, "steel-lens-more", "more_things", REGISTERS.format("more"))
    registry = things()
    for _ in range(3):
        assert list(registry) == ["more", "own"]
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    sentence = "the thing plug-in 'broken_things' of steel-lens-broken is left out, because it cannot be loaded: "
    assert record.getMessage().startswith(sentence + reason)


def test_a_name_that_is_taken_raises_for_other_packages_too(site, caplog):
    distribution(site, "steel-lens-twin", "twin_things", REGISTERS.format("own"))
    for _ in range(2):
        with pytest.raises(NameTakenError, match="'own' is taken by 1"):
            list(things())
    assert not caplog.records


def test_an_explainer_of_another_package_explains(site):
    """In a process of its own, because it stays in the registry; its map is its own."""
    source = """
from steel_core.explain.base import EXPLAINERS, Explainer, ExplainerInfo

@EXPLAINERS.register("brightness")
class Brightness(Explainer):
    info = ExplainerInfo(title="Brightness", plain="", source="", forward=0, backward=0)

    def _attribute(self, query):
        return query.inputs
"""
    distribution(site, "steel-lens-brightness", "brightness", source, group="steel_lens.explainers")
    code = """
import torch
from steel_core.explain.base import EXPLAINERS
image = torch.ones(1, 3, 2, 2)
assert "grad-cam" in EXPLAINERS
print(EXPLAINERS["brightness"]().attribute(None, image, torch.tensor([0])).flatten().tolist())
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    answer = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, cwd=site
    )
    assert answer.stdout.strip() == "[3.0, 3.0, 3.0, 3.0]"


@pytest.mark.parametrize(
    ("registry", "group"),
    [
        (EXPLAINERS, "explainers"),
        (READERS, "readers"),
        (BACKBONES, "backbones"),
        (PERTURBATIONS, "perturbations"),
        (BASELINES, "baselines"),
        (METRICS, "metrics"),
    ],
)
def test_every_registry_takes_plug_ins_of_other_packages(registry, group):
    assert registry._group == f"steel_lens.{group}"

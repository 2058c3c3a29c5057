"""Registries: names, collisions, broken plug-ins."""

import sys

import pytest

from steel_core.errors import UsageError
from steel_core.registry import Registry


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

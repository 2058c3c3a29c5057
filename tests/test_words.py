"""The words of the code: one meaning each, and the glossary names what exists."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GLOSSARY = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("|") and not line.startswith(("| Word ", "|---"))
]
"""Word, meaning and place of each row."""
VAGUE = {"told", "found"}
"""Participles that once named reports, sentences, indexes and results alike."""


def source_files() -> list[Path]:
    return sorted(path for part in ("steel_core", "dashboard") for path in (ROOT / part).rglob("*.py"))


def bound_names(tree: ast.AST) -> set[tuple[str, int]]:
    """Names of variables, arguments, functions, classes and attributes that are set, with their lines."""
    names = set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()) | ast.arg(arg=name):
                names.add((name, node.lineno))
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.ExceptHandler(name=str(name)):
                names.add((name, node.lineno))
            case ast.alias(asname=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                names.add((name, node.lineno))
    return names


def exists(dotted: str) -> bool:
    """Whether a module, or a class, function, constant, field or method in one, has this name below `steel_core`."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        place = ROOT.joinpath("steel_core", *parts[:count])
        path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        if path.is_file():
            return is_defined(ast.parse(path.read_text(encoding="utf-8")).body, parts[count:])
    return False


def is_defined(body: list[ast.stmt], names: list[str]) -> bool:
    if not names:
        return True
    for node in body:
        match node:
            case ast.ClassDef(name=name) if name == names[0]:
                return is_defined(node.body, names[1:])
            case ast.FunctionDef(name=name):
                here = {name}
            case ast.AnnAssign(target=ast.Name(id=name)):
                here = {name}
            case ast.Assign(targets=targets):
                here = {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
            case ast.ImportFrom(names=imported):
                here = {alias.asname or alias.name for alias in imported}
            case _:
                continue
        if names[0] in here:
            return len(names) == 1
    return False


def test_no_public_class_has_a_namesake():
    places = defaultdict(list)
    for path in source_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_types_of_arrays_are_named_in_one_file():
    aliases = re.compile(r"^(type )?\w+(: TypeAlias)? = (np\.ndarray|npt\.NDArray|\w+Array$)", re.MULTILINE)
    places = [path for path in source_files() if aliases.search(path.read_text(encoding="utf-8"))]
    assert places == [ROOT / "steel_core" / "types.py"]


@pytest.mark.parametrize("path", source_files(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_has_a_name_that_could_be_anything(path):
    names = bound_names(ast.parse(path.read_text(encoding="utf-8")))
    assert sorted((line, name) for name, line in names if name in VAGUE) == []


def test_the_glossary_has_no_word_twice():
    words = [word for row in GLOSSARY for word in row[0].split(", ")]
    assert sorted(word for word in set(words) if words.count(word) > 1) == []


@pytest.mark.parametrize("name", sorted({name for row in GLOSSARY for name in re.findall(r"`(.+?)`", row[2])}))
def test_every_name_in_the_glossary_exists(name):
    assert exists(name)

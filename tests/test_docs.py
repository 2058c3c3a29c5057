"""What the documents name is there: modules, functions, files, commands, links and the wings' pages."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from helpers.small import ROOT

PAGES = [
    *ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/api/*.md"), ROOT / "benchmarks" / "README.md",
    ROOT / "assets" / "README.md",
]  # fmt: skip
TEXTS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES if path.name != "CHANGELOG.md"
}
FILES = re.compile(r"`((?:steel_core|dashboard|tests|benchmarks|docs|assets|\.ci|\.github)/[\w./-]+)`")


def resolve(name):
    """Whether a dotted name is a module or something in one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            thing = getattr(thing, part)
        return thing
    raise AttributeError(name)


@pytest.mark.parametrize("page", TEXTS)
def test_every_name_of_the_library_is_there(page):
    for name in sorted(set(re.findall(r"\bsteel_core(?:\.[A-Za-z_]+)+", TEXTS[page]))):
        try:
            resolve(name)
        except AttributeError:
            pytest.fail(f"{page} names {name}, which is not there")


@pytest.mark.parametrize("page", TEXTS)
def test_every_example_in_python_imports_what_is_there(page):
    for block in re.findall(r"```python\n(.*?)```", TEXTS[page], re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("steel_core"):
                module = importlib.import_module(node.module)
                missing = [
                    alias.name
                    for alias in node.names
                    if not hasattr(module, alias.name) and not resolve(f"{node.module}.{alias.name}")
                ]
                assert not missing, f"{page}: {node.module} has no {', '.join(missing)}"


@pytest.mark.parametrize("page", TEXTS)
def test_every_file_and_link_is_there(page):
    for name in FILES.findall(TEXTS[page]):
        assert "NAME" in name or (ROOT / name).exists(), f"{page} names {name}"
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", TEXTS[page]):
        assert ((ROOT / page).parent / link).exists(), f"{page} links to {link}"


def test_every_command_that_a_document_shows_exists():
    shown = {}
    for page, text in TEXTS.items():
        for command in re.findall(r"(?:steel-lens|python -m steel_core) ([a-z][a-z-]+)(?![\w.])", text):
            shown.setdefault(command, page)
    done = subprocess.run(
        [sys.executable, "-m", "steel_core", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for command, page in shown.items():
        assert re.search(rf"\b{command}\b", done.stdout), f"{page} shows the command {command}"


def test_every_path_that_a_document_gives_to_pytest_exists():
    for page, text in TEXTS.items():
        for arguments in re.findall(r"\bpytest((?: [\w./:-]+)+)", text):
            for path in re.findall(r"\btests/[\w./-]+", arguments):
                assert (ROOT / path).exists(), f"{page} gives pytest {path}"


def test_every_wing_has_a_page_in_the_library_section():
    api = "".join(text for page, text in TEXTS.items() if page.startswith("docs/api/"))
    for path in (ROOT / "steel_core").iterdir():
        if path.stem.startswith("_") or path.stem in {"assets", "cli", "py"}:
            continue
        assert f"::: steel_core.{path.stem}\n" in api, f"no page of docs/api shows steel_core.{path.stem}"


def test_every_published_schema_is_linked():
    for path in (ROOT / "docs" / "schemas").glob("*.json"):
        assert f"](../schemas/{path.name})" in TEXTS["docs/api/index.md"]


def test_the_readme_installs_what_ci_tests():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    fixed = {name.replace("_", "-") for name in re.findall(r"^([\w.-]+)==", constraints.lower(), re.MULTILINE)}
    for line in [*project["dependencies"], *(line for group in extras.values() for line in group)]:
        name = re.split(r"[<>=!~\[ ]", line)[0].lower().replace("_", "-")
        assert name in fixed, f"constraints.txt fixes no version of {name}"
    for file in ("requirements.txt", "requirements-dev.txt"):
        assert "-c constraints.txt" in Path(ROOT / file).read_text(encoding="utf-8")

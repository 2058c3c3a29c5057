"""The direction of imports, and what importing the library loads."""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# The floors of the library, from the ground up: each wing may import from itself and from the floors below its own.
FLOORS = [
    {"errors"},
    {"types"},
    {"registry", "device", "files", "progress", "records"},
    {"data"},
    {"metrics"},
    {"render", "models"},
    {"perturb", "explain", "baselines"},
    {"jobs"},
    {"inference"},
    {"evaluation"},
    {"training"},
    {"audit"},
    {"store"},
    {"leaderboard"},
    {"reports"},
    {"cli"},
    {"__main__"},
]
FORBIDDEN = {"streamlit", "altair", "fastapi", "sqlalchemy", "dashboard"}


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def layer(module: str) -> int | None:
    return next((i for i, names in enumerate(FLOORS) if module in names), None)


def library_files() -> list[Path]:
    return sorted((ROOT / "steel_core").rglob("*.py"))


@pytest.mark.parametrize("path", library_files(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_point_one_way(path):
    part = path.relative_to(ROOT / "steel_core").with_suffix("").parts[0]
    if part == "__init__":
        return
    mine = layer(part)
    assert mine is not None, f"{part} is in no layer"
    for name in imports(path):
        if name.startswith("steel_core."):
            other = name.split(".")[1]
            theirs = layer(other)
            if theirs is not None:
                assert theirs <= mine, f"{part} imports {name}, which lies above it"
                assert {part, other} != {"explain", "perturb"}
        assert name.split(".")[0] not in FORBIDDEN, f"{part} imports {name}"


def imported_modules(path: Path, modules: set[str]) -> set[str]:
    """The modules meant; of "from package import name" the package only where it has no module of that name."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in modules else node.module for name in full}
    return names & modules


def test_no_modules_import_each_other_not_even_for_their_types():
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in library_files()
    }
    graph = {module: imported_modules(path, set(files)) - {module} for module, path in files.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


def test_only_services_import_the_library_into_the_dashboard():
    for path in (ROOT / "dashboard").rglob("*.py"):
        if path.parent.name == "services":
            continue
        used = {n for n in imports(path) if n.startswith("steel_core")}
        allowed = {n for n in used if n.split(".")[1:2] in ([], ["types"], ["errors"], ["render"])}
        assert used <= allowed, (
            f"{path.name} calls the library past dashboard/services, where types, errors and render alone are free: "
            f"{used - allowed}"
        )


def page_files() -> list[Path]:
    return sorted((ROOT / "dashboard" / "app_pages").glob("*.py"))


def test_every_page_is_listed_in_the_app():
    listed = re.findall(r'st\.Page\("app_pages/(\w+)\.py"', (ROOT / "dashboard" / "app.py").read_text(encoding="utf-8"))
    assert sorted(listed) == [path.stem for path in page_files()], "dashboard/app.py lists other pages than there are"


@pytest.mark.parametrize("path", page_files(), ids=lambda path: path.stem)
def test_a_page_has_at_most_80_lines(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= 80, f"{path.name} has {lines} lines: move what it draws into dashboard/components/{path.stem}/"


def test_importing_the_library_loads_no_interface_and_no_database():
    code = (
        "import sys, steel_core, steel_core.inference.predictor, steel_core.training.train, steel_core.cli.main;"
        f"print(sorted(set(m.split('.')[0] for m in sys.modules) & set({sorted(FORBIDDEN)!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

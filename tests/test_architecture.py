"""The direction of imports, and what importing the library loads."""

import ast
import subprocess
import sys
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
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


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


def test_only_services_import_the_library_into_the_dashboard():
    for path in (ROOT / "dashboard").rglob("*.py"):
        if path.parent.name == "services":
            continue
        used = {n for n in imports(path) if n.startswith("steel_core")}
        allowed = {n for n in used if n.split(".")[1:2] in ([], ["types"], ["errors"], ["render"])}
        assert used <= allowed, f"{path.name} calls the library past dashboard/services: {used - allowed}"


def test_importing_the_library_loads_no_interface_and_no_database():
    code = (
        "import sys, steel_core, steel_core.inference.predictor, steel_core.training.train, steel_core.cli.main;"
        f"print(sorted(set(m.split('.')[0] for m in sys.modules) & set({sorted(FORBIDDEN)!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

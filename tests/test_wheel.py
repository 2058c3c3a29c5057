"""The wheel works in an empty folder: models, images, pages and templates are in it, and the server keeps to itself."""

import ast
import json
import os
import re
import socket
import subprocess
import sys
from email.parser import Parser
from pathlib import Path

import pytest
from helpers.serving import free_port, served
from helpers.small import ROOT

pytest.importorskip("hatchling", reason="the wheel is built with hatchling, of requirements-dev.txt")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder into which the wheel of this checkout was installed, without what it depends on."""
    dist, folder = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(dist)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = dist.glob("steel_lens-*.whl")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([*install, "--target", str(folder), str(wheel)], check=True)
    return folder


@pytest.fixture
def empty(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


def from_wheel(site, home):
    """The environment in which the wheel alone, not the checkout, is imported, and nothing of this machine is found."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("STEEL_", "STREAMLIT_"))}
    return variables | {"PYTHONPATH": str(site), "HOME": str(home), "STEEL_CACHE": str(home / "cache")}


def call(site, folder, *command):
    environment = from_wheel(site, folder.parent)
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def metadata(site):
    (folder,) = site.glob("steel_lens-*.dist-info")
    return Parser().parsestr((folder / "METADATA").read_text(encoding="utf-8")), folder


def test_all_that_the_program_reads_is_in_the_wheel(site):
    for folder in ("steel_core", "dashboard"):
        ours = {p.relative_to(ROOT) for p in (ROOT / folder).rglob("*") if p.is_file() and p.suffix != ".pyc"}
        assert not {path.as_posix() for path in ours if not (site / path).is_file()}
    shipped = {p.relative_to(ROOT / "assets") for p in (ROOT / "assets").rglob("*") if p.is_file()}
    assert not {path.as_posix() for path in shipped if not (site / "steel_core" / "assets" / path).is_file()}
    assert (site / "steel_core" / "py.typed").is_file()
    assert (site / "dashboard" / ".streamlit" / "config.toml").is_file()


def test_nothing_else_is_in_the_wheel(site):
    assert {path.name for path in site.iterdir()} <= {"steel_core", "dashboard", "bin", metadata(site)[1].name}


def test_the_licence_travels_and_the_library_alone_needs_no_streamlit(site):
    described, folder = metadata(site)
    assert described["License-Expression"] == "Apache-2.0"
    assert {path.name for path in (folder / "licenses").iterdir()} == {"LICENSE", "NOTICE"}
    needed = described.get_all("Requires-Dist")
    always = {re.split(r"[^a-z0-9_-]", line)[0] for line in needed if "extra ==" not in line}
    assert "torch" in always
    assert not always & {"streamlit", "altair", "pytest"}


def test_the_command_predicts_in_an_empty_folder(site, empty):
    program = str(site / "bin" / "steel-lens")
    image = site / "steel_core" / "assets" / "demo" / "strip-mill" / "images" / "sheet-000003.png"
    answer = json.loads(call(site, empty, program, "predict", str(image), "--json"))
    assert answer["results"][0]["file"] == str(image)
    assert answer["results"][0]["outcome"]
    told = call(site, empty, "-c", "import steel_core; print(steel_core.__file__, steel_core.__version__)").split()
    assert Path(told[0]).is_relative_to(site)
    assert call(site, empty, program, "--version").split() == ["steel-lens", told[1]]
    assert not list(empty.iterdir())


def test_the_pages_of_the_wheel_find_the_shipped_models(site, empty):
    code = (
        "import sys; from streamlit.testing.v1 import AppTest; page = AppTest.from_file(sys.argv[1]).run(timeout=120);"
        "assert not page.exception, page.exception; print([option for box in page.selectbox for option in box.options])"
    )
    options = call(site, empty, "-c", code, str(site / "dashboard" / "app.py"))
    assert {"neu-six-class", "strip-mill", "strip-mill-cured"} <= set(ast.literal_eval(options))


@pytest.mark.parametrize("how", ["steel-lens app", "streamlit run"])
def test_the_server_listens_to_this_machine_alone_wherever_it_is_started(site, empty, how):
    port = free_port()
    command = {
        "steel-lens app": [str(site / "bin" / "steel-lens"), "app", "--port", str(port), "--headless"],
        "streamlit run": ["-m", "streamlit", "run", str(site / "dashboard" / "app.py"), "--server.port", str(port),
                          "--server.headless", "true"],
    }  # fmt: skip
    environment = from_wheel(site, empty.parent)
    with (
        served([sys.executable, *command[how]], port, empty.parent, empty, **environment),
        pytest.raises(ConnectionRefusedError),
        socket.create_connection(("127.0.0.2", port), timeout=5),  # a server on all addresses would answer here
    ):
        pass
    log = (empty.parent / "log").read_text(encoding="utf-8")
    assert "usage statistics" not in log.lower()
    assert f"127.0.0.1:{port}" in log

"""What the command line loads, and how quickly it answers."""

import json
import subprocess
import sys

import pytest
from helpers.small import ROOT

from steel_core.cli.main import COMMANDS


def loaded(code):
    """Names of the modules that a piece of Python leaves loaded."""
    done = subprocess.run(
        [sys.executable, "-c", f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)))"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_loads_neither_torch_nor_readers(command):
    modules = loaded(
        "from steel_core.cli.main import main\n"
        f"try: main([*{command!r}, '--help'])\nexcept SystemExit as end: assert end.code == 0"
    )
    assert not {"torch", "pandas", "PIL", "streamlit"} & modules
    if not command:
        assert "pydantic" not in modules
    else:
        assert f"steel_core.cli.{command[0].replace('-', '_')}" in modules


def test_predict_loads_no_training_and_no_audit(checkpoint_folder, tmp_path):
    from PIL import Image

    Image.new("L", (64, 64), 120).save(tmp_path / "one.png")
    modules = loaded(
        "from steel_core.cli.main import main\n"
        f"assert main(['predict', {str(tmp_path / 'one.png')!r}, '--checkpoint', {str(checkpoint_folder)!r}]) == 0"
    )
    assert "torch" in modules
    parts = {name.split(".")[1] for name in modules if name.startswith("steel_core.")}
    assert not parts & {"training", "audit", "leaderboard", "store"}


def test_the_version_is_the_librarys(capsys):
    import steel_core
    from steel_core.cli.main import main

    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"steel-lens {steel_core.__version__}\n"

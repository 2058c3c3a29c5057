"""`steel-lens app` starts Streamlit on this machine alone, whatever its configuration files say."""

from argparse import ArgumentParser

import pytest

from steel_core.cli import app
from steel_core.errors import UsageError


def parse(*flags):
    parser = ArgumentParser()
    app.add_arguments(parser)
    return parser.parse_args(flags)


def test_it_listens_on_this_machine_alone_and_sends_no_statistics():
    command = app.streamlit_command(parse())
    assert command[1:6] == ["-P", "-m", "streamlit", "run", str(app.SCRIPT)]
    assert app.SCRIPT.is_file()
    assert {"--server.address=127.0.0.1", "--server.port=8501", "--browser.gatherUsageStats=false"} <= set(command)


def test_port_and_address_are_passed_on():
    command = app.streamlit_command(parse("--port", "8600", "--address", "0.0.0.0", "--headless"))
    assert {"--server.address=0.0.0.0", "--server.port=8600", "--server.headless=true"} <= set(command)


def test_without_streamlit_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(app.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(UsageError, match=r"steel-lens\[app\]"):
        app.run(parse())

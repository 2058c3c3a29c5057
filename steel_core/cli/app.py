"""`steel-lens app`: the dashboard, started from any folder."""

import importlib.util
import os
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from steel_core.cli.output import Answer
from steel_core.errors import UsageError

SCRIPT = Path(__file__).resolve().parents[2] / "dashboard" / "app.py"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--port", type=int, default=8501, help="(default: 8501)")
    where = "where it listens (default: 127.0.0.1, this machine only; it asks nobody who they are)"
    parser.add_argument("--address", default="127.0.0.1", help=where)
    parser.add_argument("--headless", action="store_true", help="open no browser")


def streamlit_command(arguments: Namespace) -> list[str]:
    """How Streamlit is called; what is said here goes before any configuration file of the machine."""
    options = {
        "server.address": arguments.address,
        "server.port": str(arguments.port),
        "server.headless": str(arguments.headless).lower(),
        "browser.gatherUsageStats": "false",
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    # -P: what lies in the working folder is not imported
    return [sys.executable, "-P", "-m", "streamlit", "run", str(SCRIPT), *flags]


def run(arguments: Namespace) -> Answer:
    if importlib.util.find_spec("streamlit") is None:
        raise UsageError("the dashboard needs Streamlit, which is not installed: pip install 'steel-lens[app]'")
    command = streamlit_command(arguments)
    if os.name == "posix":  # one process, so that whoever started it can stop it
        os.execv(command[0], command)  # noqa: S606 - no shell
    return subprocess.call(command), {}, ""  # noqa: S603 - our own command

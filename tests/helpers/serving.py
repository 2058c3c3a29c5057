"""A dashboard as a process of its own, for browser tests."""

import http.client
import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

from helpers.small import ROOT

_PATIENCE = 120  # seconds until it answers, or has ended; machines are busy


@contextmanager
def dashboard(home, **environment):
    """The address of a dashboard that keeps all it writes in `home`; it ends with the block.

    `environment` adds variables or, with None, takes them away.
    """
    port = free_port()
    command = [sys.executable, "-m", "streamlit", "run", "dashboard/app.py", "--server.port", str(port)]
    with served([*command, "--server.headless", "true"], port, home, ROOT, **environment) as address:
        yield address


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def served(command, port, home, folder, **environment):
    """The address of what `command`, called from `folder`, serves at `port`; arguments else as in `dashboard`."""
    own = {"STEEL_MODELS": home / "models", "STEEL_CACHE": home / "cache", "STEEL_HOME": home / "kept", **environment}
    variables = {name: str(value) for name, value in (os.environ | own).items() if value is not None}
    address = f"http://127.0.0.1:{port}"
    with (home / "log").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, env=variables, stdout=log, stderr=log)
    try:
        until = time.monotonic() + _PATIENCE
        while not _answers(address):
            assert process.poll() is None and time.monotonic() < until, (home / "log").read_text()
            time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait(_PATIENCE)


def _answers(address):
    try:
        urllib.request.urlopen(f"{address}/_stcore/health", timeout=5).read()
    except (OSError, http.client.HTTPException):
        return False
    return True

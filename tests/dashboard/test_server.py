"""The server: whom it listens to, wherever it is started."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from helpers.dash import ROOT

LISTENS = "0A"  # the state of a socket in /proc/net/tcp


def listening(port):
    """The addresses, in hexadecimal, on which something listens to a port."""
    rows = [row.split() for file in ("tcp", "tcp6") for row in Path(f"/proc/net/{file}").read_text().splitlines()[1:]]
    places = [row[1].split(":") for row in rows if row[3] == LISTENS]
    return {address for address, hexadecimal in places if int(hexadecimal, 16) == port}


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="only Linux tells who listens in a file")
def test_started_from_an_empty_folder_it_listens_on_this_machine_only_and_without_statistics(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {name: value for name, value in os.environ.items() if not name.startswith("STREAMLIT_")}
    command = [sys.executable, "-m", "streamlit", "run", str(ROOT / "dashboard" / "app.py"), "--server.port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=own | {"HOME": str(tmp_path)}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        until = time.monotonic() + 120
        while not listening(port):
            assert process.poll() is None and time.monotonic() < until, (tmp_path / "log").read_text()
            time.sleep(0.2)
        assert listening(port) == {"0100007F"}, "127.0.0.1 alone"
        assert urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=60).read() == b"ok"
    finally:
        process.terminate()
        process.wait(120)
    assert "usage statistics" not in (tmp_path / "log").read_text().lower()


def test_settings_beside_the_script_are_those_that_hold(monkeypatch, tmp_path):
    code = (
        "from streamlit import config;"
        f"config._main_script_path = {str(ROOT / 'dashboard' / 'app.py')!r};"
        "config.get_config_options(force_reparse=True);"
        "print(config.get_option('server.address'), config.get_option('browser.gatherUsageStats'))"
    )
    (tmp_path / ".streamlit").mkdir()
    (tmp_path / ".streamlit" / "config.toml").write_text('[server]\naddress = "0.0.0.0"\n')
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["127.0.0.1", "False"]

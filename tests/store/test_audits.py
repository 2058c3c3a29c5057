"""Audit runs are kept as they were, are found by their link, and one bad file hides no other."""

import json
import subprocess
import sys

import pytest

from steel_core.errors import DataError, UsageError
from steel_core.files import new_run_name
from steel_core.store.audits import AuditStore

REPORT = {"audit": "white-stain", "verdict": "evidence against", "findings": [], "model_hash": "a" * 64}


def test_a_run_is_read_as_it_was_kept_by_another_store(tmp_path):
    name = new_run_name()
    kept = AuditStore(tmp_path).add(name, "sheets", 12.5, [REPORT | {"interval": (0.1, 0.2)}])
    assert AuditStore(tmp_path).get(name) == kept
    assert kept.reports[0]["interval"] == [0.1, 0.2]
    assert kept.data == "sheets"
    assert kept.at.endswith("+00:00")
    assert json.loads((tmp_path / f"{name}.json").read_text())["reports"][0]["verdict"] == "evidence against"


def test_a_run_is_never_changed(tmp_path):
    store, name = AuditStore(tmp_path), new_run_name()
    store.add(name, "sheets", 1.0, [REPORT])
    with pytest.raises(UsageError, match="never changed"):
        store.add(name, "others", 1.0, [REPORT])
    assert store.get(name).data == "sheets"


def test_the_newest_run_comes_first_and_a_bad_file_is_a_sentence(tmp_path):
    store = AuditStore(tmp_path)
    names = ["20260101T000000-00000000", "20260301T000000-00000000", "20260201T000000-ffffffff"]
    for name in names:
        store.add(name, "sheets", 1.0, [REPORT])
    (tmp_path / "20260401T000000-00000000.json").write_text("{")
    (tmp_path / "20260501T000000-00000000.json").write_text('{"reports": [{"audit": "edges"}]}')
    (tmp_path / "notes.json").write_text("not a run at all")
    runs, problems = store.history()
    assert [run.name for run in runs] == [names[1], names[2], names[0]]
    assert len(problems) == 2
    assert all(str(tmp_path) not in problem for problem in problems)
    with pytest.raises(DataError, match="expected an audit run"):
        store.get("20260401T000000-00000000")


@pytest.mark.parametrize("name", ["", "../triage", "20260101T000000-0000000", "20260101T000000-00000000/../x"])
def test_a_link_reaches_nothing_but_runs(tmp_path, name):
    (tmp_path / "triage.json").write_text(json.dumps({"reports": [REPORT]}))
    assert AuditStore(tmp_path / "audits").get(name) is None
    with pytest.raises(UsageError, match="expected a new name"):
        AuditStore(tmp_path).add(name, "sheets", 1.0, [REPORT])


def test_without_a_run_the_history_is_empty_and_nothing_is_written(tmp_path):
    assert AuditStore(tmp_path / "none").history() == ([], [])
    assert not (tmp_path / "none").exists()


def test_sessions_that_write_at_once_lose_nothing(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from steel_core.files import new_run_name; from steel_core.store.audits import AuditStore\n"
        f"for i in range(10): AuditStore(Path(sys.argv[1])).add(new_run_name(), 'sheets', 1.0, [{REPORT!r}])\n"
    )
    sessions = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(3)]
    assert [session.wait(120) for session in sessions] == [0, 0, 0]
    assert len(AuditStore(tmp_path).history()[0]) == 30


def test_home_is_where_the_user_says(tmp_path, monkeypatch):
    monkeypatch.setenv("STEEL_HOME", str(tmp_path))
    assert AuditStore().folder == tmp_path / "audits"

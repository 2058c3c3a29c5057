"""Findings are kept, only added to, and survive several sessions at once."""

import csv
import io
import sqlite3
import subprocess
import sys

import pytest

from steel_core.errors import DataError, UsageError
from steel_core.files import steel_home
from steel_core.store.triage import Triage, TriageStore

ENTRY = Triage(
    image_sha256="a" * 64,
    file="plate.png",
    checkpoint="c" * 64,
    label="crazing",
    pred="scratches",
    finding="label wrong",
    who="A. Inspector",
    should_be="scratches",
)


def test_the_last_finding_counts_and_all_are_kept(tmp_path):
    store = TriageStore(tmp_path)
    assert store.history() == []
    assert store.latest() == {}
    first = store.add(ENTRY)
    second = store.add(ENTRY.replace(finding="ambiguous", who="B. Inspector"))
    assert first.at <= second.at
    assert first.at.endswith("+00:00")
    assert TriageStore(tmp_path).history("a" * 64) == [first, second]
    assert store.latest() == {"a" * 64: second}
    store.add(ENTRY.replace(finding="open"))
    assert store.latest() == {}
    assert len(store.history()) == 3
    assert store.history("b" * 64) == []


def test_nothing_can_be_changed_or_removed(tmp_path):
    store = TriageStore(tmp_path)
    store.add(ENTRY)
    with sqlite3.connect(store.path) as base:
        for statement in ("UPDATE triage SET who = 'x'", "DELETE FROM triage"):
            with pytest.raises(sqlite3.IntegrityError, match="append only"):
                base.execute(statement)
    assert store.history()[0].who == "A. Inspector"


def test_a_row_by_another_hand_hides_no_other(tmp_path):
    store = TriageStore(tmp_path)
    store.add(ENTRY)
    with sqlite3.connect(store.path) as base:
        base.execute(
            "INSERT INTO triage (image_sha256, file, checkpoint, label, pred, finding, should_be, who, comment, at) "
            "VALUES (?, 'b.png', 'c', 'crazing', 'crazing', 'resolved', '', 'B', '', '2026-12-01')", ("b" * 64,)
        )  # fmt: skip
    assert [entry.finding for entry in store.history()] == ["label wrong", "resolved"]


@pytest.mark.parametrize("wrong", [{"finding": "fine"}, {"who": "  "}])
def test_what_is_not_a_finding_is_refused(tmp_path, wrong):
    with pytest.raises(UsageError):
        TriageStore(tmp_path).add(ENTRY.replace(**wrong))
    assert TriageStore(tmp_path).history() == []


def test_several_processes_lose_nothing(tmp_path):
    code = (
        "import sys; from pathlib import Path; from steel_core.store.triage import Triage, TriageStore\n"
        "store = TriageStore(Path(sys.argv[1]))\n"
        "for i in range(25):\n"
        "    entry = dict(file='f', checkpoint='c', label='a', pred='b', finding='model wrong', who=sys.argv[2])\n"
        "    store.add(Triage(image_sha256=f'{sys.argv[2]}-{i}', **entry))\n"
    )
    sessions = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), f"p{k}"]) for k in range(4)]
    assert [session.wait(120) for session in sessions] == [0] * 4
    assert sorted(TriageStore(tmp_path).latest()) == sorted(f"p{k}-{i}" for k in range(4) for i in range(25))


def test_the_relabelling_list_holds_labels_to_correct_and_no_formula(tmp_path):
    store = TriageStore(tmp_path)
    store.add(ENTRY.replace(file="=cmd()", comment="+1, see strip"))
    store.add(ENTRY.replace(image_sha256="b" * 64, finding="model wrong"))
    store.add(ENTRY.replace(image_sha256="d" * 64, finding="ambiguous", should_be=""))
    rows = list(csv.DictReader(io.StringIO(store.relabelling_csv())))
    assert [row["finding"] for row in rows] == ["label wrong", "ambiguous"]
    assert rows[0]["file"] == "'=cmd()"
    assert rows[0]["comment"] == "'+1, see strip"
    assert rows[0]["should_be"] == "scratches"


def test_a_damaged_file_is_a_sentence(tmp_path):
    (tmp_path / "triage.sqlite").write_bytes(b"no database, but long enough to look like one" * 40)
    with pytest.raises(DataError, match=r"triage\.sqlite: the file is damaged"):
        TriageStore(tmp_path).history()


def test_a_folder_that_is_a_file_is_a_sentence(tmp_path):
    (tmp_path / "home").write_text("")
    with pytest.raises(UsageError, match="cannot be"):
        TriageStore(tmp_path / "home").add(ENTRY)


def test_home_is_where_the_user_says(tmp_path, monkeypatch):
    monkeypatch.setenv("STEEL_HOME", str(tmp_path))
    assert steel_home() == tmp_path
    assert TriageStore().path.parent == tmp_path
    monkeypatch.delenv("STEEL_HOME")
    assert steel_home().name == ".steel-lens"

"""The reader of docs/add-a-dataset.md, run as it stands."""

import re

import pytest
from helpers.small import ROOT

from steel_core.data.open import open_dataset
from steel_core.data.readers.base import READERS

PAGE = (ROOT / "docs" / "add-a-dataset.md").read_text(encoding="utf-8")


@pytest.fixture
def example(monkeypatch):
    """The reader as the page shows it, entered for the time of a test."""
    monkeypatch.setattr(READERS, "_entries", {name: READERS[name] for name in READERS})
    source = next(block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "READERS.register" in block)
    exec(compile(source, "the reader on the page", "exec"), {"__name__": "example"})


def test_the_example_reads_what_it_shows_and_reports_what_it_leaves_out(example, tmp_path):
    for name in ("coil7_scratch_001.png", "coil7_dent_002.png", "coil9_scratch_001.png", "coil9.png", "map.png"):
        (tmp_path / name).write_bytes(b"not read")
    index = open_dataset(tmp_path)
    assert index.table[["path", "labels", "group"]].to_numpy().tolist() == [
        ["coil7_dent_002.png", "dent", "coil7"],
        ["coil7_scratch_001.png", "scratch", "coil7"],
        ["coil9_scratch_001.png", "scratch", "coil9"],
    ]
    assert index.spec.name == "coils"
    assert index.problems == (
        "coil9.png: expected coil, type and number in the name; left out.",
        "map.png: expected coil, type and number in the name; left out.",
    )


def test_the_example_shares_its_priority_with_no_reader(example):
    assert len({READERS[name].priority for name in READERS}) == len(READERS)


def test_the_page_states_every_priority_in_use():
    stated = re.search(r"Taken are: (.*?)\.", PAGE, re.DOTALL).group(1)
    ours = [READERS[name] for name in READERS if READERS[name].__module__.startswith("steel_core.")]
    assert [int(number) for number in re.findall(r"\d+", stated)] == sorted((r.priority for r in ours), reverse=True)

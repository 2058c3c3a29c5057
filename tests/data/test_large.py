"""Folders and manifests of very many files: resumable, and opened without a look at each file."""

import pandas as pd
import pytest

from steel_core.data import large
from steel_core.data.index import DatasetIndex, unknown_spec
from steel_core.data.large import index_folder
from steel_core.data.open import open_dataset
from steel_core.data.readers import manifest
from steel_core.data.readers.manifest import write_manifest
from steel_core.errors import DataError, ImageError, UsageError


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "mill"
    for path in ("train/rust/1.png", "train/rust/2.png", "train/clear/3.png", "test/rust/4.png", "5.png"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"not read")
    (root / "train/rust/.hidden.png").write_bytes(b"")
    (root / "train/rust/notes.txt").write_bytes(b"")
    (root / "link").symlink_to("/etc")
    (root / "link.png").symlink_to("/etc/passwd")
    return root


def test_what_it_lists_is_what_the_reader_lists(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(large, "ROWS", 1)
    calls = []
    index = index_folder(folder, tmp_path / "list" / "m.parquet", lambda what, done, of: calls.append((done, of)))
    wanted = open_dataset(folder)
    ours = index.table[index.table["labels"] != ""]
    columns = ["path", "labels", "split"]
    assert sorted(map(tuple, ours[columns].to_numpy())) == sorted(map(tuple, wanted.table[columns].to_numpy()))
    assert index.table["path"][index.table["labels"] == ""].tolist() == ["5.png"]
    assert index.classes == wanted.classes
    assert calls[-1] == (6, 6)
    assert sorted(path.name for path in (tmp_path / "list").iterdir()) == ["m.dataset.json", "m.parquet"]


def test_an_interrupted_run_goes_on(folder, tmp_path, monkeypatch):
    listed = []
    real = large._list_folder

    def counted(root, name, part):
        if len(listed) == 3:
            raise KeyboardInterrupt
        listed.append(name)
        return real(root, name, part)

    monkeypatch.setattr(large, "_list_folder", counted)
    with pytest.raises(KeyboardInterrupt):
        index_folder(folder, tmp_path / "m.parquet")
    assert not (tmp_path / "m.parquet").exists()
    first = list(listed)
    monkeypatch.setattr(large, "_list_folder", lambda *args: (listed.append(args[1]), real(*args))[1])
    assert len(index_folder(folder, tmp_path / "m.parquet")) == 5
    assert len(listed) == len(set(listed)) == 6
    assert listed[:3] == first


def test_what_cannot_be(folder, tmp_path):
    with pytest.raises(UsageError, match=r"expected a name ending in \.parquet"):
        index_folder(folder, tmp_path / "m.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: expected at least one picture"):
        index_folder(tmp_path / "empty", tmp_path / "m.parquet")


def test_a_large_manifest_is_the_same_index_but_looks_at_no_file(tmp_path, monkeypatch):
    table = pd.DataFrame(
        {"path": ["a/1.png", "a/2.png", "../out.png", "link.png"], "labels": ["rust", "clear|rust", "", "rust"]}
    )
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "link.png").symlink_to("/etc/passwd")
    index = DatasetIndex.build(tmp_path / "set", unknown_spec("x"), table)
    write_manifest(index, tmp_path / "set" / "m.parquet")
    with pytest.raises(DataError):
        open_dataset(tmp_path / "set" / "m.parquet")
    monkeypatch.setattr(manifest, "LARGE", 2)
    again = open_dataset(tmp_path / "set" / "m.parquet")
    assert again.hash == index.hash
    assert again.table["labels"].str.contains("rust").sum() == 3
    with pytest.raises(ImageError, match=r"1\.png: there is no such file"):
        again.image(0)
    for row in (2, 3):  # nothing outside the folder is ever read
        with pytest.raises(DataError, match="leads out of the folder"):
            again.image(row)

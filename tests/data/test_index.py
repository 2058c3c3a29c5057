"""The index, and manifests that read back exactly."""

import csv
import hashlib
import json
import shutil
import string

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steel_core.data.index import (
    COLUMNS,
    DatasetIndex,
    DatasetSpec,
    format_mask_classes,
    parse_mask_classes,
    unknown_spec,
)
from steel_core.data.open import open_dataset
from steel_core.data.readers.manifest import write_manifest
from steel_core.errors import DataError, ImageError, UsageError
from steel_core.types import Box

SPEC = DatasetSpec("made", "Made here", "Free.", "Nobody, 2024", redistributable=True)


def picture(path, value=128):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imencode(".png", np.full((6, 8), value, np.uint8))[1].tofile(path)


@pytest.fixture
def made(tmp_path):
    """Four samples with everything an index can hold."""
    root = tmp_path / "data"
    for number in range(4):
        picture(root / f"images/{number}.png", 10 * number)
    cv2.imwrite(str(root / "m.png"), np.tile(np.array([0, 1, 2, 0, 0, 0, 0, 0], np.uint8), (6, 1)))
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>{}</xmax><ymax>6</ymax></bndbox>"
    (root / "b.xml").write_text(
        "<a><size><width>8</width><height>6</height></size>\n"
        f"<object><name>patches</name>{box.format(3)}</object>\n<object><name>patches</name>{box.format(9)}</object></a>"
    )
    table = pd.DataFrame(
        {
            "path": [f"images/{number}.png" for number in range(4)],
            "labels": ["patches|inclusion", "clear", "", "inclusion"],
            "split": ["train", "val", "test", ""],
            "group": ["g1", "", "", "g1"],
            "source": "coil 7",
            "boxes": ["b.xml", "", "", ""],
            "mask": ["m.png", "", "", ""],
            "mask_classes": ["1=inclusion|2=patches", "", "", ""],
            "stained": ["1", "0", "", "0"],
        }
    )
    return DatasetIndex.build(root, SPEC, table)


def same(a, b):
    pd.testing.assert_frame_equal(a.table, b.table)
    assert (a.root, a.spec, a.classes, a.hash) == (b.root, b.spec, b.classes, b.hash)


def test_samples(made):
    assert len(made) == 4
    assert made.classes == ("clear", "inclusion", "patches")
    first, *_, last = made
    assert first.path == made.root / "images/0.png"
    assert first.labels == ("patches", "inclusion")
    assert (first.split, first.group, first.source) == ("train", "g1", "coil 7")
    assert (first.boxes, first.mask) == (made.root / "b.xml", made.root / "m.png")
    assert first.mask_classes == {1: "inclusion", 2: "patches"}
    assert (last.label, last.boxes, last.mask, last.mask_classes) == ("inclusion", None, None, {})
    assert made[-1] == last
    assert made.labels_encoded().tolist() == [2, 0, -1, 1]
    assert list(made.table.columns) == [*COLUMNS, "stained"]


def test_pixels_boxes_and_masks_come_when_asked_for(made, caplog):
    assert made.image(2).grey().max() == pytest.approx(20 / 255)
    assert made.mask(0).sum() == 6 * 3
    assert made.mask(1) is None
    assert made.boxes(0) == [Box("patches", 0, 0, 3, 6)]
    assert "b.xml, line 3" in caplog.text
    assert [problem.split(":")[0] for problem in made.check_boxes()] == ["b.xml, line 3"]
    (made.root / "images/2.png").unlink()
    assert made[2].path.name == "2.png"
    with pytest.raises(ImageError, match=r"2\.png"):
        made.image(2)
    with pytest.raises(DataError, match=r"^2\.png: cannot be read"):
        made.file_hashes()


def test_select(made):
    assert [s.path.name for s in made.select(rows=[3, 1])] == ["3.png", "1.png"]
    assert [s.path.name for s in made.select(rows=[True, False, True, False])] == ["0.png", "2.png"]
    assert len(made.select(rows=[])) == 0
    assert made.select(rows=[]).labels_encoded().tolist() == []
    assert made.select(rows=[1]).classes == made.classes


def test_binary(made):
    binary = made.binary()
    assert binary.classes == ("clear", "defect")
    assert binary.table["labels"].tolist() == ["defect", "clear", "", "defect"]
    assert binary[0].mask_classes == {1: "defect", 2: "defect"}
    assert binary.boxes(0) == [Box("defect", 0, 0, 3, 6)]
    assert made.table["labels"][0] == "patches|inclusion"


def test_hashes(made, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(made.root, moved)
    other = DatasetIndex.build(moved, SPEC, made.table)
    assert (other.hash, other.content_hash()) == (made.hash, made.content_hash())
    calls = []
    expected = [hashlib.sha256((made.root / f"images/{n}.png").read_bytes()).hexdigest() for n in range(4)]
    assert made.file_hashes(lambda what, done, total: calls.append((done, total))) == expected
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert made.with_splits(["train"] * 4).hash != made.hash
    assert made.binary().hash != made.hash
    picture(moved / "images/3.png", 99)
    assert other.hash == made.hash
    assert other.content_hash() != made.content_hash()


def test_wrong_columns_are_refused(made):
    with pytest.raises(DataError, match="labels also hold patches"):
        DatasetIndex.build(made.root, SPEC, made.table, ["clear", "inclusion"])
    with pytest.raises(UsageError, match="each of 4 samples"):
        made.with_splits(["train"])
    with pytest.raises(UsageError, match="each of 4 samples"):
        made.with_splits(["train", "train", "train", "holdout"])
    with pytest.raises(UsageError, match="each of 4 samples"):
        made.with_groups(["a"])
    assert made.with_groups(list("abca")).table["group"].tolist() == list("abca")
    leaking = made.table.assign(split=["train", "", "", "test"])
    assert "leak" in DatasetIndex.build(made.root, SPEC, leaking).problems[0]


@pytest.mark.parametrize("wrong", ["inclusion", "0=a", "256=a", "1=", "x=a", "1:a", "-1=a"])
def test_wrong_mask_classes_are_refused(wrong):
    with pytest.raises(DataError, match="mask_classes"):
        parse_mask_classes(wrong)


def test_mask_classes_read_back():
    assert format_mask_classes({2: "a=b", 1: "c"}) == "1=c|2=a=b"
    assert parse_mask_classes("1=c|2=a=b") == {1: "c", 2: "a=b"}
    assert parse_mask_classes("") == {}


# Manifests -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["manifest.csv", "list.csv", "list.parquet"])
def test_a_manifest_beside_the_images_reads_back(made, name):
    write_manifest(made, made.root / name)
    same(open_dataset(made.root / name), made)
    assert not [path for path in made.root.iterdir() if path.name.endswith(".tmp")]
    if name == "manifest.csv":
        same(open_dataset(made.root), made)


@pytest.mark.parametrize("name", ["list.csv", "list.parquet"])
def test_a_manifest_elsewhere_reads_back_with_its_root(made, tmp_path, name):
    (tmp_path / "out").mkdir()
    write_manifest(made, tmp_path / "out" / name)
    same(open_dataset(tmp_path / "out" / name), made)
    with pytest.raises(DataError, match=r"\.csv or \.parquet"):
        write_manifest(made, tmp_path / "list.xls")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_way_out_of_a_folder_is_followed_only_for_a_manifest_that_a_person_named(made, tmp_path, suffix):
    (tmp_path / "out").mkdir()
    write_manifest(made, tmp_path / "out" / f"manifest.{suffix}")
    same(open_dataset(tmp_path / "out" / f"manifest.{suffix}"), made)
    with pytest.raises(DataError, match=r"1: there is no 'images/0.png'|2: there is no 'images/0.png'"):
        open_dataset(tmp_path / "out")


TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0|"), min_size=1, max_size=8
) | st.sampled_from(
    ["=1+1", "+a", "-b", "@c", "'d", "''=e", "a,b", 'say "x"', "\t", "\r", "\n", "ünï", "NA", "null", " "]
)
STEM = st.text(string.ascii_letters + string.digits + " ,;'\"=+-@äé.()", min_size=1, max_size=8)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    stems=st.lists(STEM, min_size=1, max_size=4, unique_by=str.casefold),
    texts=st.lists(TEXT, min_size=4, max_size=4),
    header=TEXT.filter(
        lambda t: t.strip() == t and t.casefold() not in {*COLUMNS, "file", "filename", "image", "label", "class"}
    ),
    suffix=st.sampled_from([".csv", ".parquet"]),
)
def test_any_cell_reads_back(tmp_path_factory, stems, texts, header, suffix):
    root = tmp_path_factory.mktemp("cells")
    for stem in stems:
        (root / f"{stem}.png").write_bytes(b"")
    table = pd.DataFrame({"path": [f"{stem}.png" for stem in stems]})
    table["labels"] = [f"{texts[0]}|{texts[1]}"] * len(stems)
    table["group"], table[header] = texts[2], texts[3]
    index = DatasetIndex.build(root, unknown_spec("made"), table)
    write_manifest(index, root / f"list{suffix}")
    same(open_dataset(root / f"list{suffix}"), index)


def test_no_cell_starts_a_formula(made):
    table = made.table.assign(source=["=1+1", "@x", "-2", "＝a"])
    write_manifest(DatasetIndex.build(made.root, SPEC, table), made.root / "list.csv")
    with (made.root / "list.csv").open(newline="", encoding="utf-8") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert "'=1+1" in cells
    assert not [cell for cell in cells if cell[:1] in set("=+-@\t\r\n＝＋－＠")]


def manifest(made, text):
    path = made.root / "list.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffpath;labels;split\r\nimages/0.png;clear;Training\r\n;;\r\n\r\nimages/1.png;patches;valid\r\n",
        "File\tLABEL\tsplit\nimages/0.png\tclear\ttrain\nimages/1.png\tpatches\tVALIDATION\n",
        'split,path,labels\ntrain,images/0.png,clear\n,,\nval,"images/1.png",patches',
    ],
)
def test_spreadsheets_of_all_kinds_are_read(made, text):
    index = open_dataset(manifest(made, text))
    assert index.table[["path", "labels", "split"]].to_numpy().tolist() == [
        ["images/0.png", "clear", "train"],
        ["images/1.png", "patches", "val"],
    ]
    assert (index.spec.name, index.spec.redistributable) == ("list", False)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("path,split\nimages/0.png,train\n\nimages/1.png,holdout\n", "line 4: split 'holdout'"),
        ("name,labels\na,b\n", "expected the columns path"),
        ("path,path\na,b\n", "more than once"),
        ("path\n", "at least one row"),
        ("", "at least one row"),
        ("path,labels\nimages/0.png\n", "line 2: expected 2 cells"),
        ('path,labels\nimages/0.png,"a\n', "line 2: not well-formed"),
        ("path,labels\n,clear\n", "line 2: expected a path"),
        ("path\nimages/0.png\nimages/1.png\nimages/0.png\n", "line 4: 'images/0.png' is already on line 2"),
        ("path\nimages/9.png\n", "line 2: there is no"),
        ("path,labels\nimages/0.png,a||b\n", "line 2: labels"),
        ("path,mask_classes\nimages/0.png,inclusion\n", "line 2: mask_classes"),
        ("path\nimages/0.png\n../secret.png\n", "line 3: '../secret.png': expected a path inside"),
        ("path\nimages/../../secret.png\n", "line 2"),
        ("path\nimages\\..\\..\\secret.png\n", "line 2"),
        ("path\n/etc/passwd\n", "line 2"),
        ("path\nC:\\secret.png\n", "line 2"),
        ("path\n\\\\host\\share\\a.png\n", "line 2"),
        ("path\nimages/0.png\nlinked/secret.png\n", "line 3: 'linked/secret.png': a link"),
        ("path\nimages/0.png\nlink.png\n", "line 3: 'link.png': a link"),
        ("path,mask\nimages/0.png,../m.png\n", "line 2"),
        ("path,boxes\nimages/0.png,/b.xml\n", "line 2"),
        ("path\nimages/ü.png\n".encode("latin-1"), "line 2: expected text in UTF-8"),
        ("path\nimages/0.png\n".encode("utf-16"), "line 1: expected text in UTF-8"),
    ],
)
def test_a_wrong_manifest_is_refused_with_its_line(made, text, says):
    (made.root.parent / "secret.png").write_bytes(b"x")
    (made.root / "linked").symlink_to(made.root.parent)
    (made.root / "link.png").symlink_to(made.root.parent / "secret.png")
    with pytest.raises(DataError) as caught:
        open_dataset(manifest(made, text))
    assert str(caught.value).startswith("list.csv")
    assert says in str(caught.value)
    assert str(made.root.parent) not in str(caught.value)


def test_links_inside_the_data_set_are_read(made):
    (made.root / "again").symlink_to(made.root / "images")
    assert len(open_dataset(manifest(made, "path\nagain/0.png\n"))) == 1


def test_a_link_is_looked_at_each_time_a_manifest_is_opened(made):
    link = made.root / "linked"
    link.symlink_to(made.root.parent)
    (made.root.parent / "0.png").write_bytes(b"x")
    path = manifest(made, "path\nlinked/0.png\n")
    for _ in range(2):
        with pytest.raises(DataError, match="a link that leads out"):
            open_dataset(path)
        link.unlink()
        link.symlink_to(made.root / "images")
        assert len(open_dataset(path)) == 1
        link.unlink()
        link.symlink_to(made.root.parent)


def test_a_missing_image_is_left_out_and_told(made):
    index = open_dataset(manifest(made, "path\nimages/0.png\nimages/9.png\n"))
    assert index.table["path"].tolist() == ["images/0.png"]
    assert index.problems == ("list.csv, line 3: there is no 'images/9.png'; left out.",)


def test_parquet_rows_are_named_and_nulls_are_empty(made):
    path = made.root / "list.parquet"
    pd.DataFrame({"path": ["images/0.png", "images/1.png"], "labels": ["a", None], "depth": [1, 2]}).to_parquet(path)
    assert open_dataset(path).table[["labels", "depth"]].to_numpy().tolist() == [["a", "1"], ["", "2"]]
    pd.DataFrame({"path": ["images/0.png", "../x.png"]}).to_parquet(path)
    with pytest.raises(DataError, match=r"list\.parquet, row 2"):
        open_dataset(path)
    path.write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="expected a Parquet file"):
        open_dataset(path)


def test_the_facts_beside_a_manifest(made):
    path = manifest(made, "path,labels\nimages/0.png,b\n")
    facts = {"name": "n", "title": "t", "licence": "l", "citation": "c", "redistributable": True, "more": 1}
    (made.root / "dataset.json").write_text(json.dumps(facts))
    assert open_dataset(path).spec == DatasetSpec("n", "t", "l", "c", redistributable=True)
    (made.root / "dataset.json").write_text(json.dumps(facts | {"classes": ["c", "b"]}))
    assert open_dataset(path).classes == ("c", "b")
    (made.root / "dataset.json").write_text(json.dumps(facts | {"classes": ["c"]}))
    with pytest.raises(DataError, match=r"list\.csv: .* labels also hold b"):
        open_dataset(path)
    for wrong in ("[]", "{", '{"name": 1}', json.dumps(facts | {"redistributable": "yes"}), "[" * 100_000):
        (made.root / "dataset.json").write_text(wrong)
        with pytest.raises(DataError, match=r"dataset\.json: expected"):
            open_dataset(path)

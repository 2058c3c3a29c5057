"""COCO, YOLO and Label Studio, read and written back."""

import json

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from steel_core.data.index import DatasetIndex, unknown_spec
from steel_core.data.open import open_dataset
from steel_core.data.readers.coco import decode_coco_counts, write_coco
from steel_core.data.readers.manifest import write_manifest
from steel_core.data.regions import decode_runs, encode_runs, format_regions, format_runs
from steel_core.errors import DataError
from steel_core.types import CLEAR, Box

HEIGHT, WIDTH = 40, 60


def picture(path, height=HEIGHT, width=WIDTH):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((height, width), 120, np.uint8))


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def labels(index):
    return dict(zip(index.table["path"].str.rpartition("/")[2], index.table["labels"], strict=True))


# COCO ----------------------------------------------------------------------------------------------------------------


def coco(annotations, images=("a.png", "b.png"), categories=("rust", "scratch")):
    return {
        "images": [{"id": 10 + k, "file_name": name, "height": 1, "width": 1} for k, name in enumerate(images)],
        "annotations": annotations,
        "categories": [{"id": 3 * k, "name": name} for k, name in enumerate(categories)],
    }


def annotation(image=10, category=0, **more):
    return {"id": 1, "image_id": image, "category_id": category, **more}


def opened(root, content, name="annotations/instances_train2017.json"):
    for image in ("a.png", "b.png"):
        picture(root / "train2017" / image)
    write(root / name, content)
    return open_dataset(root)


def test_coco(tmp_path):
    triangle = [[10.0, 10.0, 30.0, 10.0, 10.0, 30.0]]
    index = opened(
        tmp_path,
        coco(
            [
                annotation(bbox=[1, 2, 3, 4]),
                annotation(category=3, bbox=[10, 10, 20, 20], segmentation=triangle, iscrowd=0),
                annotation(category=3, segmentation={"size": [HEIGHT, WIDTH], "counts": [3, 2, 2395]}, iscrowd=1),
            ]
        ),
    )
    assert labels(index) == {"a.png": "scratch|rust", "b.png": CLEAR}
    assert index.classes == (CLEAR, "rust", "scratch")
    assert index.table["split"].tolist() == ["train", "train"]
    assert index.problems == ("1 images have no annotation (the first: train2017/b.png); taken as clear.",)
    assert index.boxes(0) == [Box("scratch", 10, 10, 29, 29), Box("rust", 1, 2, 4, 6), Box("scratch", 0, 3, 1, 5)]
    mask = index.masks(0)["scratch"]
    assert mask[10, 10:29].all()
    assert mask[3:5, 0].all()
    assert abs(int(mask.sum()) - 200 - 2) <= 10
    assert set(index.masks(0)) == {"scratch"}


BLOCKS = "e<?i00000000000000000000000000000000000000000000a9De="
BOARD = (
    "01600000000040L000000040L000000040L000000000M03000000000M03000000000M03000000000M0300000000040L00000"
    "0040L000000040L000000000M03000000000M03000000000M03000000000M0300000000040L000000040L000000040L00000"
    "0000M03000000000M03000000000M03000000000M0300000000040L000000040L000000040L000000000M03000000000M030"
    "00000000M03000000000M0300000000040L000000040L000000040L000000000M03000000000M03000000000M03000000000"
    "M0300000000040L000000040L000000040L000000000M03000000000M03000000000M03000000000M0300000000040L00000"
    "0040L000000040L000000000M03000000000M03000000000M03000000000M0300000000040L000000040L000000040L00000"
    "0000M03000000000M03000000000M03000000000M0300000000040L000000040L000000040L000000000"
)


# Made with pycocotools 2.0.11: mask.encode(np.asfortranarray(array))["counts"].
def test_compressed_counts():
    blocks = np.zeros((HEIGHT, WIDTH), bool)
    blocks[5:20, 10:33] = True
    blocks[30:33, 40:41] = True
    assert np.array_equal(decode_runs(decode_coco_counts(BLOCKS), blocks.shape), blocks)
    board = np.indices((HEIGHT, WIDTH)).sum(axis=0) % 7 == 0
    assert np.array_equal(decode_runs(decode_coco_counts(BOARD), board.shape), board)


@pytest.mark.parametrize("counts", ["~", "o", "oooooooooooo", [1.5], [-1], "\x00", 7, None, [2**60]])
def test_malformed_counts(counts):
    with pytest.raises(DataError):
        runs = decode_coco_counts(counts)
        assert len(runs)
        decode_runs(runs, (2, 2))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (annotation(image=99, bbox=[1, 1, 2, 2]), "no image of the id 99"),
        (annotation(category=1, bbox=[1, 1, 2, 2]), "no category of the id 1"),
        (annotation(bbox=[1, 1, 0, 2]), "width and height above 0"),
        (annotation(bbox=[1, 1, 2]), "expected a bbox"),
        (annotation(bbox=[1, 1, "2", 2]), "expected a number"),
        (annotation(segmentation={"counts": "~~"}), "malformed"),
        (annotation(bbox=[1, 1, 2, 2], segmentation=[[1, 2]]), "3 corners"),
        (annotation(), "expected a bbox"),
        (7, "no image of the id None"),
    ],
)
def test_a_bad_annotation_is_told_and_its_image_is_not_called_clear(tmp_path, wrong, sentence):
    index = opened(tmp_path, coco([wrong, annotation(image=11, bbox=[0, 0, 5, 5])]))
    assert any("instances_train2017.json, annotation number 1" in p and sentence in p for p in index.problems)
    assert any("1 entries are bad and left out, 1 annotations are good and kept" in p for p in index.problems)
    assert labels(index)["b.png"] == "rust"
    assert labels(index)["a.png"] == (CLEAR if "id 99" in sentence or wrong == 7 else "")


@pytest.mark.parametrize("text", ['{"images": [', '{"images": [], "annotations": 3}', '{"images": [' + "[" * 100_000])
def test_a_broken_file_is_told(tmp_path, text):
    with pytest.raises(DataError, match=r"instances_train2017\.json"):
        opened(tmp_path, text)


def test_names_never_leave_the_folder(tmp_path):
    picture(tmp_path / "secret.png")
    content = coco([annotation(bbox=[1, 1, 2, 2])], images=("../secret.png", "a.png"))
    index = opened(tmp_path / "set", content)
    assert labels(index) == {"a.png": CLEAR}
    assert any("no image '../secret.png'" in problem for problem in index.problems)


boxes = st.tuples(
    st.sampled_from(["rust", "scratch"]), st.integers(0, 30), st.integers(0, 20), st.integers(1, 30), st.integers(1, 20)
).map(lambda t: Box(t[0], t[1], t[2], t[1] + t[3], t[2] + t[4]))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("exchange")
    picture(root / "images" / "a.png")
    return root


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=st.lists(boxes, min_size=1, max_size=6))
def test_boxes_to_coco_to_boxes(pictures, wanted):
    index = made(pictures, [{"label": b.label, "box": [b.xmin, b.ymin, b.xmax, b.ymax]} for b in wanted])
    assert write_coco(index, pictures / "set.json") == []
    again = open_dataset(pictures)
    assert sorted(again.boxes(0), key=repr) == sorted(wanted, key=repr)
    write_manifest(again, pictures / "m.parquet")
    assert open_dataset(pictures / "m.parquet").boxes(0) == again.boxes(0)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mask=hnp.arrays(bool, (HEIGHT, WIDTH), elements=st.booleans(), fill=st.just(False)))
def test_masks_to_coco_to_masks(pictures, mask):
    mask[3, 4] = True
    index = made(pictures, [{"label": "rust", "runs": format_runs(encode_runs(mask))}], "1=rust")
    assert write_coco(index, pictures / "set.json") == []
    assert np.array_equal(open_dataset(pictures).masks(0)["rust"], mask)
    entry = json.loads((pictures / "set.json").read_text())["annotations"][0]
    assert entry["area"] == mask.sum()
    assert sum(entry["segmentation"]["counts"]) == mask.size


def made(root, regions, mask_classes=""):
    import pandas as pd

    names = "|".join(dict.fromkeys(region["label"] for region in regions))
    row = {"path": "images/a.png", "labels": names, "regions": format_regions(regions), "mask_classes": mask_classes}
    return DatasetIndex.build(root, unknown_spec("made"), pd.DataFrame([row]))


def test_coco_leaves_out_what_it_cannot_tell(tmp_path):
    picture(tmp_path / "rust" / "1.png")
    picture(tmp_path / "clear" / "2.png")
    problems = write_coco(open_dataset(tmp_path), tmp_path / "out.json")
    assert problems == ["1.png: it is not known where rust lies; left out."]
    assert [image["file_name"] for image in json.loads((tmp_path / "out.json").read_text())["images"]] == [
        "clear/2.png"
    ]


# YOLO ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["images/train", "train/images"])
@pytest.mark.parametrize(
    ("file", "names"),
    [("data.yaml", "names: [rust, scratch]"), ("data.yaml", "names:\n  0: rust\n  1: scratch"),
     ("classes.txt", "rust\nscratch\n")],
)  # fmt: skip
def test_yolo(tmp_path, order, file, names):
    write(tmp_path / file, names)
    for name in ("a", "b", "c"):
        picture(tmp_path / order / f"{name}.png")
    texts = tmp_path / order.replace("images", "labels")
    write(texts / "a.txt", "1 0.5 0.5 0.5 0.2\n\n0 0.1 0.1 0.1 0.1\n")
    write(texts / "b.txt", "")
    index = open_dataset(tmp_path)
    assert labels(index) == {"a.png": "scratch|rust", "b.png": CLEAR, "c.png": ""}
    assert index.classes == (CLEAR, "rust", "scratch")
    assert set(index.table["split"]) == {"train"}
    assert index.boxes(0) == [Box("scratch", 15, 16, 45, 24), Box("rust", 3, 2, 9, 6)]
    assert index.problems == (f"1 images have no text file (the first: {order}/c.png); unlabelled.",)


def test_yolo_polygons(tmp_path):
    write(tmp_path / "classes.txt", "rust")
    picture(tmp_path / "images/a.png")
    write(tmp_path / "labels/a.txt", "0 0 0 0.5 0 0.5 0.5 0 0.5")
    index = open_dataset(tmp_path)
    assert index.masks(0)["rust"].sum() == 30 * 20
    assert index.mask(0)[:20, :30].all()


@pytest.mark.parametrize("line", ["5 .5 .5 .1 .1", "x .5 .5 .1 .1", "0 .5 .5 .1", "0 .5 .5 0 .1", "0 2 .5 .1 .1",
                                  "0 .9 .5 .4 .1", "0 nan .5 .1 .1", "0 a b c d", "-1 .5 .5 .1 .1"])  # fmt: skip
def test_a_bad_yolo_line_is_told_and_its_image_is_not_called_clear(tmp_path, line):
    write(tmp_path / "data.yaml", "names: [rust]")
    for name in ("a", "b"):
        picture(tmp_path / f"images/{name}.png")
    write(tmp_path / "labels/a.txt", f"\n{line}")
    write(tmp_path / "labels/b.txt", f"{line}\n0 .5 .5 .1 .1")
    index = open_dataset(tmp_path)
    assert any(problem.startswith("a.txt, line 2: expected") for problem in index.problems)
    assert "2 lines are bad and left out, 1 are good and kept." in index.problems
    assert labels(index) == {"a.png": "", "b.png": "rust"}


@pytest.mark.parametrize("text", ["names: 3", "- 1", "names: []", "a: &a [*a", "names: !!python/object:os.system []"])
def test_class_names_that_are_none(tmp_path, text):
    write(tmp_path / "data.yaml", text)
    picture(tmp_path / "images/a.png")
    write(tmp_path / "labels/a.txt", "")
    with pytest.raises(DataError, match=r"^data\.yaml: expected"):
        open_dataset(tmp_path)


# Label Studio --------------------------------------------------------------------------------------------------------


def result(kind, names, **value):
    return {"type": kind, "original_width": WIDTH, "original_height": HEIGHT, "value": {kind: names, **value}}


def task(image, *results, **more):
    return {"id": 1, "data": {"image": image}, "annotations": [{"result": list(results), **more}]}


def studio(root, tasks):
    for name in ("a.png", "b c.png", "d.png", "e.png"):
        picture(root / "images" / name)
    write(root / "project-1.json", tasks)
    return open_dataset(root)


def test_label_studio(tmp_path):
    box = {"x": 50, "y": 25, "width": 10, "height": 50}
    index = studio(
        tmp_path,
        [
            task("/data/upload/1/0a1b2c3d-a.png", result("rectanglelabels", ["rust"], **box, rotation=0)),
            task("/data/local-files/?d=images/b%20c.png", result("choices", ["scratch"])),
            task("https://example.org/x/d.png"),
            {"id": 4, "data": {"image": "s3://bucket/e.png"}, "annotations": []},
        ],
    )
    assert labels(index) == {"a.png": "rust", "b c.png": "scratch", "d.png": CLEAR, "e.png": ""}
    assert index.problems == ()
    row = index.table["path"].tolist().index("images/a.png")
    assert index.boxes(row) == [Box("rust", 30, 10, 36, 30)]


def test_a_turned_rectangle_and_a_polygon(tmp_path):
    turned = result("rectanglelabels", ["rust"], x=50, y=25, width=10, height=50, rotation=90)
    corners = result("polygonlabels", ["scratch"], points=[[0, 0], [50, 0], [50, 50], [0, 50]])
    index = studio(tmp_path, [task("a.png", turned, corners)])
    # 6 x 20 pixels from (30, 10), turned clockwise about that corner: to the left and down.
    assert index.boxes(0) == [Box("scratch", 0, 0, 30, 20), Box("rust", 10, 10, 30, 16)]
    assert index.mask(0)[15, 15] == 1
    assert index.mask(0)[0, 0] == 2


def test_which_annotation_counts(tmp_path):
    choice = [result("choices", [name]) for name in ("one", "two", "three")]
    tasks = [task("a.png", choice[0]), task("d.png", choice[0], ground_truth=True)]
    for entry in tasks:
        entry["annotations"] += [{"result": [choice[1]]}, {"result": [choice[2]], "was_cancelled": True}]
    assert labels(studio(tmp_path, tasks)) == {"a.png": "two", "d.png": "one"}


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (result("rectanglelabels", ["rust"], x=1, y=1, width=0, height=4), "width and height above 0"),
        (result("rectanglelabels", ["rust"], x="1", y=1, width=3, height=4), "expected a number"),
        (result("rectanglelabels", [], x=1, y=1, width=3, height=4), "expected a class"),
        (result("polygonlabels", ["rust"], points=[[1, 2], [3]]), "3 corners"),
        (result("ellipselabels", ["rust"], x=1), "expected rectangles, polygons, brushes or choices"),
        ({"type": "rectanglelabels"}, "expected an object with a value"),
        (3, "expected an object with a value"),
    ],
)
def test_a_bad_result_is_told_and_its_image_is_not_called_clear(tmp_path, wrong, sentence):
    index = studio(tmp_path, [task("a.png", wrong), task("nowhere.png"), task("d.png"), 7])
    assert labels(index) == {"a.png": "", "d.png": CLEAR}
    assert len(index.problems) == 3
    assert index.problems[0].startswith("project-1.json, task number 1, result number 1: ")
    assert sentence in index.problems[0]


def stroke(mask):
    """A result as Label Studio writes it: the painted picture, each pixel of the code a repeat of one."""
    values = np.repeat(mask.ravel(), 4) * 255
    bits = f"{len(values):032b}00111" + "0000" * 4 + "".join(f"1000{value:08b}" for value in values)
    bits += "0" * (-len(bits) % 8)
    rle = [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]
    return result("brushlabels", ["rust"], format="rle", rle=rle)


def test_a_brush_stroke_gives_a_mask_and_a_box(tmp_path):
    mask = np.zeros((HEIGHT, WIDTH), int)
    mask[5:9, 3:30] = 1
    corners = result("polygonlabels", ["scratch"], points=[[0, 0], [50, 0], [50, 50], [0, 50]])
    index = studio(tmp_path, [task("a.png", stroke(mask), corners)])
    assert index.problems == () and labels(index) == {"a.png": "scratch|rust"}
    np.testing.assert_array_equal(index.masks(0)["rust"], mask == 1)
    assert Box("rust", 3, 5, 30, 9) in index.boxes(0)


def test_a_damaged_stroke_labels_its_image_whose_mask_is_refused(tmp_path):
    good = stroke(np.ones((HEIGHT, WIDTH), int))
    other = {**good, "original_width": WIDTH - 1}
    torn = result("brushlabels", ["rust"], format="rle", rle=[0, 1])
    index = studio(tmp_path, [task("a.png", torn), task("d.png", good, other)])
    assert labels(index) == {"a.png": "rust", "d.png": "rust"}
    for row, says in ((0, "ends too early"), (1, "picture of another size than its 60 x 40 pixels")):
        with pytest.raises(
            DataError, match=f"project-1.json, task number {row + 1}, result number {row + 1}: .*{says}"
        ):
            index.masks(row)
    assert [f"task number {k}" in problem for k, problem in enumerate(index.check_boxes(), start=1)] == [True, True]

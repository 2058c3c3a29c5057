"""Explore without a browser: filters in the URL, brushing, map, findings, an image's page, strips."""

import io
import json
import re
import threading
from pathlib import PurePosixPath

import cv2
import numpy as np
import pandas as pd
import pytest
from helpers.dash import begin, png, waited, words

from dashboard import services
from steel_core.data.open import open_dataset
from steel_core.errors import DataError
from steel_core.evaluation.store import load_or_evaluate
from steel_core.inference.predictor import Predictor
from steel_core.store.triage import Triage, TriageStore

pytestmark = pytest.mark.usefixtures("own_folders")


@pytest.fixture(scope="module")
def index(home):
    return open_dataset(home / "data" / "sheets")


@pytest.fixture(scope="module")
def evaluated(home, index, own_folders):
    """What a-six says of the sheets, stored as the page finds it."""
    return load_or_evaluate(Predictor.load(home / "models" / "a-six"), index).table


def names(test):
    """Base names in the gallery."""
    return [link.proto.label.replace("\\", "") for link in test.get("page_link") if "image=" in link.proto.query_string]


def base(paths):
    return [PurePosixPath(path).name for path in paths]


# Gallery and filters


def test_it_shows_24_a_page_and_what_the_data_set_is(app):
    test = app("explore", data="sheets")
    said = words(test)
    assert "1 to 24 of 60 images" in said and "CC0" in said
    assert len(names(test)) == 24
    assert "Not readable" in said and "sheet\\-000003\\.png" in said
    assert not test.error and not test.exception


def test_page_class_split_and_length_come_from_the_url(app, index):
    assert "49 to 60 of 60 images" in words(app("explore", data="sheets", page="3"))
    assert "1 to 48 of 60 images" in words(app("explore", data="sheets", per="48"))
    test = app("explore", data="sheets", label="patches", split="train")
    wanted = index.table.query("labels == 'patches' and split == 'train'")["path"]
    assert 0 < len(wanted) < 24
    assert names(test) == base(wanted)


def test_a_filter_starts_at_its_first_page_and_its_chip_takes_it_back(app):
    test = app("explore", data="sheets", page="3")
    test.selectbox(key="label").select("clear").run()
    assert "1 to " in words(test) and "of 60 images" not in words(test)
    test.button(key="chip label").click().run()
    assert "1 to 24 of 60 images" in words(test)


def test_no_matches_can_be_cleared(app):
    test = app("explore", data="sheets", group="no such group")
    assert "No image matches these filters" in words(test)
    next(b for b in test.button if b.label == "Clear filters").click().run()
    assert "of 60 images" in words(test)


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"label": "rust"}, "There is no class “rust”"),
        ({"split": "best"}, "There is no split “best”"),
        ({"page": "99"}, "There is no page “99”"),
        ({"range": "beauty:0:1"}, "Here is no number “beauty\\:0\\:1”"),
        ({"range": "brightness"}, "Here is no number “brightness”"),
    ],
)
def test_what_the_url_asks_for_and_is_not_there_gets_a_sentence(app, query, sentence):
    test = app("explore", data="sheets", **query)
    assert sentence in words(test) and "1 to 24 of 60 images" in words(test)
    assert sentence not in words(app("explore", data="sheets"))


def test_each_picture_links_to_its_own_page_with_the_chosen_model(app):
    link = app("explore", data="sheets", model="c-bare").get("page_link")[0].proto
    assert link.page == "explore"
    assert "image=images%2Fsheet-000000.png" in link.query_string and "model=c-bare" in link.query_string


def test_predictions_filter_and_sort_where_an_evaluation_is_stored(app, evaluated):
    test = app("explore", data="sheets", model="a-six", verdict="wrong", sort="loss", falling="true")
    wrong = evaluated[(evaluated["label"] != evaluated["pred"]) & (evaluated["label"] != "clear")]
    wanted = wrong.sort_values("loss", ascending=False, kind="stable")["file"]
    assert len(wanted) > 0
    assert names(test) == base(wanted)[:24]
    test = app("explore", data="sheets", model="a-six", sort="defect area", falling="true", label="patches")
    area = evaluated[evaluated["label"] == "patches"].sort_values("defect_area", ascending=False, kind="stable")
    assert names(test) == base(area["file"])
    pred = evaluated["pred"].iloc[0]
    test = app("explore", data="sheets", model="a-six", pred=pred)
    assert f"of {(evaluated['pred'] == pred).sum()} images" in words(test)
    assert "Prediction" not in [box.label for box in app("explore", data="sheets", model="b-clear").selectbox]


def test_outlines_change_the_picture_and_their_legend_names_the_classes(app, index):
    test = app("explore", data="sheets", model="c-bare")
    assert 'aria-label="Outlines by class"' in words(test)
    shown = services.explore.open_collection("sheets", None)
    row = next(i for i in range(len(index)) if index[i].labels[0] == "patches")
    mask = index.mask(row) > 0
    plain, drawn = (
        cv2.imdecode(np.frombuffer(services.explore.picture(shown, row, on), np.uint8), cv2.IMREAD_COLOR)
        for on in (False, True)
    )
    changed = (np.abs(plain.astype(int) - drawn).max(axis=2) > 60).mean()
    assert plain.std(axis=2).max() < 12 and drawn.std(axis=2).max() > 60  # grey, then in colour
    assert 0 < changed < 0.9 and mask.any()
    assert services.explore.outlined_classes(shown, [row]) == {"patches"}


def test_the_average_of_a_class_is_the_mean_of_its_images(app, index):
    test = app("explore", data="sheets", label="patches", averages="true")
    rows = [i for i in range(len(index)) if "patches" in index[i].labels]
    assert f"{len(rows)} images; spread up to" in words(test)
    shown = services.explore.open_collection("sheets", None)
    averages = services.distributions.averages(shown, services.explore.Filter(label="patches"))["patches"]
    greys = [cv2.resize(index.image(i).grey(), (128, 128), interpolation=cv2.INTER_AREA) for i in rows]
    np.testing.assert_allclose(averages.mean[..., 0], 255 * np.mean(greys, axis=0), atol=1)
    assert averages.largest == pytest.approx(np.std(greys, axis=0).max(), abs=1e-4)


# Distributions


def test_numbers_are_measured_by_a_worker_and_a_range_filters_by_them(app, index):
    test = app("explore", data="sheets", model="c-bare", tab="Distributions")
    if any(b.label.startswith("Begin") for b in test.button):  # unless the evaluation has measured them
        begin(test)
    assert "Sharpness" in words(test) and not test.error and not test.exception
    measured = pd.Series([index.image(i).grey().mean() if i != 3 else np.nan for i in range(len(index))])
    low, high = measured.quantile([0.25, 0.6])
    test = app("explore", data="sheets", model="c-bare", range=f"brightness:{low}:{high}")
    wanted = index.table["path"][measured.between(low, high)]
    assert f"of {len(wanted)} images" in words(test)
    assert names(test) == base(wanted)[:24]
    test.button(key="chip brightness").click().run()
    assert "of 60 images" in words(test)


def test_the_counts_by_class_carry_wilson_intervals(app, index):
    shown = services.explore.open_collection("sheets", None)
    bars = services.distributions.plots(shown, services.explore.Filter())["Images by class"].data[0]
    n = {label: sum(label in s.labels for s in index) for label in index.classes}
    z, of = 1.959963984540054, len(index)
    for label, count, up in zip(bars.customdata, bars.x, bars.error_x.array, strict=True):
        assert count == n[label]
        p = count / of
        high = (p + z**2 / (2 * of) + z * np.sqrt(p * (1 - p) / of + z**2 / (4 * of**2))) / (1 + z**2 / of)
        assert count + up == pytest.approx(high * of, rel=1e-6)


# An image's own page


def test_an_image_has_its_page_with_facts_verdict_neighbours_and_ways_on(app, index, evaluated):
    path = "images/sheet-000004.png"
    test = app("explore", data="sheets", model="a-six", image=path)
    said = words(test)
    assert not test.error and not test.exception
    assert "sheet\\-000004\\.png" in said and f"**Label:** {index[4].labels[0]}" in said
    assert said.count('role="listitem"') == 6  # a probability for each class
    assert "**In the evaluation:**" in said
    ways = {link.proto.page: link.proto.query_string for link in test.get("page_link")}
    assert {"inspect", "explain", "audit"} <= set(ways)
    assert all("image=images%2Fsheet-000004.png" in ways[page] for page in ("inspect", "explain", "audit"))
    assert any("image=images%2Fsheet-000004.png" in code.value for code in test.code)
    table = next(frame.value for frame in test.dataframe if "Above, of all" in frame.value)
    light = np.array([index.image(i).grey().mean() for i in range(len(index)) if i != 3])
    mine = index.image(4).grey().mean()
    share = table.set_index("Number")["Above, of all"]["Brightness"]
    assert share == pytest.approx(((light < mine - 1e-6).sum() + 0.5) / len(light), abs=1e-6)
    test.button[0].click().run()
    assert "1 to 24 of 60 images" in words(test)


def test_neighbours_are_shown_once_the_model_has_looked(app, index, home):
    test = begin(app("explore", data="sheets", model="c-bare", image="images/sheet-000010.png"))
    model = Predictor.load(home / "models" / "c-bare")
    rows = [i for i in range(len(index)) if i != 3]
    features = model.features([index.image(i) for i in rows])
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    likeness = features @ features[rows.index(10)]
    nearest = [rows[i] for i in np.argsort(-likeness, kind="stable") if rows[i] != 10][:12]
    said = [float(m) for m in re.findall(r"likeness (\d\.\d+)", words(test))]
    np.testing.assert_allclose(said, sorted(likeness, reverse=True)[1:13], atol=2e-3)
    assert len(set(names(test)[3:]) & set(base(index.table["path"].iloc[nearest]))) >= 10  # ties may swap


def test_earlier_triage_is_shown(app, index, evaluated):
    sha = index.image(12).sha256
    entry = {"file": "sheet-000012.png", "checkpoint": "c", "label": "a", "pred": "b", "finding": "label wrong"}
    TriageStore().add(Triage(image_sha256=sha, who="Ada", comment="=HYPERLINK", **entry))
    test = app("explore", data="sheets", model="a-six", image="images/sheet-000012.png")
    table = next(frame.value for frame in test.dataframe if "Who" in frame.value)
    assert table["Who"].tolist() == ["Ada"] and table["Finding"].tolist() == ["label wrong"]


@pytest.mark.parametrize("path", ["/etc/passwd", "../../etc/passwd", "images/none.png"])
def test_an_unknown_image_gets_a_sentence_and_is_never_opened(app, path):
    test = app("explore", data="sheets", image=path)
    assert "holds no image of this name" in test.error[0].value
    assert "etc/" not in words(test) and not test.exception


def test_an_image_that_cannot_be_read_says_so_on_its_page(app):
    test = app("explore", data="sheets", image="images/sheet-000003.png")
    assert "sheet\\-000003\\.png" in test.error[0].value and not test.exception


# Map, findings, strips


def test_what_is_drawn_around_on_the_map_filters_the_gallery(app, index):
    test = app("explore", data="sheets", model="c-bare", tab="Map")
    if any(b.label.startswith("Begin") for b in test.button):
        begin(test)
    shown = services.explore.open_collection("sheets", services.models.predictor("c-bare"))
    x, y = (shown.facts[name].to_numpy() for name in services.explore.PLACES)
    middle = float(np.nanmedian(x))
    corners = [(x.min() - 1e3, -1e6), (middle, -1e6), (middle, 1e6), (x.min() - 1e3, 1e6)]
    around = " ".join(f"{a:.2f},{b:.2f}" for a, b in np.nan_to_num(corners, nan=-1e6))
    test = app("explore", data="sheets", model="c-bare", tab="Map", around=around)
    wanted = index.table["path"][(x < round(middle, 2)) & np.isfinite(y)]
    assert f"of {len(wanted)} images" in words(test)
    test.button(key="chip around").click().run()
    assert "of 60 images" in words(test)


def test_a_picture_of_ones_own_finds_itself(app, index, home):
    test = app("explore", data="sheets", model="c-bare", tab="Map")
    if any(b.label.startswith("Begin") for b in test.button):
        begin(test)
    content = (home / "data" / "sheets" / "images" / "sheet-000020.png").read_bytes()
    test.file_uploader(key="alike to").set_value(("mine.png", content, "image/png")).run()
    assert "likeness 1.000" in words(test) and not test.exception
    test.file_uploader(key="alike to").set_value(("bad.png", b"no picture", "image/png")).run()
    assert "bad\\.png" in test.error[0].value and not test.exception


def test_findings_are_listed_exported_and_the_data_stays_as_it_is(app, index, home):
    before = {p: p.stat().st_mtime_ns for p in (home / "data").rglob("*") if p.is_file()}
    test = begin(app("explore", data="sheets", model="c-bare", tab="Findings"))
    said = words(test)
    assert "findings** in all 60 images" in said and "False alarms, measured" in said
    test = app("explore", data="sheets", model="c-bare", tab="Findings", kind="Unreadable")
    assert "sheet\\-000003\\.png\\: cannot be read" in words(test)
    model = services.models.predictor("c-bare")
    shown = services.explore.open_collection("sheets", model)
    findings = services.explore.findings(shown, model)
    content = json.loads(services.explore.findings_json(shown, findings))
    assert content["images"] == 60 and {"unreadable"} <= {one["kind"] for one in content["findings"]}
    assert b"sheet-000003.png" in services.explore.findings_to_csv(findings)
    table = pd.read_csv(io.BytesIO(services.explore.cleaned_manifest(shown, findings)))
    assert "images/sheet-000003.png" not in set(table["path"]) and len(table) <= 59
    assert before == {p: p.stat().st_mtime_ns for p in (home / "data").rglob("*") if p.is_file()}


def test_a_long_strip_is_judged_tile_by_tile(app, home, monkeypatch, tmp_path):
    folder = tmp_path / "data" / "strips" / "defect"
    folder.mkdir(parents=True)
    (folder.parent / "clear").mkdir()
    rng = np.random.default_rng(0)
    steel = rng.integers(90, 150, (64, 640), dtype=np.uint8)
    cv2.imwrite(str(folder / "long.png"), np.pad(steel, ((0, 0), (0, 100))))
    (folder.parent / "clear" / "short.png").write_bytes(png(4))
    monkeypatch.setenv("STEEL_DATA", str(tmp_path / "data"))
    test = waited(app("explore", data="strips", model="c-bare", image="defect/long.png"))
    said = words(test)
    assert not test.error and not test.exception
    assert re.search(r"\*\*(\d+) tiles:\*\*", said).group(1) == "13"  # 64 wide, 48 apart
    assert len(next(f.value for f in test.dataframe if "Tile" in f.value)) == 13
    assert "100 pixels at the right are black, without steel, and were not judged." in said
    assert "Tile by tile" not in words(app("explore", data="strips", model="c-bare", image="clear/short.png"))


def test_an_image_is_found_by_its_base_name_where_only_one_has_it(app, monkeypatch, tmp_path):
    for place in ("coil 1/same.png", "coil 2/same.png", "coil 2/other.png"):
        (tmp_path / "data" / "coils" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "coils" / place).write_bytes(png(hash(place) % 100))
    monkeypatch.setenv("STEEL_DATA", str(tmp_path / "data"))
    test = app("explore", data="coils", model="c-bare", image="other.png")
    assert not test.error and test.query_params["image"] == "coil 2/other.png"
    test = app("explore", data="coils", model="c-bare", image="same.png")
    assert "holds 2 images named same" in test.error[0].value and "name its folder" in test.error[0].value
    assert "Back to the gallery" in [button.label for button in test.button]
    for folder in ("coil 1", "coil 2"):
        test = app("explore", data="coils", model="c-bare", image=f"{folder}/same.png")
        assert not test.error and f"**File:** {folder}/same\\.png" in words(test)
    assert [path for path, _ in services.datasets.named("coils", ["same.png", "other.png"])] == ["coil 2/other.png"]


def test_work_tells_how_far_it_is_and_once_stopped_is_offered_again(app, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def slowly(index, predictor, count):
        while True:
            count("looking for near-duplicates", 3, 10)
            begun.set()
            go_on.wait(0.05)

    monkeypatch.setattr("steel_core.evaluation.data_check.load_or_check", slowly)
    test = app("explore", data="sheets", model="b-clear", tab="Findings")
    next(b for b in test.button if str(b.key).startswith("begin check")).click().run()
    assert begun.wait(30)
    test.run()
    assert "3 of 10" in test.get("progress")[0].proto.text
    job = services.explore.work("check", services.models.predictor("b-clear"), "sheets")
    next(b for b in test.button if b.label == "Stop").click().run()
    with pytest.raises(services.jobs.Stopped):
        job.future.result(30)
    test.run()
    assert any(b.label.startswith("Begin, about") for b in test.button)
    assert not test.error and not test.exception


def test_work_that_fails_says_why(app, monkeypatch):
    def fail(*_):
        raise DataError("none of the 60 images could be read")

    monkeypatch.setattr("steel_core.evaluation.data_check.load_or_check", fail)
    test = app("explore", data="sheets", model="b-clear", tab="Findings")
    test = begin(test)
    assert "none of the 60 images could be read" in test.error[0].value and not test.exception

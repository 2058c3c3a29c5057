"""The recipe: which images count, what is stored, what a single map is told."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.small import make_checkpoint, steel_image
from PIL import Image

from steel_core.data.open import open_dataset
from steel_core.errors import CheckpointError, UsageError
from steel_core.evaluation import map_quality as quality
from steel_core.evaluation import trust
from steel_core.evaluation.map_quality import add_controls, measure_quality
from steel_core.evaluation.quality_report import QualityReport, store_quality, summarise_rows
from steel_core.evaluation.trust import measure_trust
from steel_core.explain.base import EXPLAINERS
from steel_core.explain.quality.base import METRICS
from steel_core.inference.predictor import Predictor
from steel_core.metrics import wilson_interval
from steel_core.models.checkpoint import load_checkpoint, update_card

CONTROLS = ("random", "sobel")


def sheets(folder, n=12, size=64):
    """Grey noise with a bright square and its mask; every third sheet is clear."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for i in range(n):
        pixels, mask = rng.integers(90, 150, (size, size), dtype=np.uint8), np.zeros((size, size), np.uint8)
        if i % 3:
            y, x = rng.integers(0, size - 20, 2)
            pixels[y : y + 20, x : x + 20] += 90
            mask[y : y + 20, x : x + 20] = 255
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    result = open_dataset(sheets(tmp_path_factory.mktemp("data") / "sheets"))
    return result.with_groups([f"g{i}" for i in range(len(result))])


@pytest.fixture(scope="module")
def predictor(checkpoint):
    torch.set_num_threads(1)
    return Predictor(checkpoint, "cpu")


@pytest.fixture(scope="module")
def report(predictor, index):
    return measure_quality(predictor, index, ["grad-cam"], images=6)


def test_the_controls_are_always_there(report):
    assert report.methods == ("grad-cam", *CONTROLS)
    assert set(report.rows["method"]) == {"grad-cam", *CONTROLS}
    assert add_controls(["sobel", "gradient"]) == ("gradient", *CONTROLS)
    assert set(add_controls(None)) == set(EXPLAINERS)
    with pytest.raises(UsageError, match="unknown explainer"):
        add_controls(["magic"])


def test_a_row_leads_to_its_image_and_no_image_counts_twice(report, index):
    rows = report.rows
    assert not rows.duplicated(["row", "method", "metric"]).any()
    for line in rows.drop_duplicates("row").to_dict("records"):
        assert index[line["row"]].path.name == line["file"]
        assert line["class"] in index[line["row"]].labels
        assert line["group"] == index[line["row"]].group
    assert rows["row"].nunique() == report.n == 6


def test_only_images_with_a_mask_count_for_localisation(report):
    kinds = report.rows["metric"].map(lambda name: METRICS[name].family)
    assert set(report.rows["class"][kinds == "localisation"]) == {"defect"}
    assert set(report.rows["class"][kinds == "faithfulness"]) == {"clear", "defect"}
    assert report.evidence == "masks"


def test_edges_find_a_bright_square_and_do_not_explain_the_model(report):
    table = summarise_rows(report.rows).set_index(["method", "metric"])
    assert table.loc[("sobel", "rank-accuracy"), "lift"] > table.loc[("random", "rank-accuracy"), "lift"]
    for control in CONTROLS:
        assert table.loc[(control, "randomised-model"), "value"] == pytest.approx(1)
    assert "Do not explain this model" in report.table()
    assert "random" in report.table().splitlines()[-1]


def test_the_rule_is_chosen_on_other_images_than_those_counted(predictor, index, monkeypatch):
    seen = []
    original = quality._pick_images

    def spy(*arguments):
        picked = original(*arguments)
        seen.append({one.group for one in picked})
        return picked

    monkeypatch.setattr(quality, "_pick_images", spy)
    pairs = index.with_groups([f"pair {i // 2}" for i in range(len(index))])
    result = measure_quality(predictor, pairs, [], images=12)
    tuning, counted = seen
    assert tuning
    assert counted
    assert not tuning & counted
    assert "other images" in result.rules["sobel"].chosen_on


def test_images_that_trained_the_checkpoint_do_not_count_unless_asked(checkpoint, index):
    hashes = [h[:16] for h in index.file_hashes()]
    files = {"train": hashes[:4], "val": hashes[4:8], "test": hashes[8:]}
    card = checkpoint.card.replace(split={"files": files})
    knowing = Predictor(dataclasses.replace(checkpoint, card=card), "cpu")
    result = measure_quality(knowing, index, [], images=12)
    assert set(result.rows["row"]) == {8, 9, 10, 11}
    assert any("8 images" in sentence for sentence in result.left_out)
    asked = measure_quality(knowing, index, [], images=12, include_learnt=True)
    assert set(asked.rows["row"]) == {0, 1, 2, 3, 8, 9, 10, 11}  # the rule is chosen on the validation images


def test_the_same_steel_in_another_file_was_learnt_too(checkpoint, index, tmp_path):
    (tmp_path / "other" / "clear").mkdir(parents=True)
    (tmp_path / "other" / "defect").mkdir()
    copies = {0: "clear", 1: "defect", 3: "clear"}
    for i, label in copies.items():
        with Image.open(index[i].path) as picture:
            picture.save(tmp_path / "other" / label / f"copy {index[i].path.stem}.bmp")
    learnt = open_dataset(tmp_path / "other")
    card = checkpoint.card.replace(split={"files": {"train": [h[:16] for h in learnt.file_hashes()]}})
    knowing = Predictor(dataclasses.replace(checkpoint, card=card), "cpu")
    result = measure_quality(knowing, index, [], images=12, learnt=learnt)
    assert not {0, 1, 3} & set(result.rows["row"])
    assert any("same steel" in sentence for sentence in result.left_out)


def test_a_bad_image_and_a_bad_mask_do_not_stop_the_others(predictor, tmp_path):
    folder = sheets(tmp_path / "sheets")
    index = open_dataset(folder).with_groups([str(i) for i in range(12)])
    (folder / "images" / "1.png").write_bytes(b"not an image")
    Image.new("L", (5, 5), 255).save(folder / "masks" / "2.png")
    result = measure_quality(predictor, index, [], images=12)
    assert any("1.png" in sentence for sentence in result.left_out)
    assert any("2.png" in sentence for sentence in result.left_out)
    assert all(str(tmp_path) not in sentence for sentence in result.left_out)


def hand_made(values, groups, chance=0.25):
    rows = pd.DataFrame(
        {
            "file": "a.png", "row": range(len(values)), "class": ["x", "y"] * (len(values) // 2), "group": groups,
            "method": "sobel", "metric": "dice", "value": values, "chance": chance,
        }
    )  # fmt: skip
    empty = pd.DataFrame(columns=["file", "group", "a", "b", "spearman", "top_iou"])
    return QualityReport("d", "masks", ("sobel",), len(values), rows, empty, {}, {}, ())


def test_means_and_lift_by_hand_and_groups_widen_the_interval():
    values = np.linspace(0, 1, 40)
    alone = summarise_rows(hand_made(values, [str(i) for i in range(40)]).rows).iloc[0]
    assert alone["value"] == pytest.approx(0.5)
    assert alone["lift"] == pytest.approx(2.0)
    assert alone["n"] == 40
    half = 1.96 * values.std() / 40**0.5
    assert alone["low"] == pytest.approx(0.5 - half, abs=0.02)
    assert alone["high"] == pytest.approx(0.5 + half, abs=0.02)
    together = summarise_rows(hand_made(values, [str(i // 8) for i in range(40)]).rows).iloc[0]
    assert together["high"] - together["low"] > 1.5 * (alone["high"] - alone["low"])
    by_class = summarise_rows(hand_made(values, [str(i) for i in range(40)]).rows, by_class=True).set_index("class")
    assert by_class.loc["x", "value"] == pytest.approx(values[::2].mean())


def test_values_that_are_all_alike_still_leave_doubt():
    line = summarise_rows(hand_made(np.ones(10), [str(i) for i in range(10)]).rows).iloc[0]
    assert (line["low"], line["high"]) == pytest.approx(wilson_interval(1.0, 10))


@pytest.fixture
def stored(tmp_path, report):
    folder = make_checkpoint(tmp_path / "stored")
    store_quality(folder, report)
    return folder


def test_what_is_stored_can_be_loaded_and_stands_beside_other_data(stored, report):
    first = load_checkpoint(stored)
    kept = first.card.quality["sheets"]
    line = summarise_rows(report.rows).set_index(["method", "metric"]).loc[("sobel", "dice")]
    assert kept.methods["sobel"]["dice"].value == pytest.approx(line["value"], abs=1e-4)
    assert kept.methods["sobel"]["dice"].n == line["n"]
    assert kept.images == 6
    assert first.card.regions["sobel"] == report.rules["sobel"]
    boxes = {m: rule.replace(k=9.0, chosen_on="boxes") for m, rule in report.rules.items()}
    store_quality(stored, dataclasses.replace(report, data="others", evidence="boxes", rules=boxes))
    second = load_checkpoint(stored)
    assert set(second.card.quality) == {"sheets", "others"}
    assert second.card.regions == first.card.regions  # boxes are coarser than masks
    assert second.card.weights_sha256 == first.card.weights_sha256
    assert second.hash != first.hash


@pytest.mark.parametrize(
    "wrong",
    [
        {"regions": {"sobel": {"k": 1}}},
        {"quality": {"d": {"methods": {}}}},
        {"quality": {"d": {"images": 1, "evidence": "", "methods": {"m": {"dice": 0.5}}}}},
    ],
)
def test_a_card_holds_nothing_that_cannot_be_read_back(tmp_path, wrong):
    folder = make_checkpoint(tmp_path / "made")
    before = (folder / "card.json").read_bytes()
    with pytest.raises(CheckpointError, match="in its card"):
        update_card(folder, lambda card: wrong)
    assert (folder / "card.json").read_bytes() == before
    (folder / "card.json").write_text(json.dumps(json.loads(before) | wrong))
    with pytest.raises(CheckpointError, match="in its card"):
        load_checkpoint(folder)


def test_trust_of_one_map(stored):
    knowing, image = Predictor.load(stored, "cpu"), steel_image()
    for method, explains in (("grad-cam", None), ("sobel", False), ("random", False)):
        answer = measure_trust(knowing, image, knowing.explain(image, method, "defect"))
        assert 0 <= answer.percentile <= 1
        assert 0 <= answer.beats_random <= 1
        assert 0 <= answer.area <= 1
        assert -1 <= answer.faithfulness <= 1
        if explains is not None:
            assert answer.explains_model is explains
        json.dumps(answer.to_json())


def test_trust_without_figures_and_of_a_contrast(predictor):
    image = steel_image()
    answer = measure_trust(predictor, image, predictor.explain(image, "grad-cam", "defect", against="clear"))
    assert answer.percentile is answer.beats_random is answer.explains_model is answer.area is answer.lift is None
    assert np.isfinite(answer.faithfulness)


def test_a_percentile_is_the_share_below():
    assert trust._share_below([0.0, 1.0, 2.0, 3.0], -1.0) == 0
    assert trust._share_below([0.0, 1.0, 2.0, 3.0], 1.5) == 0.5
    assert trust._share_below([0.0, 1.0, 2.0, 3.0], 9.0) == 1
    assert trust._share_below(None, 9.0) is None


def test_a_wrong_call(predictor, index):
    with pytest.raises(UsageError, match="at least 1"):
        measure_quality(predictor, index, images=0)

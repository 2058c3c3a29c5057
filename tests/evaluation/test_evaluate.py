"""Evaluations against the predictor, scikit-learn and what was put in; stored ones against fresh ones."""

import dataclasses
import itertools
import json

import numpy as np
import pandas as pd
import pytest
from helpers.small import make_checkpoint, steel_image
from PIL import Image
from sklearn import metrics as oracle

from steel_core.data.open import open_dataset
from steel_core.errors import CheckpointError, DataError, UsageError
from steel_core.evaluation import evaluate as recipe
from steel_core.evaluation.evaluate import evaluate
from steel_core.evaluation.store import find_evaluation, load_evaluation, load_or_evaluate, save_evaluation
from steel_core.evaluation.thresholds import ThresholdProposal, propose_thresholds, save_thresholds
from steel_core.inference.keys import model_key
from steel_core.inference.predictor import Predictor
from steel_core.inference.tiling import predict_images
from steel_core.metrics.decisions import Costs
from steel_core.models.checkpoint import load_checkpoint

CLASSES = ("crazing", "scratches")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STEEL_CACHE", str(tmp_path / "cache"))


def write_images(root, counts, seed=0):
    """One folder per class; brightness differs by class."""
    rng = np.random.default_rng(seed)
    for k, (name, n) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for i in range(n):
            pixels = rng.normal(90 + 60 * k, 30, (64, 64)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{name}-{i}.png")
    return open_dataset(root)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("data") / "plates", {"crazing": 20, "scratches": 15})


@pytest.fixture(scope="module")
def predictor(tmp_path_factory, data):
    hashes = [h[:16] for h in data.file_hashes()]
    files = {"train": hashes[:5], "val": hashes[5:8] + hashes[20:24], "test": hashes[8:14]}
    folder = make_checkpoint(tmp_path_factory.mktemp("m") / "small", CLASSES, temperature=0.7, split={"files": files})
    return Predictor.load(folder, "cpu")


@pytest.fixture(scope="module")
def whole(predictor, data):
    return evaluate(predictor, data, "all")


def test_every_row_is_what_the_predictor_says(predictor, data, whole):
    for i, row in enumerate(whole.table.itertuples()):
        said = predictor.predict([data.image(row.row)])[0]
        assert (row.pred, row.outcome, row.image_sha256) == (said.pred, said.outcome, said.image_sha256)
        np.testing.assert_allclose(whole.probs[i], list(said.probs.values()), rtol=1e-4, atol=1e-6)
        assert row.label == data[row.row].label
        assert row.loss == pytest.approx(-np.log(said.probs[row.label]), rel=1e-3)


def test_parts_are_told_by_the_hash_of_the_bytes(predictor, data, whole):
    assert [len(whole.select(part)) for part in ("all", "train", "val", "test", "held-out")] == [35, 5, 7, 6, 23]
    for part in ("train", "val", "test", "held-out"):
        fresh = evaluate(predictor, data, part)
        pd.testing.assert_frame_equal(fresh.table, whole.select(part).table, check_exact=False, atol=1e-5)
        assert fresh.left_out == whole.select(part).left_out
    with pytest.raises(UsageError, match="only the part val"):
        whole.select("val").select("test")
    with pytest.raises(UsageError, match="expected one of"):
        whole.select("some")


def test_figures_equal_scikit_learn(whole):
    truth, pred = whole.table["label"], whole.table["pred"]
    assert whole.report.accuracy == pytest.approx(oracle.accuracy_score(truth, pred))
    cells = whole.confusion()
    expected = oracle.confusion_matrix(truth, pred, labels=list(CLASSES))
    assert cells["n"].to_numpy().reshape(2, 2).tolist() == expected.tolist()
    assert whole.confusion(outcomes=True)["n"].sum() == 35
    losses = whole.top_losses()["loss"].to_numpy()
    assert (np.diff(losses) <= 0).all()


def test_what_is_stored_is_what_was_found(tmp_path, whole):
    again = load_evaluation(save_evaluation(whole, tmp_path))
    pd.testing.assert_frame_equal(again.table, whole.table)
    for field in dataclasses.fields(whole):
        if field.name != "table":
            assert getattr(again, field.name) == getattr(whole, field.name), field.name
    assert again.report == whole.report


def test_a_stored_evaluation_needs_no_network(tmp_path, predictor, data, whole, monkeypatch):
    first = load_or_evaluate(predictor, data, tmp_path)
    assert first.table["brightness"].notna().all()

    def refuse(*_, **__):
        raise AssertionError("the network ran again")

    monkeypatch.setattr(Predictor, "predict", refuse)
    again = load_or_evaluate(predictor, data, tmp_path)
    pd.testing.assert_frame_equal(again.table, first.table, check_exact=False, rtol=1e-9)
    path = next(tmp_path.glob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(AssertionError, match="ran again"):
        load_or_evaluate(predictor, data, tmp_path)
    with pytest.raises(DataError, match="damaged"):
        load_evaluation(path)


def test_the_parts_of_a_stored_evaluation_are_those_of_the_card_as_it_is_now(tmp_path, data):
    hashes = [h[:16] for h in data.file_hashes()]
    folder = make_checkpoint(tmp_path / "small", CLASSES)
    answer = load_or_evaluate(Predictor.load(folder, "cpu"), data, tmp_path)
    assert len(answer.select("held-out")) == 35 and any("does not tell" in said for said in answer.left_out)
    card = json.loads((folder / "card.json").read_text())
    card["split"] = {"files": {"train": hashes[:5], "test": hashes[5:8]}}
    (folder / "card.json").write_text(json.dumps(card))
    now = Predictor.load(folder, "cpu")
    result, fresh = load_or_evaluate(now, data, tmp_path), evaluate(now, data, "all")
    assert len(list(tmp_path.glob("*.parquet"))) == 1
    pd.testing.assert_frame_equal(result.table[list(fresh.table)], fresh.table, atol=1e-5)
    assert [len(result.select(part)) for part in ("train", "test", "held-out")] == [5, 3, 30]
    assert result.left_out == fresh.left_out


def test_a_changed_file_is_another_data_set(tmp_path, predictor):
    index = write_images(tmp_path / "plates", {"crazing": 2, "scratches": 2})
    before = recipe.data_key(index)
    Image.new("L", (64, 64), 99).save(index[0].path)
    assert recipe.data_key(index) != before


def test_new_thresholds_are_read_from_stored_logits(whole):
    strict = whole.under(thresholds=dict.fromkeys(CLASSES, 1.0))
    assert set(strict.table["outcome"]) == {"refer"}
    free = whole.under(thresholds=dict.fromkeys(CLASSES, 0.0))
    assert (free.table["outcome"] == free.table["pred"]).all()
    np.testing.assert_allclose(free.probs, whole.probs, atol=1e-6)


def test_blank_pictures_stay_referred_whatever_the_threshold(tmp_path, predictor):
    index = write_images(tmp_path / "plates", {"crazing": 2, "scratches": 2})
    Image.new("L", (64, 64), 128).save(index[1].path)
    free = evaluate(predictor, index, "all").under(thresholds=dict.fromkeys(CLASSES, 0.0))
    assert (free.table["outcome"] == "refer").tolist() == [False, True, False, False]


def test_strange_pictures_stay_unfamiliar_whatever_the_threshold(whole):
    strange = dataclasses.replace(whole, table=whole.table.assign(strangeness=[2.0] + [0.5] * 34))
    free = strange.under(thresholds=dict.fromkeys(CLASSES, 0.0))
    assert (free.table["outcome"] == "unfamiliar").tolist() == [True] + [False] * 34


# Bad input ------------------------------------------------------------------------------------------------------------


def test_unreadable_images_are_named_and_the_others_count(tmp_path, predictor):
    index = write_images(tmp_path / "plates", {"crazing": 3, "scratches": 3})
    index[2].path.write_bytes(b"no picture")
    result = evaluate(predictor, index, "all")
    assert (len(result), result.unreadable) == (5, 1)
    assert result.left_out[0].startswith("crazing-2.png")


def test_unknown_classes_are_shown_and_not_counted(tmp_path, predictor):
    result = evaluate(predictor, write_images(tmp_path / "plates", {"crazing": 3, "rust": 2}), "all")
    assert result.report.n == 3
    assert (result.table["label"] == "rust").sum() == 2
    assert result.table["loss"].isna().sum() == 2
    says = " ".join(result.remarks)
    assert "rust are unknown" in says
    assert "No image of scratches" in says
    assert "Only 3 images have a label" in says


def test_a_data_set_of_other_classes_has_predictions_but_no_figures(tmp_path, predictor):
    result = evaluate(predictor, write_images(tmp_path / "plates", {"paint": 3, "rust": 2}), "all")
    assert len(result) == 5
    with pytest.raises(DataError, match="paint, rust are unknown to this checkpoint"):
        _ = result.report
    with pytest.raises(DataError, match="unknown"):
        result.per_class()


def test_no_labels_at_all(tmp_path, predictor):
    index = write_images(tmp_path / "plates", {"crazing": 3, "scratches": 2})
    index = dataclasses.replace(index, table=index.table.assign(labels=""))
    result = evaluate(predictor, index, "all")
    assert "no image has a label" in result.remarks[0]
    assert len(result.top_losses()) == 0
    assert result.to_csv().count("\n") == 6


def test_one_class_and_one_image(tmp_path, predictor):
    one = evaluate(predictor, write_images(tmp_path / "plates", {"crazing": 1}), "all")
    assert one.report.n == 1
    assert one.report.auc is None
    low, high = one.report.intervals["accuracy"]
    assert high - low > 0.5
    json.dumps(one.to_json())


def test_cells_of_a_spreadsheet_are_no_formulas(whole):
    table = whole.table.assign(file="=cmd()")
    text = dataclasses.replace(whole, table=table).to_csv()
    assert ",'=cmd()," in text
    assert ",=cmd()" not in text


# Thresholds -----------------------------------------------------------------------------------------------------------


def test_saved_thresholds_are_obeyed_and_on_record(tmp_path):
    folder = make_checkpoint(tmp_path / "m", CLASSES)
    before = load_checkpoint(folder)
    save_thresholds(folder, {"crazing": 1.0, "scratches": 1.0}, "A. Inspector", "trial")
    save_thresholds(folder, {"crazing": 0.0, "scratches": 0.25}, "B. Inspector", "too many looks")
    after = load_checkpoint(folder)
    assert after.card.thresholds == {"crazing": 0.0, "scratches": 0.25}
    assert after.card.weights_sha256 == before.card.weights_sha256
    assert after.hash != before.hash
    assert [entry.who for entry in after.card.history] == ["A. Inspector", "B. Inspector"]
    assert after.card.history[1].old["thresholds"] == {"crazing": 1.0, "scratches": 1.0}
    assert after.card.history[1].reason == "too many looks"
    assert model_key(after.card) == model_key(before.card)


@pytest.mark.parametrize(
    ("thresholds", "who", "reason", "error"),
    [
        ({"crazing": 0.5}, "A", "r", UsageError),
        ({"crazing": 0.5, "scratches": 1.5}, "A", "r", UsageError),
        ({"crazing": 0.5, "scratches": float("nan")}, "A", "r", UsageError),
        ({"crazing": 0.5, "scratches": 0.5}, " ", "r", UsageError),
        ({"crazing": 0.5, "scratches": 0.5}, "A", " ", UsageError),
    ],
)
def test_thresholds_that_cannot_be_are_refused_and_nothing_changes(tmp_path, thresholds, who, reason, error):
    folder = make_checkpoint(tmp_path / "m", CLASSES)
    before = (folder / "card.json").read_bytes()
    with pytest.raises(error):
        save_thresholds(folder, thresholds, who, reason)
    assert (folder / "card.json").read_bytes() == before
    with pytest.raises(CheckpointError):
        save_thresholds(tmp_path / "none", {"crazing": 0.5, "scratches": 0.5}, "A", "r")


def test_thresholds_saved_by_several_sessions_are_all_on_record(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    folder = make_checkpoint(tmp_path / "m", CLASSES)

    def session(i):
        save_thresholds(folder, {"crazing": i / 20, "scratches": 0.5}, f"person {i}", "a race")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(session, range(12)))
    history = load_checkpoint(folder).card.history
    assert sorted(entry.who for entry in history) == sorted(f"person {i}" for i in range(12))
    for older, newer in itertools.pairwise(history):
        assert newer.old["thresholds"] == older.new["thresholds"]


def test_thresholds_are_chosen_on_validation_and_shown_on_test(whole):
    choice = propose_thresholds(whole, Costs(refer=1000.0))
    assert choice.chosen_on == 7
    assert choice.after["referred"].iloc[-1] <= choice.before["referred"].iloc[-1]
    assert choice.after.set_index("label").loc["all", "n"] == 6
    with pytest.raises(UsageError):
        propose_thresholds(whole.select("val"), Costs())


@pytest.mark.parametrize(
    ("now", "then", "says"),
    [
        ((50, 40, 60), (50, 40, 60), "decides and costs the same"),
        ((50, 40, 60), (20, 10, 30), "The proposal is cheaper"),
        ((50, 40, 60), (20, 10, 45), "do not show which is cheaper"),
        ((20, 10, 30), (50, 40, 60), "is dearer on images that it was not chosen on"),
    ],
)
def test_a_proposal_is_called_cheaper_only_where_the_intervals_part(now, then, says):
    before, after = (
        pd.DataFrame([{"n": 9, "cost_per_1000": cost, "cost_low": low, "cost_high": high}])
        for cost, low, high in (now, then)
    )
    assert says in ThresholdProposal({}, 5, before, after).verdict


# Strips ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strips(tmp_path_factory):
    """Eight strips of 70 x 500, one of them with a black tile, and four small pictures."""
    root = tmp_path_factory.mktemp("long") / "strips"
    for i in range(12):
        pixels = steel_image(70, 500 if i < 8 else 80, seed=i).pixels
        if i == 3:
            pixels[:, :120] = 0
        folder = root / ("clear", "defect")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
    return open_dataset(root)


def test_strips_are_counted_as_an_inspector_is_told(tmp_path, strips):
    """The commands and the Inspect page tell `judge(...).verdict`; so does every row, under any thresholds."""
    predictor = Predictor.load(make_checkpoint(tmp_path / "m", temperature=0.7), "cpu")
    result = evaluate(predictor, strips, "all")
    assert sorted(result.tiled) == [False] * 4 + [True] * 8
    assert "8 images are long strips or very large: judged tile by tile" in " ".join(result.remarks)
    for lines in ({"clear": 0.5, "defect": 0.5}, {"clear": 0.9, "defect": 0.6}, {"clear": 0.0, "defect": 1.0}):
        card = predictor.card.replace(thresholds=lines)
        strict = Predictor(dataclasses.replace(load_checkpoint(tmp_path / "m"), card=card), "cpu")
        read = result.under(thresholds=lines)
        for i, row in enumerate(read.table.itertuples()):
            said = predict_images(strict, [strips.image(row.row)])[0]
            answer = said.verdict
            assert (row.pred, row.outcome, row.judgeable, row.tiles) == (
                answer.pred, answer.outcome, answer.judgeable, len(said.tiles),
            )  # fmt: skip
            np.testing.assert_allclose(read.probs[i], list(answer.probs.values()), atol=1e-5)
            assert row.note == answer.note


def test_several_defect_types_in_a_strip_are_counted_as_an_inspector_is_told(tmp_path, strips):
    facts = {"classes": ("hole", "scratch"), "head": "sigmoid", "multi_label": True}
    predictor = Predictor.load(make_checkpoint(tmp_path / "m", **facts), "cpu")
    result = evaluate(predictor, strips, "all")
    for lines in ({"hole": 0.5, "scratch": 0.5, "clear": 0.9}, {"hole": 0.9, "scratch": 0.2, "clear": 0.5}):
        card = predictor.card.replace(thresholds=lines)
        strict = Predictor(dataclasses.replace(load_checkpoint(tmp_path / "m"), card=card), "cpu")
        read = result.under(thresholds=lines)
        for i, row in enumerate(read.table.itertuples()):
            said = predict_images(strict, [strips.image(row.row)])[0]
            each = np.array([[*one.probs.values()] for one in said.predictions if one.judgeable])
            np.testing.assert_allclose(read.probs[i], each.max(axis=0), atol=1e-5)
            assert set(filter(None, row.named.split("|"))) == set(said.verdict.defects)
            assert row.outcome == said.verdict.outcome


def test_another_temperature_can_make_another_tile_the_worst_so_strips_are_judged_anew(tmp_path, strips, data):
    def again(temperature, index):
        folder = make_checkpoint(tmp_path / f"t{temperature}", CLASSES, temperature=temperature)
        return find_evaluation(Predictor.load(folder, "cpu"), index, tmp_path / "kept")

    first = Predictor.load(make_checkpoint(tmp_path / "first", CLASSES), "cpu")
    for index, needs_a_look in ((strips, True), (data, False)):
        load_or_evaluate(first, index, tmp_path / "kept")
        assert again(1.0, index) is not None
        assert (again(0.5, index) is None) is needs_a_look


def test_few_large_pictures_are_held_at_once(strips, monkeypatch):
    """A chunk ends with the picture that fills it."""
    monkeypatch.setattr(recipe, "_PIXELS", 2 * 70 * 500)
    chunks = list(recipe._read_in_chunks(strips, 64))
    assert [row for chunk in chunks for row, _ in chunk] == list(range(12))
    assert max(sum(image.height * image.width for _, image in chunk) for chunk in chunks) < 3 * 70 * 500
    monkeypatch.setattr(recipe, "_PIXELS", 1)
    assert [len(chunk) for chunk in recipe._read_in_chunks(strips, 8)] == [1] * 12
    monkeypatch.setattr(recipe, "_PIXELS", 10**9)
    assert [len(chunk) for chunk in recipe._read_in_chunks(strips, 8)] == [8, 4]

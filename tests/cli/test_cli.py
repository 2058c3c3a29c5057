"""The command line as a person and as a program would call it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from steel_core.cli.main import main
from steel_core.cli.output import Bars
from steel_core.data.open import open_dataset


def run(capsys, *arguments):
    """Exit status, standard output, standard error."""
    try:
        status = main([str(a) for a in arguments])
    except SystemExit as stop:  # argparse
        status = stop.code
    out, err = capsys.readouterr()
    return status, out, err


def one_json(text):
    """The only thing printed is one JSON object on one line."""
    assert text.count("\n") == 1
    return json.loads(text)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("one.png", "two.jpg"):
        Image.fromarray(rng.integers(60, 200, (64, 80), dtype=np.uint8)).save(folder / name)
    return folder


def test_predict_json(capsys, checkpoint_folder, images):
    status, out, _ = run(
        capsys, "predict", images / "one.png", images / "two.jpg", "--checkpoint", checkpoint_folder, "--json"
    )
    content = one_json(out)
    assert status == 0
    assert [r["file"] for r in content["results"]] == [str(images / "one.png"), str(images / "two.jpg")]
    for result in content["results"]:
        assert set(result) >= {"file", "pred", "outcome", "probs"}
        assert sum(result["probs"].values()) == pytest.approx(1)
        assert result["outcome"] in {"clear", "defect", "refer"}


def test_a_bad_image_beside_good_ones(capsys, checkpoint_folder, images, tmp_path):
    (images / "bad.png").write_bytes(b"not an image")
    status, out, err = run(
        capsys, "predict", images, images / "missing.png", "--checkpoint", checkpoint_folder, "--json"
    )
    content = one_json(out)
    assert status == 1
    by_name = {Path(r["file"]).name: r for r in content["results"]}
    assert set(by_name["bad.png"]) == {"file", "error"}
    assert set(by_name["missing.png"]) == {"file", "error"}
    assert "pred" in by_name["one.png"]
    assert all(str(tmp_path) not in r.get("error", "") for r in content["results"])
    assert str(tmp_path) not in err
    assert "Traceback" not in err


def test_predict_for_people(capsys, checkpoint_folder, images):
    status, out, _ = run(capsys, "predict", images, "--checkpoint", checkpoint_folder)
    assert status == 0
    assert out.count("%") == 6
    assert "one.png:" in out and out.count("needs 50.0 %)") == 2
    assert out.endswith("judged by tiny (A test)\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "x.png", "--checkpoint", "no-such-model"], "expected one of"),
        (["explain", "x.png", "--out", "o", "--methods", "magic"], "unknown explainer"),
        (["explain", "x.png", "--out", "o", "--methods", ""], "expected names"),
        (["data", "describe", "no-such-folder"], "no such folder"),
        (["data", "make", "strip-mill", "o", "--size", "large"], "HEIGHTxWIDTH"),
        (["evaluate", "--checkpoint", "strip-mill", "--data", "no-such-folder"], "no such folder"),
        (["predict"], "required"),
        (["fly"], "invalid choice"),
    ],
)
def test_a_wrong_call_ends_with_two(capsys, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, *arguments)
    assert status == 2
    assert out == ""
    pytest.importorskip("re").search(message, err) or pytest.fail(err)
    assert "Traceback" not in err


def test_a_wrong_call_with_json_is_json(capsys):
    status, out, _ = run(capsys, "data", "describe", "no-such-folder", "--json")
    assert status == 2
    assert "no such folder" in one_json(out)["error"]


def test_explain_writes_maps_with_provenance(capsys, checkpoint_folder, images, tmp_path):
    out_folder = tmp_path / "maps"
    shutil.copy(images / "one.png", tmp_path / "one.png")  # the same name in another folder
    status, out, _ = run(
        capsys, "explain", images / "one.png", tmp_path / "one.png", "--checkpoint", checkpoint_folder,
        "--methods", "grad-cam,guided-grad-cam", "--out", out_folder, "--json",
    )  # fmt: skip
    content = one_json(out)
    assert status == 0
    assert len(content["results"]) == 2
    first, second = content["results"]
    assert first["maps"]["grad-cam"]["png"] != second["maps"]["grad-cam"]["png"]
    for result in (first, second):
        for method in ("grad-cam", "guided-grad-cam"):
            made = result["maps"][method]
            raw = np.load(out_folder / made["npy"], allow_pickle=False)
            assert raw.shape == tuple(made["shape"]) == (64, 80)
            with Image.open(out_folder / made["png"]) as picture:
                assert picture.size == (80, 64)
            assert made["target"] == result["pred"]
            assert made["checkpoint"] == content["checkpoint_hash"]
        with Image.open(out_folder / result["report"]) as page:
            assert page.width == 1600
    assert json.loads((out_folder / "one.json").read_text())["file"] == "one.png"
    assert not list(out_folder.glob(".*"))


def test_a_folder_that_is_a_file_is_a_sentence(capsys, checkpoint_folder, images):
    taken = images / "one.png"
    status, out, err = run(
        capsys, "explain", taken, "--checkpoint", checkpoint_folder, "--out", taken, "--methods", "grad-cam", "--json"
    )
    assert status == 2
    assert "one.png" in one_json(out)["error"]
    assert "Traceback" not in err


def test_explain_another_class(capsys, checkpoint_folder, images, tmp_path):
    call = ["explain", images / "one.png", "--checkpoint", checkpoint_folder, "--methods", "grad-cam", "--json"]
    for target in ("clear", "defect"):
        status, out, _ = run(capsys, *call, "--out", tmp_path / target, "--target", target)
        assert status == 0
        assert one_json(out)["results"][0]["maps"]["grad-cam"]["target"] == target
    status, _, err = run(capsys, *call, "--out", tmp_path / "x", "--target", "rust")
    assert status == 2
    assert "clear, defect" in err


def test_make_describe_export_train_evaluate(capsys, tmp_path):
    sheets, manifest, model = tmp_path / "sheets", tmp_path / "all.csv", tmp_path / "model"
    make = ["data", "make", "strip-mill", sheets, "--n", 60, "--size", "48x48", "--clear-share", 0.5]
    assert run(capsys, *make)[0] == 0
    status, out, _ = run(capsys, "data", "describe", sheets, "--json")
    described = one_json(out)
    assert status == 0
    assert described["n"] == 60
    assert sum(described["labels"].values()) == 60
    assert described["with_masks"] > 0

    status, out, _ = run(capsys, "data", "export", sheets, manifest, "--json")
    assert status == 0
    assert len(open_dataset(manifest)) == 60

    status, out, err = run(
        capsys,
        "train",
        "--data",
        manifest,
        "--out",
        model,
        "--binary",
        "--epochs",
        1,
        "--learning-rate",
        0.001,
        "--json",
    )
    assert status == 0
    assert one_json(out)["checkpoint"] == "model"
    assert "epoch 1/1" in err

    status, out, _ = run(capsys, "evaluate", "--checkpoint", model, "--data", sheets, "--json")
    figures = one_json(out)
    assert status == 0
    for key in ("accuracy", "macro_recall", "macro_f1", "auc", "ece"):
        low, high = figures["intervals"][key]
        assert low <= figures[key] <= high
    assert set(figures["recall"]) == {"clear", "defect"} == set(figures["intervals"]["recall"])
    assert figures["n"] == described["splits"]["test"]

    for again in (make, ["data", "export", sheets, manifest]):
        assert run(capsys, *again)[0] == 2, "what exists is not overwritten"


def test_a_bare_state_dict_becomes_a_checkpoint(capsys, checkpoint, images, tmp_path):
    import torch

    torch.save(checkpoint.model.state_dict(), tmp_path / "bare.pth")
    call = [
        "checkpoint",
        "import",
        tmp_path / "bare.pth",
        tmp_path / "made",
        "--input-size",
        "64x64",
        "--mean",
        0.5,
        "--std",
        0.2,
    ]
    assert run(capsys, *call, "--classes", "clear,defect")[0] == 0
    status, out, _ = run(capsys, "predict", images, "--checkpoint", tmp_path / "made", "--json")
    assert status == 0
    assert one_json(out)["checkpoint"] == "made"
    assert run(capsys, *call, "--classes", "a,b,c")[0] == 2


def test_one_bar_for_each_kind_of_work(capsys):
    bars = Bars()
    for done in range(11):
        bars("reading", done, 10)
    assert not bars._bars
    assert capsys.readouterr().err.count("10/10") <= 1


def test_interrupted_is_not_a_trace(capsys, monkeypatch, tmp_path):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("steel_core.cli.data._describe", stop)
    status, _, err = run(capsys, "data", "describe", tmp_path)
    assert (status, "Traceback" in err) == (130, False)


def test_explain_all_classes_and_the_contrast(capsys, checkpoint_folder, images, tmp_path):
    call = ["explain", images / "one.png", "--checkpoint", checkpoint_folder, "--methods", "grad-cam", "--json"]
    status, out, _ = run(capsys, *call, "--out", tmp_path / "all", "--target", "all")
    assert status == 0
    maps = one_json(out)["results"][0]["maps"]
    assert sorted(made["target"] for made in maps.values()) == ["clear", "defect"]
    raw = [np.load(tmp_path / "all" / made["npy"], allow_pickle=False) for made in maps.values()]
    assert not np.array_equal(*raw)
    status, out, _ = run(capsys, *call, "--out", tmp_path / "contrast", "--target", "contrast", "--quality")
    assert status == 0
    result = one_json(out)["results"][0]
    [made] = result["maps"].values()
    assert made["target"] == result["pred"]
    assert {made["target"], made["against"]} == {"clear", "defect"}
    assert -1 <= made["quality"]["faithfulness"] <= 1
    status, _, err = run(capsys, *call, "--out", tmp_path / "none", "--target", "rust")
    assert status == 2
    assert "contrast" in err


def test_quality_prints_a_table_and_stores_it(capsys, checkpoint_folder, tmp_path):
    mine = shutil.copytree(checkpoint_folder, tmp_path / "mine")
    run(capsys, "data", "make", "strip-mill", tmp_path / "mill", "--n", 12, "--size", "64x64", "--clear-share", 0.25)
    call = ["quality", "--checkpoint", mine, "--data", tmp_path / "mill", "--methods", "grad-cam", "--images", 4]
    status, out, _ = run(capsys, *call, "--json", "--store", "--rows", tmp_path / "rows.csv")
    assert status == 0
    content = one_json(out)
    assert set(content["methods"]) == {"grad-cam", "random", "sobel"}
    assert set(content["methods"]["sobel"]["dice"]) == {"value", "low", "high", "lift", "n"}
    header, *rows = (tmp_path / "rows.csv").read_text().splitlines()
    assert header == "file,row,class,group,method,metric,value,chance"
    assert rows
    card = json.loads((mine / "card.json").read_text())
    assert set(card["regions"]) == {"grad-cam", "random", "sobel"}
    status, out, _ = run(capsys, *call)
    assert status == 0
    assert "Dice (localisation; more is better)" in out


def test_quality_refuses_a_mistyped_method_at_once(capsys, tmp_path):
    status, _, err = run(capsys, "quality", "--data", tmp_path, "--methods", "magic")
    assert status == 2
    assert "unknown explainer" in err

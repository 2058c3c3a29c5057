"""Kept figures: equal to those counted anew, found by what they follow from, and never needed to be right."""

import dataclasses
import functools

import numpy as np
import pandas as pd
import pytest

from steel_core import metrics
from steel_core.evaluation import store as recipe
from steel_core.evaluation.compare import compare
from steel_core.evaluation.evaluation import Evaluation
from steel_core.evaluation.store import cached_estimates, cached_paired_estimates, compute_estimates


def evaluation(seed=0, n=120, multi_label=False) -> Evaluation:
    """Of made-up logits, about right; an image in ten has no label, and each two are near-duplicates."""
    rng = np.random.default_rng(seed)
    classes = ("rust", "scratch")
    label = np.array(["rust", "scratch", "rust|scratch" if multi_label else "rust"])[rng.integers(0, 3, n)]
    logits = rng.normal(size=(n, 2)) + 2 * np.stack([[name in text for name in classes] for text in label])
    table = pd.DataFrame({
        "row": np.arange(n), "file": [f"{i}.png" for i in range(n)], "image_sha256": [f"{i:064d}" for i in range(n)],
        "label": np.where(rng.random(n) < 0.1, "", label), "pred": np.array(classes)[logits.argmax(axis=1)],
        "group": [f"pair {i // 2}" for i in range(n)], "seen": "", "split": "test", "judgeable": True,
        "strangeness": np.nan, "note": "", "brightness": rng.random(n),
        "z.rust": logits[:, 0], "z.scratch": logits[:, 1],
    })  # fmt: skip
    head = "sigmoid" if multi_label else "softmax"
    made = Evaluation(table, classes, head, 1.0, {}, "all", "made up", "0" * 64, "m", "d", "k", multi_label=multi_label)
    return made.under(thresholds={})


@pytest.mark.parametrize("multi_label", [False, True])
def test_what_is_kept_is_what_was_counted(tmp_path, monkeypatch, multi_label):
    result = evaluation(multi_label=multi_label)
    counted = compute_estimates(result)
    assert cached_estimates(result, tmp_path).report == counted.report
    monkeypatch.setattr(recipe, "compute_estimates", lambda _: pytest.fail("counted again"))
    kept = cached_estimates(result, tmp_path)
    assert kept.report == counted.report
    assert kept.per_class == counted.per_class
    assert isinstance(kept.per_class["rust"]["auc"], metrics.Estimate)
    pd.testing.assert_frame_equal(kept.segments, counted.segments)


def test_new_thresholds_need_no_new_count_and_a_new_temperature_does(tmp_path):
    result = evaluation()
    cached_estimates(result, tmp_path)
    cached_estimates(result.under(thresholds={"rust": 0.9, "scratch": 0.9}), tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    warmer = dataclasses.replace(result, temperature=2.0).under(thresholds={})
    assert cached_estimates(warmer, tmp_path).report.ece != cached_estimates(result, tmp_path).report.ece
    assert len(list(tmp_path.iterdir())) == 2


def test_another_label_is_another_count(tmp_path):
    result = evaluation()
    before = cached_estimates(result, tmp_path).report
    table = result.table.assign(label=result.table["label"].replace({"rust": "scratch"}))
    assert cached_estimates(dataclasses.replace(result, table=table), tmp_path).report.support != before.support


def test_a_damaged_file_is_counted_anew(tmp_path):
    result = evaluation()
    cached_estimates(result, tmp_path)
    next(tmp_path.iterdir()).write_text('{"report": {"n": 1}}')
    assert cached_estimates(result, tmp_path).report == compute_estimates(result).report


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path):
    (tmp_path / "taken").write_text("a file")
    result = evaluation()
    assert cached_estimates(result, tmp_path / "taken").report == compute_estimates(result).report


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_comparison_is_counted_once_and_another_one_anew(tmp_path, monkeypatch, multi_label):
    a = evaluation(multi_label=multi_label)
    b = dataclasses.replace(a, temperature=2.0).under(thresholds={})
    keep = functools.partial(cached_paired_estimates, folder=tmp_path)
    counted, backwards = compare(a, b).estimates, compare(b, a).estimates
    pd.testing.assert_frame_equal(compare(a, b, paired=keep).estimates, counted)
    pd.testing.assert_frame_equal(compare(b, a, paired=keep).estimates, backwards)
    assert len(list(tmp_path.glob("*.paired.json"))) == 2
    monkeypatch.setattr(recipe, "paired_estimates", lambda *_: pytest.fail("counted again"))
    pd.testing.assert_frame_equal(compare(a, b, paired=keep).estimates, counted)
    with pytest.raises(pytest.fail.Exception, match="counted again"):
        compare(a, b, seed=1, paired=keep)

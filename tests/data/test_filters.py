"""Filters, against a plain loop over the rows."""

import numpy as np
import pandas as pd
import pytest

from steel_core.data.filters import Filter, Range, collect_facts, number_columns
from steel_core.data.index import DatasetIndex, unknown_spec

N = 400


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "path": [f"{i}.png" for i in range(N)],
            "labels": rng.choice(["rust", "scratch", "rust|scratch", "rusty", ""], N),
            "split": rng.choice(["train", "test", ""], N),
            "group": [f"coil-{i // 7}" for i in range(N)],
            "source": rng.choice(["mill a", "mill b"], N),
        }
    )
    table["split"] = table.groupby("group")["split"].transform("first")
    return DatasetIndex.build(tmp_path_factory.mktemp("root"), unknown_spec("sheets"), table)


@pytest.fixture(scope="module")
def known(index):
    rng = np.random.default_rng(1)
    said = pd.DataFrame(
        {
            "row": np.arange(0, N, 2)[::-1],  # every second image, in another order
            "pred": rng.choice(["rust", "scratch"], N // 2),
            "verdict": rng.choice(["right", "wrong", ""], N // 2),
            "loss": rng.random(N // 2),
        }
    )
    measured = pd.DataFrame({"brightness": rng.random(N), "empty": np.nan})
    measured.loc[3, "brightness"] = np.nan
    places = rng.normal(size=(N, 2)).astype(np.float32)
    places[5] = np.nan
    return collect_facts(index, said, measured, places), said.set_index("row"), measured, places


def winding(point, corners):
    """Whether a point lies in a polygon, by the sum of the angles under which it sees the edges."""
    total = 0.0
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
        turn = np.arctan2(y1 - point[1], x1 - point[0]) - np.arctan2(y0 - point[1], x0 - point[0])
        total += (turn + np.pi) % (2 * np.pi) - np.pi
    return abs(total) > np.pi


OUTLINE = ((-1.0, -1.0), (1.5, -0.5), (0.2, 0.1), (0.5, 1.4))


@pytest.mark.parametrize(
    ("asked", "matches"),
    [
        (Filter(), lambda s, *_: True),
        (Filter(label="rust"), lambda s, *_: "rust" in s.labels),
        (Filter(label=""), lambda s, *_: not s.labels),
        (Filter(split="train", source="mill a"), lambda s, *_: (s.split, s.source) == ("train", "mill a")),
        (Filter(split=""), lambda s, *_: s.split == ""),
        (Filter(group="coil-1"), lambda s, *_: "coil-1" in s.group),
        (Filter(pred="rust"), lambda s, said, *_: said is not None and said["pred"] == "rust"),
        (Filter(verdict="wrong"), lambda s, said, *_: said is not None and said["verdict"] == "wrong"),
        (Filter(ranges=(Range("brightness", 0.2, 0.6),)), lambda s, said, light, _: 0.2 <= light <= 0.6),
        (Filter(ranges=(Range("loss", 0.5, 2.0),)), lambda s, said, *_: said is not None and said["loss"] >= 0.5),
        (Filter(outline=OUTLINE), lambda s, said, light, at: bool(np.isfinite(at[0])) and winding(at, OUTLINE)),
        (Filter(label="scratch", ranges=(Range("brightness", 0.5, 1.0),), outline=OUTLINE),
         lambda s, said, light, at: "scratch" in s.labels and light >= 0.5 and bool(np.isfinite(at[0]))
         and winding(at, OUTLINE)),
        (Filter(ranges=(Range("nothing", 0, 1),)), lambda *_: False),
    ],
)  # fmt: skip
def test_rows_are_those_that_a_loop_finds(index, known, asked, matches):
    table, said, measured, places = known
    wanted = [
        i
        for i, sample in enumerate(index)
        if matches(sample, said.loc[i] if i in said.index else None, measured["brightness"][i], places[i])
    ]
    assert asked.rows(table).tolist() == wanted
    assert len(wanted) > 0 or asked.ranges[0].name == "nothing"


def test_rows_are_sorted_and_those_without_a_number_come_last(known):
    table, *_ = known
    light = table["brightness"].to_numpy()
    rising, falling = Filter().rows(table, "brightness"), Filter().rows(table, "brightness", falling=True)
    assert rising[-1] == falling[-1] == 3
    assert (np.diff(light[rising[:-1]]) >= 0).all() and (np.diff(light[falling[:-1]]) <= 0).all()
    assert Filter().rows(table, "unknown").tolist() == list(range(N))


def test_what_is_not_known_matches_nothing_and_is_no_number(index, known):
    bare = collect_facts(index)
    assert not len(Filter(pred="rust").rows(bare)) and not len(Filter(outline=OUTLINE).rows(bare))
    assert number_columns(bare) == []
    assert number_columns(known[0]) == ["loss", "brightness", "map_x", "map_y"]

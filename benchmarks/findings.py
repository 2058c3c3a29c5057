"""How often each finding about a data set is right: `python -m benchmarks.findings CLEAN [OTHER]`.

CLEAN is a data set that is believed to be clean, as NEU-CLS is: what is called so in it as it is, is a false alarm.
Then pictures are copied with changes, and marked alike; labels are flipped and pictures spoilt on purpose, in memory,
to see how much of that is found. OTHER is a second clean data set, on which only odd pictures are counted: no limit was
chosen on it. Intervals are Wilson's, 95 %.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import pandas as pd

from benchmarks.plants import PLANTS
from steel_core.data.index import DatasetIndex
from steel_core.data.open import open_dataset
from steel_core.data.quality.content import ALIKE, count_differences, encode_content, stack_codes
from steel_core.data.quality.findings import describe_textures, find_odd_images, find_suspicious_labels
from steel_core.data.quality.near_duplicates import find_near_duplicate_pairs, group_near_duplicates
from steel_core.data.quality.properties import PROPERTY_TABLE, picture_properties
from steel_core.metrics import wilson_interval
from steel_core.types import AnyArray, Grey, ObjectArray

FLIPPED = (0.02, 0.05, 0.1)
PIECES = 200  # of steel that are marked
SPOILT = 24  # every so many-th picture is spoilt

WAYS: dict[str, Callable[[Grey], Grey]] = {
    "at a tenth of its light": lambda grey: grey * np.float32(0.1),
    "at a fifth of its light": lambda grey: grey * np.float32(0.2),
    "at twice its light": lambda grey: grey * np.float32(2),
    "at three times its light": lambda grey: grey * np.float32(3),
    "blurred by 2 pixels": lambda grey: cv2.GaussianBlur(grey, (0, 0), 2.0),
    "blurred by 3 pixels": lambda grey: cv2.GaussianBlur(grey, (0, 0), 3.0),
}


def compress(grey: Grey, quality: int) -> Grey:
    data = cv2.imencode(".jpg", np.rint(grey * 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.float32) / np.float32(255)


def blot(grey: Grey) -> AnyArray:
    height, width = grey.shape
    rng = np.random.default_rng(int(grey.sum()))  # another place on each picture
    centre = (int(rng.uniform(0.2, 0.8) * width), int(rng.uniform(0.2, 0.8) * height))
    radius = round(float(np.sqrt(0.1 * height * width / np.pi)))
    cover = cv2.circle(np.zeros(grey.shape, np.float32), centre, radius, 1.0, -1)
    cover = 0.9 * cv2.GaussianBlur(cover, (0, 0), 2)
    return grey * (1 - cover) + 0.95 * cover


COPIES: dict[str, Callable[[Grey], AnyArray]] = {
    "JPEG at quality 50": lambda grey: compress(grey, 50),
    "half the size": lambda grey: cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "brighter by 0.1": lambda grey: np.clip(grey + 0.1, 0, 1),
    "0.8 of the contrast": lambda grey: grey * 0.8 + 0.1,
    "a white blot on a tenth": blot,
    "pixel noise of 0.02": lambda grey: grey + np.random.default_rng(0).normal(0, 0.02, grey.shape),
    "pixel noise of 0.05": lambda grey: grey + np.random.default_rng(0).normal(0, 0.05, grey.shape),
    "cut by 2 pixels": lambda grey: grey[2:, 2:],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clean", type=Path)
    parser.add_argument("other", type=Path, nargs="?")
    args = parser.parse_args()
    index = open_dataset(args.clean)
    print(f"{index.spec.name}: {len(index):,} images")
    pairs = find_near_duplicate_pairs(index)
    labels = index.table["labels"].to_numpy()
    crossing = int((labels[pairs["first"]] != labels[pairs["second"]]).sum())
    print(f"near-duplicates: {rate(crossing, len(pairs))} of the pairs join two classes")
    groups = group_near_duplicates(index, pairs=pairs)
    copies(index, groups)
    marked(index, groups)
    suspicious(index, groups)
    odd(index)
    if args.other:
        other = open_dataset(args.other)
        print(f"odd pictures in {other.spec.name} as it is: {rate(odd_rows(other), len(other))}")


def copies(index: DatasetIndex, groups: ObjectArray) -> None:
    """Altered copies that are known by their content code, and pictures of other steel that are taken for one."""
    pictures = [index.image(i).grey() for i in range(len(index))]
    codes = [encode_content(grey) for grey in pictures]
    shown = np.flatnonzero([code != "" for code in codes])
    stacked = stack_codes([codes[i] for i in shown])
    taken = sum(
        bool(((count_differences(codes[i], stacked) <= ALIKE) & (groups[shown] != groups[i])).any()) for i in shown
    )
    print(f"content codes: {rate(taken, len(shown))} taken for a copy of other steel")
    for words, change in COPIES.items():
        known = sum(
            code != "" and count_differences(code, stack_codes([codes[i]]))[0] <= ALIKE
            for i in shown
            for code in [encode_content(np.asarray(change(pictures[i]), np.float32))]
        )
        print(f"{words}: {rate(int(known), len(shown))} known as copies")


def marked(index: DatasetIndex, groups: ObjectArray) -> None:
    """Pictures of different steel that carry the same kind of mark: how many pairs of them are linked."""
    rng = np.random.default_rng(0)
    rows = rng.permutation(np.unique(groups, return_index=True)[1])[:PIECES]
    pictures = [index.image(int(row)).grey() for row in rows]
    for name, (plant, _) in PLANTS.items():
        with TemporaryDirectory() as folder:
            (Path(folder) / "steel").mkdir()
            for k, grey in enumerate(pictures):
                shown = plant(grey, rng) if plant else grey
                cv2.imwrite(f"{folder}/steel/{k:03}.png", np.clip(np.rint(shown * 255), 0, 255).astype(np.uint8))
            linked = len(find_near_duplicate_pairs(open_dataset(folder)))
        print(f"{name} on {len(rows)} pictures of different steel: {rate(linked, len(rows) * (len(rows) - 1) // 2)}")


def suspicious(index: DatasetIndex, groups: ObjectArray) -> None:
    """Suspicious labels: false alarms, and what is found of labels flipped on purpose."""
    features = describe_textures(index)
    print(f"labels as they are: {rate(len(find_suspicious_labels(index, features, groups)), len(index))} called wrong")
    for share in FLIPPED:
        flipped, rows = with_flipped_labels(index, share)
        called = {finding.rows[0] for finding in find_suspicious_labels(flipped, features, groups)}
        right = len(called & set(rows))
        print(f"{share:.0%} of the labels flipped: {rate(right, len(rows))} of them found; "
              f"{rate(right, len(called))} of what is called wrong was flipped")  # fmt: skip


def with_flipped_labels(index: DatasetIndex, share: float) -> tuple[DatasetIndex, list[int]]:
    """The data set with some labels replaced by another class at random, and the rows of these."""
    rng = np.random.default_rng(1)
    rows = rng.permutation(len(index))[: round(share * len(index))]
    labels = index.table["labels"].to_numpy(dtype=object, copy=True)
    for row in rows:
        labels[row] = rng.choice([name for name in index.classes if name != labels[row]])
    return replace(index, table=index.table.assign(labels=labels)), rows.tolist()


def odd(index: DatasetIndex) -> None:
    """Odd pictures: false alarms, and what is found of pictures spoilt on purpose."""
    measured = PROPERTY_TABLE.load_or_measure(index)
    print(f"odd pictures as they are: {rate(odd_rows(index, measured), len(index))}")
    rows = range(0, len(index), SPOILT)
    for words, spoil in WAYS.items():
        changed = spoilt(index, measured, rows, spoil)
        odd_ones = {row for one in find_odd_images(index, changed) for row in one.rows}
        print(f"{words}: {rate(len(odd_ones & set(rows)), len(rows))} found")


def odd_rows(index: DatasetIndex, measured: pd.DataFrame | None = None) -> int:
    return len({row for one in find_odd_images(index, measured) for row in one.rows})


def spoilt(index: DatasetIndex, measured: pd.DataFrame, rows: range, spoil: Callable[[Grey], Grey]) -> pd.DataFrame:
    """What would be measured if these pictures had been taken so, at 8 bits a pixel."""
    changed = measured.copy()
    for row in rows:
        levels = np.clip(np.round(spoil(index.image(row).grey()) * 255), 0, 255)
        for name, value in picture_properties((levels / 255).astype(np.float32)).items():
            changed.loc[row, name] = value
    return changed


def rate(count: int, of: int) -> str:
    """A share with its interval and its counts."""
    low, high = wilson_interval(count / of if of else 0.0, of)
    return f"{count} of {of:,} ({low:.1%} to {high:.1%})"


if __name__ == "__main__":
    main()

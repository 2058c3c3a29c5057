"""What is wrong with a data set as far as its pictures and labels tell, each finding with its images and evidence.

Rates of false alarms (`KINDS`) were measured by `python -m benchmarks.findings` on the 1,440 images of NEU-CLS, which
are clean as far as anybody knows. Legend: N samples, F features.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from steel_core.data.index import DatasetIndex
from steel_core.data.quality.near_duplicates import group_near_duplicates
from steel_core.data.quality.texture import describe_texture
from steel_core.data.readers.manifest import escape_formula
from steel_core.errors import DataError, ImageError
from steel_core.progress import Progress, no_progress
from steel_core.types import Float32Array, ObjectArray

_LEAST = 20  # images; fewer say nothing about what is usual
_FOLDS = 5

KINDS = {
    "clue": (
        "Something beside the defect alone tells a class from the rest: a mark, a border, a place, the light, the "
        "file. Of 20 clean sets none is accused (0 to 16 %); of 160 with something planted it is named first in 140 "
        "(82 to 92 %), oftener where masks or boxes tell the defects. Without them, marks count on clear sheets alone."
    ),
    "unreadable": "The picture is refused. No guess, so no false alarms.",
    "near-duplicates": (
        "Pictures of one piece of steel. None of the 1,517 pairs linked in NEU-CLS joins two classes, and none of 200 "
        "pictures of different steel is linked by a stain, stamp, line or stripes on all of them."
    ),
    "leak": "Near-duplicates in more than one split; as sure as near-duplicates are.",
    "label": (
        "The label does not fit the texture. In NEU-CLS as it is, 0 of 1,440 images are called so (0 to 0.3 %). "
        "Of 5 % labels flipped on purpose, 85 % are found (61 of 72); of what is then called so, 98 % was flipped "
        "(61 of 62). "
        f"Pictures with several labels are passed over, and classes with fewer than {_FOLDS} pieces of steel."
    ),
    "odd": (
        "Too dark, too bright, clipped, out of focus or of another size. Of NEU-Seg, which set no limit, 4 of 600 are "
        "called so (0.3 to 1.7 %); of NEU-CLS, whose patches reach pure white, 38 of 1,440. Of 60 pictures spoilt on "
        "purpose, 97 % blurred by 3 pixels and 38 % by 2 are found, and 90 % at a tenth of their light. "
        f"Of fewer than {_LEAST} pictures none is called so."
    ),
}
"""Each kind of finding, and its measured rate of false alarms."""

_GIVEN, _OTHER = 0.1, 0.7  # probability of the given label at most, and of another one at least
_CLIPPED = 0.2  # share of clipped pixels that is never odd; sound pictures of shiny steel reach it
_SPREAD = 0.3  # least distance of the quartiles, in logarithms: pictures all alike shall not make a tenth more odd


@dataclass(frozen=True, slots=True)
class DataFinding:
    """One thing that a person should look at: a name in `KINDS`, the row numbers of its images, and the evidence."""

    kind: str
    rows: tuple[int, ...]
    files: tuple[str, ...]
    sentence: str
    evidence: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def build_finding(index: DatasetIndex, kind: str, rows: Sequence[int], sentence: str, **evidence: Any) -> DataFinding:
    files = tuple(index.table["path"].iloc[list(rows)].str.rpartition("/")[2])
    return DataFinding(kind, tuple(map(int, rows)), files, sentence, evidence)


def find_near_duplicates(index: DatasetIndex, pairs: pd.DataFrame) -> list[DataFinding]:
    """A finding for each group in `pairs` (of `find_near_duplicate_pairs`), the largest first."""
    groups = group_near_duplicates(replace(index, table=index.table.assign(group="")), pairs=pairs)
    members: dict[str, list[int]] = {}
    for row in sorted(set(pairs["first"]) | set(pairs["second"])):
        members.setdefault(groups[row], []).append(int(row))
    score, owner = pairs["score"].to_numpy(float), groups[pairs["first"].to_numpy(int)]
    out = []
    for group, rows in sorted(members.items(), key=lambda item: -len(item[1])):
        copies = _find_copies(index, rows)
        same = f", {sum(map(len, copies))} of them the very same file" if copies else ""
        low, high = (round(float(end(score[owner == group])), 3) for end in (np.min, np.max))
        sentence = f"{len(rows)} pictures show the same piece of steel{same}."
        out.append(build_finding(index, "near-duplicates", rows, sentence, likeness=[low, high], copies=copies))
    return out


def find_leaks(index: DatasetIndex, groups: ObjectArray) -> list[DataFinding]:
    """A finding for each group of near-duplicates (N,) that lies in more than one split."""
    grouped = index.with_groups(groups)
    out = []
    for name in grouped.leaking_groups():
        rows = np.flatnonzero((grouped.table["group"] == name) & (grouped.table["split"] != ""))
        splits = {str(k): int(v) for k, v in grouped.table["split"].iloc[rows].value_counts().items()}
        where = ", ".join(f"{count} in {split}" for split, count in splits.items())
        sentence = f"Near-duplicates lie in several splits: {where}."
        out.append(build_finding(index, "leak", rows.tolist(), sentence, **splits))
    return out


def find_odd_images(index: DatasetIndex, measured: pd.DataFrame) -> list[DataFinding]:
    """Pictures unlike the others of this data set, and those that cannot be read.

    Limits come from the data set itself (J. W. Tukey, Exploratory Data Analysis, 1977: quartiles and a multiple of
    their distance), because what is dark or soft differs from mill to mill; below 20 pictures nothing is called odd.
    """
    readable = measured["height"].notna().to_numpy()
    out = []
    for row in np.flatnonzero(~readable).tolist():
        name = index.table["path"].iloc[row].rpartition("/")[2]
        out.append(build_finding(index, "unreadable", [row], f"{name}: cannot be read."))
    if readable.sum() < _LEAST:
        return out
    light, sharp = measured["brightness"].clip(1e-3, 1 - 1e-3), measured["sharpness"].clip(1e-3)
    for name, values, multiple, what in (
        ("brightness", np.log(light), 3.0, "darker than the others"),
        ("brightness", np.log(1 - light), 3.0, "brighter than the others"),
        ("sharpness", np.log(sharp), 1.5, "out of focus: it lacks fine detail that the others have"),
        ("clipped", -np.log(measured["clipped"].clip(_CLIPPED)), 3.0, "clipped: much of it is pure black or white"),
    ):
        low, high = np.nanpercentile(values, [25, 75])
        limit = low - multiple * max(high - low, _SPREAD)
        for row in np.flatnonzero((values < limit).to_numpy()).tolist():
            value = float(measured[name].iloc[row])
            usual = float(measured[name].median())
            sentence = f"The picture is {what} ({name} {value:.3g}, usually {usual:.3g})."
            out.append(build_finding(index, "odd", [row], sentence, property=name, value=value, usual=usual))
    sizes = list(zip(measured["height"], measured["width"], strict=True))
    usual_size, count = Counter(size for size, ok in zip(sizes, readable, strict=True) if ok).most_common(1)[0]
    if count >= 0.9 * readable.sum():
        for row in [row for row in np.flatnonzero(readable).tolist() if sizes[row] != usual_size]:
            (height, width), (rows, columns) = sizes[row], usual_size
            sentence = f"The picture has {height:.0f} x {width:.0f} pixels; the others have {rows:.0f} x {columns:.0f}."
            out.append(build_finding(index, "odd", [row], sentence, property="size", value=[height, width]))
    return out


def describe_textures(index: DatasetIndex, progress: Progress = no_progress) -> Float32Array:
    """(N, T) texture of each picture, NaN where it is refused, in as many threads as there are cores."""

    def one(i: int) -> Float32Array | None:
        with suppress(ImageError, DataError):
            return describe_texture(index.image(i).grey())
        return None

    rows = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for done, row in enumerate(pool.map(one, range(len(index))), start=1):
            rows.append(row)
            progress("describing textures", done, len(index))
    width = next((len(row) for row in rows if row is not None), 1)
    return np.stack([np.full(width, np.nan, np.float32) if row is None else row for row in rows])


def find_suspicious_labels(
    index: DatasetIndex, features: Float32Array, groups: ObjectArray, seed: int = 0
) -> list[DataFinding]:
    """Labels that a classifier which has not seen them contradicts with confidence, the surest first.

    Probabilities are out of sample: a logistic regression on `features`, cross-validated with near-duplicates kept
    together. A label is suspicious where another class is likelier than it is on average among its own images (C.
    Northcutt, L. Jiang, I. Chuang, Confident Learning, JAIR 70, 2021), at least 0.7, and the given one at most 0.1.
    Samples with no label or several are passed over. `features`: (N, F), learnt without these labels, see
    `describe_textures`. `groups`: (N,) near-duplicates share a name.
    """
    labels = index.labels_encoded()
    single = ~index.table["labels"].str.contains("|", regex=False).to_numpy()
    usable = np.flatnonzero((labels >= 0) & single & np.isfinite(features).all(axis=1))
    counts = pd.Series(groups[usable]).groupby(labels[usable]).nunique()
    usable = usable[np.isin(labels[usable], counts.index[counts >= _FOLDS])]
    own_labels = labels[usable]
    classes = np.unique(own_labels)
    if len(classes) < 2:
        return []
    probs = np.zeros((len(usable), len(index.classes)))
    names = pd.factorize(groups[usable])[0]
    folder = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
    for train, test in folder.split(usable, own_labels, names):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
        model.fit(features[usable[train]], own_labels[train])
        probs[np.ix_(test, model.classes_)] = model.predict_proba(features[usable[test]])
    own = probs[np.arange(len(usable)), own_labels]
    usual = np.array([own[own_labels == k].mean() if (own_labels == k).any() else 2.0 for k in range(probs.shape[1])])
    confident = np.where(probs >= usual, probs, 0)
    other = confident.argmax(axis=1)
    sure = confident.max(axis=1)
    wrong = (other != own_labels) & (sure >= _OTHER) & (own <= _GIVEN)
    out = []
    for k in np.flatnonzero(wrong)[np.argsort(-sure[wrong], kind="stable")].tolist():
        label, better = index.classes[own_labels[k]], index.classes[other[k]]
        sentence = f"Labelled {label}, but it looks like {better} ({sure[k]:.0%} against {own[k]:.0%})."
        evidence = {"label": label, "looks_like": better, "probability": float(sure[k]), "of_label": float(own[k])}
        out.append(build_finding(index, "label", [int(usable[k])], sentence, **evidence))
    return out


def without_findings(index: DatasetIndex, findings: Sequence[DataFinding]) -> DatasetIndex:
    """The samples without the findings, as a new index; nothing is written, and the files stay as they are.

    Unreadable pictures, and copies of a file but the first, are left out. Suspicious labels are taken off, as a person
    should set them. Near-duplicates become one group, and leaking ones move to train, so that the test is honest.
    Odd pictures stay: only a person knows whether the mill makes such.
    """
    table = index.table.copy()
    drop: set[int] = set()
    groups = table["group"].to_numpy(object, copy=True)
    labels = table["labels"].to_numpy(object, copy=True)
    splits = table["split"].to_numpy(object, copy=True)
    for finding in findings:
        rows = list(finding.rows)
        if finding.kind == "unreadable":
            drop |= set(rows)
        elif finding.kind == "near-duplicates":
            drop |= {row for copies in finding.evidence["copies"] for row in copies[1:]}
            name = next((groups[row] for row in rows if groups[row]), table["path"].iloc[rows[0]])
            groups[np.isin(groups, [groups[row] for row in rows if groups[row]])] = name
            groups[rows] = name
        elif finding.kind == "label":
            labels[rows] = ""
        elif finding.kind == "leak":
            splits[rows] = "train"
    table = table.assign(group=groups, labels=labels, split=splits)
    return replace(index, table=table.drop(index=sorted(drop)).reset_index(drop=True))


def findings_to_csv(findings: Sequence[DataFinding]) -> bytes:
    """One row for each image of each finding, as CSV that a spreadsheet opens without running anything."""
    rows = [
        (finding.kind, number, escape_formula(name), escape_formula(finding.sentence))
        for number, finding in enumerate(findings, start=1)
        for name in finding.files
    ]
    return pd.DataFrame(rows, columns=["kind", "finding", "file", "sentence"]).to_csv(index=False).encode()


def _find_copies(index: DatasetIndex, rows: Sequence[int]) -> list[list[int]]:
    same: dict[tuple[int, str], list[int]] = {}
    for row in rows:
        with suppress(OSError):
            data = index.path(row).read_bytes()
            same.setdefault((len(data), hashlib.sha256(data).hexdigest()), []).append(int(row))
    return [copies for copies in same.values() if len(copies) > 1]

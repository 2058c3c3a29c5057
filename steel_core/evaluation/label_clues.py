"""What in the images learnt from predicts the label, before any model is trained: a mark, a place, the light, the file.

A clue is strong where it alone, by a small tree that has not seen the image, tells one class from the rest (Youden's J:
W. J. Youden, Index for rating diagnostic tests, Cancer 3(1), 1950). That is no proof that a model learns it; it says
what a model could learn instead of the steel.

Legend: N images, P x P cells of a thumbnail, B resamples.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.stats import norm
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.tree import DecisionTreeClassifier

from steel_core.data.index import DatasetIndex
from steel_core.data.quality.clues import CELLS, CLUE_TABLE, CLUES, FILE_FACTS, MARKS, PLACE, Clue, thumbnails_of
from steel_core.data.quality.findings import DataFinding, build_finding
from steel_core.metrics.intervals import Interval, group_weights, holm_correction
from steel_core.progress import Progress, no_progress
from steel_core.types import CLEAR, BoolArray, Float64Array, FloatArray, Int64Array, StrArray

LEAST = 0.35
"""Youden's J that is no alarm yet: defects move many numbers of a picture a little."""

_ALPHA = 0.025
_PIECES = 8  # of steel in a class and outside it; fewer tell nothing
_FOLDS = 5
_SHOWN = 8  # images of a finding
_MOST = 1000  # images that are asked
_KINDS = 12  # values of a fact that are told apart, the commonest


Folds = list[tuple[Int64Array, Int64Array]]


@dataclass(frozen=True)
class SharesInTest:
    """What a clue, as it was learnt from the training images, says of the n images of the test part.

    `named` and `strength` as in `LabelClue`.
    """

    named: tuple[float, float]
    strength: float
    interval: Interval
    n: int


@dataclass(frozen=True)
class LabelClue:
    """How well one clue alone tells a class from the rest.

    Attributes:
        strength: Youden's J out of sample, 0 (nothing) to 1 (every image), with its 95 % interval by group.
        named: shares of the class's images, and of the others, that it gives the class.
        n: images that count.
        p_corrected: one-sided, of a strength of at most `LEAST`, corrected for all that was looked at (Holm).
        alarming: stronger than `LEAST`, and no work of the defect itself.
        where: row and column of the strongest place, 0 to 1 from the top left; None for other clues.
        rows: row numbers of images of the class that it gives away, the most typical first.
        others: row numbers of images of other classes in which it shows least.
        test: the same in the test part; None where it was not asked, or holds too few images.
    """

    name: str
    clue: Clue
    label: str
    strength: float
    interval: Interval
    named: tuple[float, float]
    n: int
    p_corrected: float
    alarming: bool
    where: tuple[float, float] | None
    rows: tuple[int, ...]
    others: tuple[int, ...] = ()
    test: SharesInTest | None = None

    @property
    def title(self) -> str:
        return self.clue.words[0].upper() + self.clue.words[1:] + _name_place(self.where)

    @property
    def fades(self) -> bool:
        """Whether the test part holds less of it than the training images, beyond chance."""
        return self.test is not None and self.test.interval[1] < self.interval[0]

    @property
    def sentence(self) -> str:
        own, others = map(_percent, self.named)
        said = (
            f"{self.title} alone: {own} of the {self.label} images and {others} of the others would be called "
            f"{self.label}."
        )
        if self.alarming:
            said += " A model can learn this instead of the steel."
        return f"{said} {self.describe_test()}".strip()

    def describe_test(self) -> str:
        """Whether the test part can tell a model that learnt it from one that did not; "" where it was not asked."""
        if self.test is None:
            return ""
        shares = " and ".join(map(_percent, self.test.named))
        if self.fades:
            return f"In the test part it is {shares}: a model that learnt it does worse there."
        if self.test.interval[0] > LEAST:
            return f"The test part has it, too ({shares}): good figures there do not rule it out."
        return f"In the test part it is {shares}."


def find_label_clues(
    index: DatasetIndex, seed: int = 0, progress: Progress = no_progress, splits: StrArray | None = None
) -> list[LabelClue]:
    """Each clue and the class that it tells best, the strongest and sharpest first; none where images are too few.

    Images learnt from count: the split "train", or all that are in no split; `splits` (N,) replace those of the index.
    At most 1,000 images are measured, drawn evenly from the classes. Samples of one group of the index are one piece of
    steel. Near-duplicates are not looked for: the same mark on many sheets would make one piece of them.
    """
    drawn = _draw_evenly(index, seed)
    table = CLUE_TABLE.load_or_measure(index.select(drawn), progress)
    labels, groups = (index.table[name].to_numpy(str)[drawn] for name in ("labels", "group"))
    splits = (index.table["split"].to_numpy(str) if splits is None else splits)[drawn]
    single = np.array([bool(label) and "|" not in label for label in labels], bool)
    usable = single & table["brightness"].notna().to_numpy()
    learnt = np.flatnonzero(usable & (splits == ("train" if (splits == "train").any() else "")))
    held = np.flatnonzero(usable & (splits == "test"))
    pieces = np.where(groups == "", np.char.add("alone ", drawn.astype(str)), groups)
    clues = rank_clues(table.iloc[learnt].reset_index(drop=True), labels[learnt], pieces[learnt], drawn[learnt], seed)
    return [
        replace(clue, test=_ask_test(clue, table, labels, pieces, learnt, held, seed)) if clue.alarming else clue
        for clue in clues
    ]


def rank_clues(
    table: pd.DataFrame, labels: StrArray, pieces: StrArray, rows: Sequence[int] | np.ndarray, seed: int = 0
) -> list[LabelClue]:
    """The clues of a table that `CLUE_TABLE` measured, with the label, piece of steel and row number of each image."""
    names = np.unique(labels).tolist()
    classes = [name for name in names if _count_pieces(labels == name, pieces) >= _PIECES]
    if len(names) == 2:  # what tells one tells the other
        classes = [name for name in classes if CLEAR not in names or name == CLEAR][:1]
    if not classes:
        return []
    weights = group_weights(pieces, seed=seed)
    folder = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
    folds = {label: list(folder.split(labels, labels == label, pieces)) for label in classes}
    trials = [
        _try_clue(name, clue, label, values, labels == label, folds[label], weights, seed)
        for label in classes
        for name, clue, values in _list_values(table)
        if clue.made or label == CLEAR  # light and texture of one defect may well differ from another's
    ]
    corrected = holm_correction([trial.p for trial in trials])
    defects_known = bool((table["defect_known"][labels != CLEAR] > 0).all())
    best: dict[str, LabelClue] = {}
    for trial, p in zip(trials, corrected, strict=True):
        # Where nothing tells the defects, marks that go with them may be the defects. Those of clear sheets never are.
        innocent = trial.name in MARKS and not trial.more and not defects_known
        if trial.name not in best or best[trial.name].strength < trial.strength:
            best[trial.name] = LabelClue(
                name=trial.name,
                clue=trial.clue,
                label=trial.label,
                strength=trial.strength,
                interval=trial.interval,
                named=trial.named,
                n=len(labels),
                p_corrected=p,
                alarming=p < _ALPHA and not innocent,
                where=trial.where,
                rows=tuple(int(rows[i]) for i in trial.exemplars),
                others=tuple(int(rows[i]) for i in trial.others),
            )
    return sorted(best.values(), key=lambda one: (not one.alarming, -one.strength * one.clue.sharp))


def report_label_clues(index: DatasetIndex, clues: Sequence[LabelClue]) -> list[DataFinding]:
    """A finding of kind "clue" for each that alarms."""
    return [
        build_finding(
            index, "clue", clue.rows, clue.sentence,
            clue=clue.name, label=clue.label, strength=clue.strength, interval=list(clue.interval), images=clue.n,
        )
        for clue in clues
        if clue.alarming
    ]  # fmt: skip


@dataclass(frozen=True)
class _Trial:
    name: str
    clue: Clue
    label: str
    strength: float
    interval: Interval
    p: float
    named: tuple[float, float]
    more: bool  # the class has more of it than the others
    where: tuple[float, float] | None
    exemplars: list[int]
    others: list[int]


def _count_pieces(own: BoolArray, pieces: StrArray) -> int:
    return min(len(np.unique(pieces[own])), len(np.unique(pieces[~own])))


def _list_values(table: pd.DataFrame) -> Iterator[tuple[str, Clue, FloatArray]]:
    """Each clue that varies, with values (N, 1), of a fact (N, values), of places (N, P * P)."""
    for name, clue in FILE_FACTS.items():
        common = table[name].value_counts().index[:_KINDS]
        if len(common) > 1:
            yield name, clue, np.stack([table[name] == kind for kind in common], axis=1).astype(float)
    for name, clue in CLUES.items():
        if table[name].nunique() > 1:
            yield name, clue, table[[name]].to_numpy(float)
    yield "place", PLACE, thumbnails_of(table)


def _try_clue(
    name: str,
    clue: Clue,
    label: str,
    values: FloatArray,
    own: BoolArray,
    folds: Folds,
    weights: Float64Array,
    seed: int,
) -> _Trial:
    said, chance, pull = _name_images(clue, values, own, folds, seed)
    where = None
    if pull is not None:
        row, column = divmod(int(np.abs(pull).argmax()), CELLS)
        where = ((row + 0.5) / CELLS, (column + 0.5) / CELLS)
    amount: FloatArray = values[:, 0] if pull is None else values @ pull
    strength, resampled = _measure_strength(said, chance, own, weights)
    # Resamples of a clue that names every image do not vary at all; that much is luck even so.
    spread = max(float(resampled.std()), 0.25 / np.sqrt(len(own)))
    more = bool(amount[own].mean() >= amount[~own].mean())
    given = own & said
    usual = float(np.median(amount[given])) if given.any() else 0.0
    typical = np.argsort(np.abs(amount - usual), kind="stable")
    least = np.argsort(amount * (1 if more else -1), kind="stable")
    low, high = np.quantile(resampled, [0.025, 0.975])
    return _Trial(
        name=name,
        clue=clue,
        label=label,
        strength=strength,
        interval=(float(low), float(high)),
        p=float(norm.sf((strength - LEAST) / spread)),
        named=(float(said[own].mean()), float(said[~own].mean())),
        more=more,
        where=where,
        exemplars=typical[given[typical]][:_SHOWN].tolist(),
        others=least[(~own & ~said)[least]][:_SHOWN].tolist(),
    )


def _ask_test(
    clue: LabelClue,
    table: pd.DataFrame,
    labels: StrArray,
    pieces: StrArray,
    learnt: Int64Array,
    held: Int64Array,
    seed: int,
) -> SharesInTest | None:
    """The rows `held` of a table, named by what the rows `learnt` taught."""
    own = labels == clue.label
    if _count_pieces(own[held], pieces[held]) < _PIECES:
        return None
    values = next(values for name, _, values in _list_values(table) if name == clue.name)
    said, chance, _ = _name_images(clue.clue, values, own, [(learnt, held)], seed)
    said, own, chance = said[held], own[held], None if chance is None else chance[held]
    strength, resampled = _measure_strength(said, chance, own, group_weights(pieces[held], seed=seed))
    low, high = np.quantile(resampled, [0.025, 0.975])
    return SharesInTest(
        named=(float(said[own].mean()), float(said[~own].mean())),
        strength=strength,
        interval=(float(low), float(high)),
        n=len(held),
    )


def _draw_evenly(index: DatasetIndex, seed: int) -> Int64Array:
    """Rows in order: all, or as many of each label as there is room for."""
    labels = index.table["labels"].sample(frac=1.0, random_state=seed)
    turns = labels.groupby(labels).cumcount().sort_values(kind="stable")
    return np.sort(turns.index.to_numpy(np.int64)[:_MOST])


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")


def _name_images(
    clue: Clue, values: FloatArray, own: BoolArray, folds: Folds, seed: int
) -> tuple[BoolArray, BoolArray | None, Float64Array | None]:
    """(N,) which images the clue gives the class; of places also what chance would, and the pull of each cell."""
    if clue is not PLACE:
        return _fit_tree(values, own, folds, seed), None, None
    said, pull = _fit_places(values, own, folds)
    # The same with the cells of each image shuffled keeps how light it is anywhere, and loses where.
    return said, _fit_places(np.random.default_rng(seed).permuted(values, axis=1), own, folds)[0], pull


def _measure_strength(
    said: BoolArray, chance: BoolArray | None, own: BoolArray, weights: Float64Array
) -> tuple[float, Float64Array]:
    """Youden's J beyond that of chance, and that of each resample (B,)."""
    every = np.concatenate([np.ones((1, len(own))), weights])
    strength = _youden(said, own, every)
    if chance is not None:
        strength = strength - np.maximum(_youden(chance, own, every), 0)
    return float(strength[0]), strength[1:]


def _fit_tree(values: FloatArray, own: BoolArray, folds: Folds, seed: int) -> BoolArray:
    """(N,) whether a tree of four leaves that has not seen the image gives it the class."""
    said = np.zeros(len(own), bool)
    for train, test in folds:
        least = max(3, len(train) // 50)
        tree = DecisionTreeClassifier(
            max_leaf_nodes=4, min_samples_leaf=least, class_weight="balanced", random_state=seed
        )
        said[test] = tree.fit(values[train], own[train]).predict(values[test])
    return said


def _fit_places(cells: FloatArray, own: BoolArray, folds: Folds) -> tuple[BoolArray, Float64Array]:
    """The same by a ridge regression on thumbnails, and the pull of each cell towards the class."""
    said, pull = np.zeros(len(own), bool), np.zeros(cells.shape[1])
    for train, test in folds:
        ridge = RidgeClassifier(alpha=len(train), class_weight="balanced").fit(cells[train], own[train])
        said[test] = ridge.predict(cells[test])
        pull += ridge.coef_[0] / _FOLDS
    return said, pull


def _youden(said: BoolArray, own: BoolArray, weights: Float64Array) -> Float64Array:
    """(B,) share of the class that is given it, less that of the others, under weights (B, N)."""
    hit, false = weights @ (said & own), weights @ (said & ~own)
    return np.asarray(hit / np.maximum(weights @ own, 1e-9) - false / np.maximum(weights @ ~own, 1e-9))


def _name_place(where: tuple[float, float] | None) -> str:
    if where is None:
        return ""
    row, column = ((start, "", end)[int(3 * share)] for share, start, end in (
        (where[0], "top", "bottom"), (where[1], "left", "right"),
    ))  # fmt: skip
    return f" (at the {f'{row} {column}'.strip()})" if row or column else " (in the middle)"

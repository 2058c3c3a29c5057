"""Splits and folds that keep class shares and part no group, lest near-duplicates make a test reward memory."""

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from steel_core.data.index import DatasetIndex
from steel_core.errors import DataError, UsageError
from steel_core.types import Float64Array, IndexArray

NAMES = ("train", "val", "test")


def split_dataset(
    index: DatasetIndex, shares: tuple[float, float, float] = (0.7, 0.15, 0.15), seed: int = 0
) -> DatasetIndex:
    """The same samples with new splits, each class in all of them by its share as far as whole groups allow.

    Groups are taken from the largest to the smallest, in random order within a size, and each goes where its classes
    are filled least (after K. Sechidis et al., On the Stratification of Multi-Label Data, ECML 2011). A sample without
    a group is a group of its own; one with several labels counts for each. `shares` are of train, val and test; they
    sum to 1, and one of 0 leaves its split empty.

    Raises:
        UsageError: the shares do not sum to 1.
        DataError: a class has fewer groups than there are splits.
    """
    target = np.asarray(shares, dtype=np.float64)
    if target.shape != (3,) or not (target >= 0).all() or not np.isclose(target.sum(), 1):
        raise UsageError(f"shares {shares}: expected three numbers of at least 0 that sum to 1.")
    used = np.flatnonzero(target)
    member = _group_numbers(index)
    labels = _count_labels(index)
    counts = np.zeros((member.max(initial=-1) + 1, labels.shape[1]))  # (G, K + 1): labels in each group
    np.add.at(counts, member, labels)
    waiting = (counts > 0).sum(axis=0)  # (K + 1,): groups that hold a class and are not yet placed
    _check_groups(index, waiting, len(used), "splits")

    goal = np.maximum(target[used, None] * counts.sum(axis=0), 1e-9)  # (S, K + 1)
    filled = np.zeros_like(goal)
    place = np.zeros(len(counts), dtype=np.intp)
    shuffled = np.random.default_rng(seed).permutation(len(counts))
    for group in shuffled[np.argsort(-counts[shuffled].sum(axis=1), kind="stable")]:
        mine = counts[group] > 0
        # The last groups of a class go to the splits that still lack it.
        lacking = filled[:, mine] == 0
        short = lacking & (waiting[mine] <= lacking.sum(axis=0))
        cost = ((filled + counts[group]) / goal) @ counts[group] - 1e9 * short.sum(axis=1)
        best = int(cost.argmin())
        filled[best] += counts[group]
        waiting -= mine
        place[group] = best
    for number, label in enumerate(index.classes):
        if labels[:, number].any() and (filled[:, number] == 0).any():
            raise DataError(f"class {label!r}: its groups cannot be spread over {len(used)} splits.")
    return index.with_splits(np.asarray(NAMES)[used][place][member])


def make_folds(index: DatasetIndex, k: int = 5, seed: int = 0) -> list[tuple[IndexArray, IndexArray]]:
    """Row numbers of train and test for each of k >= 2 folds, stratified by the first label; no group in both.

    Each sample is in the test rows of exactly one fold; a sample without a group is a group of its own.

    Raises:
        UsageError: k is below 2.
        DataError: a class has fewer than k groups.
    """
    if k < 2:
        raise UsageError(f"k = {k}: expected at least 2 folds.")
    member = _group_numbers(index)
    first = index.labels_encoded()
    pairs = np.unique(np.stack([member, first]), axis=1)
    _check_groups(index, np.bincount(pairs[1][pairs[1] >= 0], minlength=len(index.classes)), k, "folds")
    folder = StratifiedGroupKFold(n_splits=k, shuffle=True, random_state=seed)
    return list(folder.split(np.zeros(len(index)), first, member))


def _group_numbers(index: DatasetIndex) -> IndexArray:
    group = index.table["group"]
    alone = pd.Series(np.arange(len(group)).astype(str), index=group.index)
    return pd.factorize(("g" + group).where(group != "", alone))[0]


def _count_labels(index: DatasetIndex) -> Float64Array:
    """(N, K + 1), 1 for each label of a sample; the last column is for samples without one."""
    joined = "|" + index.table["labels"] + "|"
    columns = [joined.str.contains(f"|{label}|", regex=False) for label in index.classes]
    return np.stack([*columns, joined == "||"], axis=1).astype(np.float64)


def _check_groups(index: DatasetIndex, groups: IndexArray, needed: int, what: str) -> None:
    for label, count in zip(index.classes, groups, strict=False):
        if 0 < count < needed:
            raise DataError(
                f"class {label!r}: expected at least {needed} groups of near-duplicates for {needed} {what}, "
                f"found {count}; a group is never parted. Add images of this class or ask for fewer {what}."
            )

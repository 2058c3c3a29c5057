"""Labels of a data set in the words of a checkpoint."""

from collections.abc import Sequence

from steel_core.data.index import DatasetIndex
from steel_core.errors import DataError
from steel_core.types import CLEAR, DEFECT


def map_labels(index: DatasetIndex, classes: tuple[str, ...]) -> DatasetIndex:
    """The data set in the words of a checkpoint: defect types are one class for one that tells clear from defect."""
    return index.binary() if set(classes) == {CLEAR, DEFECT} and not set(index.classes) <= set(classes) else index


def match_classes(index: DatasetIndex, classes: tuple[str, ...]) -> DatasetIndex:
    """The data set in the words of a checkpoint's classes, for work that needs every label.

    Raises:
        DataError: it holds labels that the checkpoint does not know.
    """
    index = map_labels(index, classes)
    if unknown := sorted(set(index.classes) - set(classes)):
        raise DataError(describe_unknown_labels(unknown, classes))
    return index


def describe_unknown_labels(labels: Sequence[str], classes: Sequence[str]) -> str:
    """A sentence on labels that a checkpoint does not know."""
    return f"the data set's labels {', '.join(labels)} are unknown to this checkpoint, which knows {', '.join(classes)}"

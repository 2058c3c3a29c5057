"""What a data set holds, in numbers that need no pixels."""

from typing import Any

from steel_core.data import regions
from steel_core.data.index import DatasetIndex


def describe_dataset(index: DatasetIndex) -> dict[str, Any]:
    """Title, licence, counts by label ("" is none; each of several counts), split, source, boxes and masks."""
    table = index.table
    labels = table["labels"].str.split("|").explode().value_counts()
    cells = table[regions.COLUMN] if regions.COLUMN in table else table["mask"].where(table["mask"] == "", "")
    has_box, has_mask = (cells.str.contains(key, regex=True) for key in ('"box": ', '"(?:runs|polygons)": '))
    return {
        "name": index.spec.name,
        "title": index.spec.title,
        "licence": index.spec.licence,
        "citation": index.spec.citation,
        "n": len(index),
        "classes": list(index.classes),
        "labels": {str(name): int(count) for name, count in labels.sort_index().items()},
        "splits": {str(name): int(count) for name, count in table["split"].value_counts().sort_index().items()},
        "groups": int(table["group"].replace("", None).nunique()),
        "sources": {str(name): int(count) for name, count in table["source"].value_counts().sort_index().items()},
        "with_boxes": int(((table["boxes"] != "") | has_box).sum()),
        "with_masks": int(((table["mask"] != "") | has_mask).sum()),
        "hash": index.hash,
        "problems": list(index.problems),
    }

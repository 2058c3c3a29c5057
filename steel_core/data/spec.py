"""The facts of a data set, and the words for its splits."""

from dataclasses import dataclass

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""The words for a split in folder names and manifests, and what each means."""


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """What a data set is and what may be done with it.

    Attributes:
        redistributable: whether its images may be copied into a checkpoint or a report that is passed on.
    """

    name: str
    title: str
    licence: str
    citation: str
    redistributable: bool


def unknown_spec(name: str) -> DatasetSpec:
    """The facts of a data set that states none: its licence is unknown, so its images are not passed on."""
    return DatasetSpec(name, name, "Not stated; ask the owner of the images.", "", redistributable=False)

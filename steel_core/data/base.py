"""The facts of a data set, and the registry of the readers that recognise one by its folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from steel_core.registry import Registry

if TYPE_CHECKING:
    from steel_core.data.index import DatasetIndex


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """What a data set is and what may be done with it.

    Attributes:
        name: short name for files and URLs.
        title: name for people.
        licence: what its licence allows, in one sentence.
        citation: how to cite it.
        redistributable: whether its images may be copied into a checkpoint or a report that is passed on.
    """

    name: str
    title: str
    licence: str
    citation: str
    redistributable: bool


class Reader(ABC):
    """Recognises one layout of a data set and lists its samples without reading their pixels."""

    priority: int = 0
    """Readers are asked in falling order of priority; the more specific layout first."""

    @abstractmethod
    def matches(self, root: Path) -> bool:
        """Whether `root` looks like this layout."""

    @abstractmethod
    def read(self, root: Path) -> DatasetIndex:
        """The index of the samples below `root`.

        Raises:
            DataError: the layout matches but holds something that cannot be read.
        """


READERS: Registry[type[Reader]] = Registry("reader", "steel_core.data.readers")

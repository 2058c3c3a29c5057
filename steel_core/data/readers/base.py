"""The facts of a data set, and the registry of the readers that recognise one by its folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from steel_core.progress import Progress, no_progress
from steel_core.registry import Registry

if TYPE_CHECKING:
    from steel_core.data.index import DatasetIndex


class Reader(ABC):
    """Recognises one layout of a data set and lists its samples without reading their pixels."""

    priority: int = 0
    """Readers are asked in falling order of priority; the more specific layout first."""

    layout: str = ""
    """The layout in one clause, for the message that says which ones are known."""

    @abstractmethod
    def matches(self, root: Path) -> bool:
        """Whether `root` looks like this layout."""

    @abstractmethod
    def read(self, root: Path, progress: Progress = no_progress) -> DatasetIndex:
        """The index of the samples below `root`. Nothing is written there.

        Raises:
            DataError: the layout matches but holds something that cannot be read.
        """


READERS: Registry[type[Reader]] = Registry("reader", "steel_core.data.readers", "steel_lens.readers")

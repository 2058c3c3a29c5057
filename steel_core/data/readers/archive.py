"""A zip archive that holds a data set of any other layout."""

import dataclasses
from pathlib import Path

from steel_core.data.archive import is_archive, unpack_archive
from steel_core.data.index import DatasetIndex
from steel_core.data.open import open_dataset
from steel_core.data.readers.base import READERS, Reader
from steel_core.errors import DataError
from steel_core.progress import Progress, no_progress


@READERS.register("archive")
class ArchiveReader(Reader):
    """Unpacked once into the user's cache; a single folder at the top stands for what is in it."""

    priority = 60
    layout = "a zip archive of one of these"

    def matches(self, root: Path) -> bool:
        return root.is_file() and is_archive(root)

    def read(self, root: Path, progress: Progress = no_progress) -> DatasetIndex:
        folder, problems = unpack_archive(root, progress)
        inside = list(folder.iterdir())
        try:
            index = open_dataset(folder, progress)
        except DataError:
            if len(inside) != 1 or not inside[0].is_dir():
                raise
            index = open_dataset(inside[0], progress)
        return dataclasses.replace(index, problems=(*problems, *index.problems))

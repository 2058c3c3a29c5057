"""A manifest, or the folder that holds one."""

from pathlib import Path

from steel_core.data.index import DatasetIndex
from steel_core.data.manifest import read_manifest
from steel_core.data.readers.base import READERS, Reader
from steel_core.progress import Progress, no_progress

_NAMES = ("manifest.csv", "manifest.parquet")


@READERS.register("manifest")
class ManifestReader(Reader):
    """See `steel_core.data.manifest` for the columns."""

    priority = 50
    layout = "a manifest.csv or manifest.parquet with the column path (or such a file itself)"

    def matches(self, root: Path) -> bool:
        if root.is_file():
            return root.suffix.lower() in {".csv", ".parquet", ".pq"}
        return any((root / name).is_file() for name in _NAMES)

    def read(self, root: Path, progress: Progress = no_progress) -> DatasetIndex:
        if root.is_file():
            return read_manifest(root, named=True)
        return read_manifest(next(root / name for name in _NAMES if (root / name).is_file()))

"""Files that are either whole or not there, and arrays larger than the memory."""

import errno
import os
import secrets
import shutil
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from steel_core.errors import UsageError
from steel_core.types import AnyArray


def write_bytes(path: Path, content: bytes) -> None:
    """Write beside the target under a temporary name, then rename.

    Raises:
        UsageError: the folder cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    except OSError as error:
        raise UsageError(f"cannot write {path.name}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(scratch).chmod(0o644)
        Path(scratch).replace(path)
    except OSError as error:
        Path(scratch).unlink(missing_ok=True)
        raise UsageError(f"cannot write {path.name}: {error.strerror}") from error


def cache_bytes(path: Path, content: bytes) -> None:
    """Write where that is possible: a cache that cannot be written only costs time."""
    with suppress(UsageError):
        write_bytes(path, content)


def scratch_array(shape: tuple[int, ...], dtype: npt.DTypeLike, folder: Path) -> AnyArray:
    """An array of zeros in a file without a name, of which the system keeps in memory what there is room for.

    On Linux its blocks are reserved, so that a full disk is found out here, where a later write would end the process.

    Raises:
        OSError: the folder cannot be written to, or its disk has no room.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        elif shutil.disk_usage(folder).free < size:  # elsewhere only what can be known beforehand
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return np.memmap(file, dtype, "w+", shape=shape)


def assets_folder() -> Path:
    """The models and images that are shipped: in a wheel they lie in the package, in a checkout beside it."""
    package = Path(__file__).resolve().parent
    packaged = package / "assets"
    return packaged if packaged.is_dir() else package.parent / "assets"


def cache_folder() -> Path:
    """Where things are remembered that can be computed again: `$STEEL_CACHE`, or `~/.cache/steel-lens`."""
    return Path(os.environ.get("STEEL_CACHE") or Path.home() / ".cache" / "steel-lens")


def steel_home() -> Path:
    """The folder for what cannot be computed again: `$STEEL_HOME`, or `~/.steel-lens`."""
    return Path(os.environ.get("STEEL_HOME") or Path.home() / ".steel-lens")


def new_run_name() -> str:
    """A name for a run that begins now; there is no second one."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"

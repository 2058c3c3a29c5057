"""How results become bytes, and when a file has changed."""

import base64
import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

from steel_core.files import assets_folder
from steel_core.types import AnyArray, UInt8Array


def as_json(content: dict[str, Any]) -> bytes:
    """A file of JSON, for people to read as well."""
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def jpeg(picture: UInt8Array) -> bytes:
    """A picture as JPEG, without loss of colour resolution: maps are drawn in colour."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=92, subsampling=0)
    return file.getvalue()


def png(picture: AnyArray) -> bytes:
    """A picture, or a mask in black and white, as PNG."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def inline(file: bytes) -> str:
    """A JPEG as part of the page: a file of Streamlit's is gone when a click interrupts the run that made it."""
    return "data:image/jpeg;base64," + base64.b64encode(file).decode()


def asset(name: str) -> str:
    return str(assets_folder() / name)


def stamp(path: Path) -> int:
    """Changes when a file, or a folder's list of entries, does."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0

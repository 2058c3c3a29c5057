"""Boxes in Pascal VOC XML and masks in PNG, read with the distrust that foreign files deserve."""

import io
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError, TreeBuilder

import cv2
import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser
from PIL import Image

from steel_core.data.images.png import read_png
from steel_core.errors import DataError, ImageError
from steel_core.types import AnyArray, BoolArray, Box, UInt8Array

MAX_XML_BYTES = 4_000_000
"""A longer annotation is refused; a real one has some thousand bytes."""


def read_boxes(path: Path, classes: Collection[str] | None = None) -> tuple[list[Box], list[str]]:
    """The sound boxes of a Pascal VOC annotation, and one sentence with file and line for each thing that is wrong.

    VOC counts pixels from 1 and both corners belong to the box, so (1, 1) to (200, 200) covers an image of 200 x 200;
    `Box` counts from 0 and is half open. Underscores and capitals in class names do not matter ("rolled-in_scale").
    A box that is out of the bounds that the file states, swapped, or of a class not in `classes` is left out. Never
    raises for what is in the file.
    Source: Everingham et al., The PASCAL VOC Challenge 2012 Development Kit, section 6.
    """
    builder = _LineKeeper()
    try:
        data = path.read_bytes()
        if len(data) > MAX_XML_BYTES:
            return [], [f"{path.name}: expected at most {MAX_XML_BYTES} bytes, found {len(data)}."]
        parser = DefusedXMLParser(target=builder, forbid_dtd=True)
        builder.expat = parser.parser
        parser.feed(data)
        root = parser.close()
    except OSError as error:
        return [], [f"{path.name}: cannot be read ({error.strerror})."]
    except ParseError as error:
        return [], [f"{path.name}, line {error.position[0]}: not well-formed XML."]
    except (DefusedXmlException, ValueError, LookupError):  # an unknown encoding is a LookupError or a ValueError
        line = builder.expat.CurrentLineNumber
        return [], [f"{path.name}, line {line}: a document type, an entity or an unknown encoding is not accepted."]

    names = None if classes is None else {_normalise_name(name): name for name in classes}
    problems: list[str] = []
    height, width = (_parse_whole(root.findtext(f"size/{side}")) for side in ("height", "width"))
    if not (height and width and height > 0 and width > 0):
        return [], [f"{path.name}: expected the image's width and height in <size>."]
    boxes: list[Box] = []
    for item in root.iter("object"):
        where = f"{path.name}, line {builder.lines[item]}"
        name = (item.findtext("name") or "").strip()
        label = name if names is None else names.get(_normalise_name(name))
        corners = [_parse_whole(item.findtext(f"bndbox/{tag}")) for tag in ("xmin", "ymin", "xmax", "ymax")]
        if not label:
            expected = "a class name" if names is None else f"one of {', '.join(names.values())}"
            problems.append(f"{where}: expected {expected}, found {name!r}.")
        elif None in corners:
            problems.append(f"{where}: expected whole numbers xmin, ymin, xmax, ymax in <bndbox>.")
        else:
            try:
                boxes.append(_make_box(label, [int(corner or 0) for corner in corners], (height, width)))
            except DataError as error:
                problems.append(f"{where}: {error}")
    return boxes, problems


def _make_box(label: str, corners: Sequence[int], size: tuple[int, int]) -> Box:
    xmin, ymin, xmax, ymax = corners
    height, width = size
    if xmin > xmax or ymin > ymax:
        raise DataError(f"the corners ({xmin}, {ymin}) and ({xmax}, {ymax}) are swapped.")
    if xmin < 1 or ymin < 1 or xmax > width or ymax > height:
        place = f"the box ({xmin}, {ymin}) to ({xmax}, {ymax})"
        raise DataError(f"{place} lies outside the image of 1 to {width} by 1 to {height} pixels.")
    return Box(label, xmin - 1, ymin - 1, xmax, ymax)


def read_mask(path: Path) -> UInt8Array:
    """The class number of each pixel of a PNG mask, (H, W), 0 where nothing is.

    A palette PNG is read as the palette's indices, a PNG of 1 bit as 0 and 1. A DataError says that it is no PNG of one
    channel of at most 8 bits, damaged, or too large.
    """
    try:
        data = path.read_bytes()
        read_png(data)  # proves size, checksums and rows, which Pillow alone does not
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.mode not in {"1", "L", "P"}:
                raise DataError(f"{path.name}: expected one channel of at most 8 bits, found mode {image.mode}.")
            return np.asarray(image).astype(np.uint8)
    except OSError as error:
        raise DataError(f"{path.name}: expected a PNG mask; it cannot be read ({error.strerror}).") from error
    except ImageError as error:
        raise DataError(f"{path.name}: expected a PNG mask; {error}.") from error


def boxes_to_mask(boxes: Sequence[Box], size: tuple[int, int]) -> BoolArray:
    """(H, W), True inside any of the boxes; `size` is (H, W). H rows, W columns."""
    mask = np.zeros(size, dtype=np.bool_)
    for box in boxes:
        mask[box.ymin : box.ymax, box.xmin : box.xmax] = True
    return mask


def mask_to_boxes(mask: AnyArray, mask_classes: dict[int, str] | None = None) -> list[Box]:
    """One box around each connected region (8 neighbours) of each value but 0 of a mask (H, W).

    A value that `mask_classes` does not name is called "class 7".
    """
    names = mask_classes or {}
    boxes = []
    for value in np.unique(mask[mask > 0]).tolist():
        _, _, stats, _ = cv2.connectedComponentsWithStats((mask == value).astype(np.uint8), connectivity=8)
        for x, y, width, height, _ in sorted(stats[1:].tolist(), key=lambda region: (region[1], region[0])):
            boxes.append(Box(names.get(value, f"class {value}"), x, y, x + width, y + height))
    return boxes


class _LineKeeper(TreeBuilder):
    expat: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[Element, int] = {}

    def start(self, tag: Any, attrs: Any, /) -> Element:
        element = super().start(tag, attrs)
        self.lines[element] = self.expat.CurrentLineNumber
        return element


def _normalise_name(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).casefold()


def _parse_whole(text: str | None) -> int | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return int(value) if math.isfinite(value) and value == int(value) else None

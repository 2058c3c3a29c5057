"""Boxes and outlines on a picture, each class marked by a colour and a number."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw

from steel_core.render.fonts import load_default_font
from steel_core.types import BoolArray, Box, UInt8Array


class Sign(NamedTuple):
    """How a class is marked in a picture: by a colour (R, G, B), and by a number for those who cannot tell colours."""

    colour: tuple[int, int, int]
    number: str


# Okabe and Ito, Color Universal Design, 2008; told apart on grey steel, and by colour-blind people.
_SIGNS = ((230, 159, 0), (86, 180, 233), (0, 200, 145), (240, 228, 66), (80, 150, 255), (255, 120, 40), (230, 150, 200))

_FRAME = (255, 214, 10)


def assign_signs(classes: Sequence[str]) -> dict[str, Sign]:
    """How each class is marked; colours repeat where there are many classes, numbers never do."""
    return {name: Sign(_SIGNS[i % len(_SIGNS)], str(i + 1)) for i, name in enumerate(classes)}


def draw_boxes(picture: UInt8Array, boxes: Iterable[Box], grid: tuple[int, int]) -> UInt8Array:
    """The picture (H', W', 3) with a frame around each box; `grid` is the height and width that the boxes refer to."""
    drawn = Image.fromarray(picture)
    pen = ImageDraw.Draw(drawn)
    right, down = drawn.width / grid[1], drawn.height / grid[0]
    for box in boxes:
        corners = (box.xmin * right, box.ymin * down, box.xmax * right - 1, box.ymax * down - 1)
        # Dark around bright: seen on every steel.
        pen.rectangle(corners, outline=(0, 0, 0), width=4)
        pen.rectangle(corners, outline=_FRAME, width=2)
    return np.asarray(drawn)


def draw_outline(picture: UInt8Array, mask: BoolArray) -> UInt8Array:
    """The picture (H', W', 3) with a line around the pieces of a mask (H, W)."""
    drawn = np.array(picture, order="C")
    shrunk = cv2.resize(mask.astype(np.uint8), drawn.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    outlines = cv2.findContours(shrunk, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
    for colour, thickness in (((0, 0, 0), 4), (_FRAME, 2)):
        cv2.drawContours(drawn, outlines, -1, colour, thickness, cv2.LINE_AA)
    return drawn


def draw_annotations(
    picture: UInt8Array,
    masks: Mapping[str, BoolArray],
    boxes: Iterable[Box],
    grid: tuple[int, int],
    signs: Mapping[str, Sign],
) -> UInt8Array:
    """The picture (H', W', 3) with outlines in the colour of their class, and its number beside them.

    Masks (H, W) and boxes are in pixels of `grid`, the height and width of the picture as it came.
    """
    height, width = picture.shape[:2]
    shapes = []
    for label, mask in masks.items():
        shrunk = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        shapes.append((signs[label], cv2.findContours(shrunk, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]))
    down, right = height / grid[0], width / grid[1]
    for box in boxes:
        left, top, far, low = box.xmin * right, box.ymin * down, box.xmax * right - 1, box.ymax * down - 1
        corners = np.array([[left, top], [far, top], [far, low], [left, low]]).round().astype(np.int32)
        shapes.append((signs[box.label], [corners[:, None]]))
    drawn = np.array(picture, order="C")  # drawn on, so a copy
    for sign, outlines in shapes:
        for colour, thickness in (((0, 0, 0), 4), (sign.colour, 2)):  # dark around bright: seen on every steel
            cv2.drawContours(drawn, outlines, -1, colour, thickness, cv2.LINE_AA)
    written = Image.fromarray(drawn)
    pen = ImageDraw.Draw(written)
    size = max(12, min(height, width) // 14)
    for sign, outlines in shapes:
        if outlines:
            x, y, *_ = cv2.boundingRect(max(outlines, key=cv2.contourArea))
            wide = round(load_default_font(size).getlength(sign.number)) + 5
            x, y = max(min(x, width - wide), 0), max(min(y, height - size - 4), 0)
            pen.rectangle((x, y, x + wide - 1, y + size + 3), fill=(0, 0, 0))
            pen.text((x + 2, y + 1), sign.number, fill=sign.colour, font=load_default_font(size))
    return np.asarray(written)

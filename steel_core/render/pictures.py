"""From raw attributions to pictures and words. The only place that normalises; no torch.

Every panel of one method is drawn on one symmetric scale, fixed on the validation split, so that colours can be
compared between images: a sheet without evidence stays cold instead of being stretched until its noise glows.

The way of a map: `evidence` (what people should read) -> `evidence_scale` on the validation split, once -> `overlay`,
`colour`, `legend`, `summary`, and `report_png` to carry away.

Legend of shapes: H, W rows and columns of the attribution, H', W' of the picture it is drawn on.
"""

from __future__ import annotations

import functools
import io
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from steel_core.errors import UsageError
from steel_core.types import Attribution, Box, SteelImage

Picture = npt.NDArray[np.uint8]
Values = npt.NDArray[np.floating[Any]]

FAINT = 0.1
"""Share of the scale below which a value counts as no evidence, in words as in colours."""

_WEAK = 1 / 3  # of the scale: below it the colours are pale, and the words say so

_SCALE_PERCENTILE = 99.5

# Blue, grey, red: Moreland, "Diverging Color Maps for Scientific Visualization", ISVC 2009. Both ends are equally dark,
# told apart by colour-blind people, and the middle is a grey that stands out neither on white nor on black.
_ANCHORS = ((59, 76, 192), (124, 159, 249), (221, 221, 221), (244, 154, 123), (180, 4, 38))

# Words under the colour bar, and the bar's ends as shares of the scale.
_LEGENDS = {True: (("against", "none", "for"), -1.0), False: (("none", "for"), 0.0)}


@dataclass(frozen=True, slots=True)
class Summary:
    """A map in numbers and in one sentence.

    Attributes:
        sentence: for people.
        peak: the strongest evidence for the class as a share of the scale; more than 1 where the colours are cut.
        share_for: evidence for the class as a share of all evidence, 0 to 1; 0 where there is none at all.
        half_area: share of the image that holds half of the evidence for the class, 0 to 1; 0 where there is none.
        place: the ninth of the image with most of it ("upper left", "centre", ...), or "".
        place_share: how much of it lies there, 0 to 1.
    """

    sentence: str
    peak: float
    share_for: float
    half_area: float
    place: str
    place_share: float


class Panel(NamedTuple):
    """One map in a report: title, what it shows, overlay (H', W', 3), and `ExplainerInfo.signed` of the method."""

    title: str
    caption: str
    picture: Picture
    signed: bool = True


class Sign(NamedTuple):
    """How a class is marked in a picture: by a colour (R, G, B), and by a number for those who cannot tell colours."""

    colour: tuple[int, int, int]
    number: str


# Okabe and Ito, Color Universal Design, 2008; told apart on grey steel, and by colour-blind people.
_SIGNS = ((230, 159, 0), (86, 180, 233), (0, 200, 145), (240, 228, 66), (80, 150, 255), (255, 120, 40), (230, 150, 200))


def signs(classes: Sequence[str]) -> dict[str, Sign]:
    """How each class is marked; colours repeat where there are many classes, numbers never do."""
    return {name: Sign(_SIGNS[i % len(_SIGNS)], str(i + 1)) for i, name in enumerate(classes)}


def evidence(values: Values, signed: bool = True, blur: float = 0.0) -> npt.NDArray[np.float32]:
    """What a person should read in a raw attribution: positive for the class, negative against it.

    Args:
        values: raw attribution (H, W).
        signed: `ExplainerInfo.signed` of the method; where not, a value's size is its evidence for the class.
        blur: `ExplainerInfo.blur` of the method, in pixels. Smoothing keeps the total: it moves evidence to neighbours.
    """
    shown = (_finite(values) if signed else np.abs(_finite(values))).astype(np.float32)
    if not blur:
        return shown
    return np.asarray(cv2.GaussianBlur(shown, (0, 0), blur, borderType=cv2.BORDER_REFLECT), dtype=np.float32)


def evidence_scale(maps: Iterable[Values]) -> float:
    """The value that is drawn in full colour: the 99.5th percentile of the magnitudes of all maps together.

    A percentile, because a single pixel must not decide; of all maps together, because a map's own maximum would make
    every sheet look equally suspicious.

    Args:
        maps: what `evidence` gave (H, W) for one method on the validation split.

    Raises:
        UsageError: there is no map, or no evidence in any of them.
    """
    magnitudes = [np.abs(_finite(values)).ravel() for values in maps]
    scale = float(np.percentile(np.concatenate(magnitudes), _SCALE_PERCENTILE)) if magnitudes else 0.0
    if scale <= 0:
        raise UsageError("a scale needs evidence: expected maps that are not all zero")
    return scale


def colour(values: Values, scale: float) -> Picture:
    """Evidence (H, W) as colours (H, W, 3): red for the class, blue against it, grey none; cut at plus, minus scale."""
    share = np.clip(_finite(values) / _positive(scale), -1, 1)
    table = _colours()
    middle = len(table) // 2
    return table[np.rint(share * middle).astype(np.intp) + middle]


def overlay(
    image: SteelImage,
    values: Values,
    scale: float,
    opacity: float = 0.6,
    longest: int = 800,
    threshold: float = FAINT,
) -> Picture:
    """The map laid over the picture; where there is no evidence the steel shows unchanged.

    Args:
        image: the picture that was explained.
        values: what `evidence` gave (H, W) for the whole picture, on any grid.
        scale: what `evidence_scale` gave for this method.
        opacity: of the strongest evidence, 0 to 1.
        longest: longest side of the result in pixels; a larger picture is shrunk, a smaller one left as it is.
        threshold: share of the scale up to which evidence is not drawn, 0 to less than 1.

    Returns:
        (H', W', 3).
    """
    if not 0 <= opacity <= 1:
        raise UsageError(f"opacity: expected 0 to 1, got {opacity}")
    if not 0 <= threshold < 1:
        raise UsageError(f"threshold: expected 0 to less than 1, got {threshold}")
    steel = thumbnail(image, longest)
    height, width = steel.shape[:2]
    spread = _resize(_finite(values).astype(np.float32), width, height)
    strength = np.clip(np.abs(spread) / _positive(scale), 0, 1)[..., None]
    # From the threshold to 1 the colour grows steadily: no edge where it begins, none where it is full.
    ramp = np.clip((strength - threshold) / (1 - threshold), 0, 1)
    alpha = opacity * ramp * (2 - ramp)
    # Half way from the middle at least: a weak colour is made by a low opacity, not by grey on the steel.
    tint = colour(np.sign(spread) * (0.5 + 0.5 * strength[..., 0]), 1.0)
    return np.rint(steel * (1 - alpha) + tint * alpha).astype(np.uint8)


def outlined(picture: Picture, boxes: Iterable[Box], grid: tuple[int, int]) -> Picture:
    """The picture (H', W', 3) with a frame around each box.

    Args:
        picture: what `thumbnail` or `overlay` gave.
        boxes: in pixels of `grid`.
        grid: height and width of the grid on which the boxes were found; it covers the whole picture.
    """
    drawn = Image.fromarray(picture)
    pen = ImageDraw.Draw(drawn)
    right, down = drawn.width / grid[1], drawn.height / grid[0]
    for box in boxes:
        corners = (box.xmin * right, box.ymin * down, box.xmax * right - 1, box.ymax * down - 1)
        # Dark around bright: seen on every steel.
        pen.rectangle(corners, outline=(0, 0, 0), width=4)
        pen.rectangle(corners, outline=(255, 214, 10), width=2)
    return np.asarray(drawn)


def annotated(
    picture: Picture,
    masks: Mapping[str, npt.NDArray[np.bool_]],
    boxes: Iterable[Box],
    grid: tuple[int, int],
    signs: Mapping[str, Sign],
) -> Picture:
    """The picture (H', W', 3) with outlines in the colour of their class, and its number beside them.

    Args:
        picture: what `thumbnail` gave.
        masks: mask (H, W) of the whole picture, by class.
        boxes: in pixels of `grid`.
        grid: height and width (H, W) of the picture as it came.
        signs: of each class.
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
            wide = round(_font(size).getlength(sign.number)) + 5
            x, y = max(min(x, width - wide), 0), max(min(y, height - size - 4), 0)
            pen.rectangle((x, y, x + wide - 1, y + size + 3), fill=(0, 0, 0))
            pen.text((x + 2, y + 1), sign.number, fill=sign.colour, font=_font(size))
    return np.asarray(written)


def thumbnail(image: SteelImage, longest: int = 800) -> Picture:
    """The picture as RGB (H', W', 3) with its longest side at most `longest` pixels; never enlarged."""
    shown = image.display()
    factor = min(1.0, longest / max(shown.shape[:2]))
    height, width = (max(1, round(side * factor)) for side in shown.shape[:2])
    shown = _resize(shown, width, height)
    return np.ascontiguousarray(np.broadcast_to(shown[..., None], (height, width, 3)) if shown.ndim == 2 else shown)


def legend(width: int = 320, height: int = 44, dark: bool = False, signed: bool = True) -> Picture:
    """A colour bar with its words below, (height, width, 4) RGBA on a transparent ground.

    Args:
        width: in pixels.
        height: in pixels; the lower half holds the words.
        dark: whether it will lie on a dark ground.
        signed: `ExplainerInfo.signed` of the method; where not, the bar begins at none.
    """
    words, start = _LEGENDS[signed]
    sheet = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    sheet.paste(Image.fromarray(colour(np.tile(np.linspace(start, 1, width), (height * 2 // 5, 1)), 1.0)), (0, 0))
    draw = ImageDraw.Draw(sheet)
    ink = (235, 235, 235, 255) if dark else (60, 60, 60, 255)
    places = np.linspace(0, width - 1, len(words))
    anchors = ("ls", "ms", "rs") if signed else ("ls", "rs")
    for word, x, anchor in zip(words, places, anchors, strict=True):
        draw.text(
            (float(x), height - 1 - height // 9), word, fill=ink, font=_font(max(8, height * 2 // 5)), anchor=anchor
        )
    return np.asarray(sheet)


def summary(values: Values, scale: float) -> Summary:
    """Where the evidence for the class lies, in numbers and in one sentence.

    Args:
        values: what `evidence` gave (H, W).
        scale: what `evidence_scale` gave for this method; what is faint on it is called no evidence.
    """
    values = _finite(values).astype(np.float64)
    positive = values.clip(min=0)
    peak = float(positive.max()) / _positive(scale)
    total = float(positive.sum())
    share_for = total / max(float(np.abs(values).sum()), np.finfo(np.float64).tiny)
    if peak < FAINT:
        return Summary("No positive evidence for this class.", peak, share_for, 0.0, "", 0.0)
    cumulative = np.cumsum(np.sort(positive, axis=None)[::-1])
    half_area = (int(np.searchsorted(cumulative, total / 2)) + 1) / positive.size
    place, place_share = _fullest_ninth(positive)
    where = f"the {place} holds {place_share:.0%}".replace("%", " %") if place_share >= 0.25 else "it is spread widely"
    strength = "the evidence" if peak >= _WEAK else "the faint evidence"
    area = f"{half_area:.0%}".replace("%", " %") if half_area >= 0.005 else "less than 1 %"
    sentence = f"Half of {strength} for this class fills {area} of the image; {where}."
    return Summary(sentence, peak, share_for, half_area, place, place_share)


def region_sentence(values: Values, mask: npt.NDArray[np.bool_]) -> str:
    """How much of the evidence for the class lies in a region, how large that is, and where most of it is.

    Args:
        values: what `evidence` gave (H, W).
        mask: the region, True inside (H, W).
    """
    positive = _finite(values).astype(np.float64).clip(min=0)
    inside = np.where(mask, positive, 0)
    if not inside.any():
        return "No region: nowhere is the positive evidence above the threshold."
    place, share = _fullest_ninth(inside / inside.sum())
    held, area = (f"{share:.0%}".replace("%", " %") for share in (inside.sum() / positive.sum(), mask.mean()))
    area = area if mask.mean() >= 0.005 else "less than 1 %"
    where = f", mostly at the {place}" if share > 0.5 else ""
    return f"{held} of the positive evidence lies in {area} of the image{where}."


def percent(share: float) -> str:
    """A share in percent with one decimal. What is not all is not rounded up to all, what is not nothing not to it."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    return "> 99.9 %" if 0.999 < share < 1 else f"{share:.1%}".replace("%", " %")


def target_words(attribution: Attribution) -> str:
    """What is explained: a class, or one class rather than another."""
    return attribution.target + (f" rather than {attribution.against}" if attribution.against else "")


def small_print(attribution: Attribution) -> str:
    """One line with everything needed to make the map again."""
    made = attribution.provenance()
    settings = "".join(f", {name} {value}" for name, value in made["parameters"].items())
    parts = [
        f"{made['method']} for {target_words(attribution)}{settings}",
        f"layer {made['layer']}" if made["layer"] else "",
        f"against {made['baseline']}" if made["baseline"] else "",
        "" if made["seed"] is None else f"seed {made['seed']}",
        f"image {made['image_sha256'][:12]}",
        f"checkpoint {made['checkpoint'][:12]}",
    ]
    return " · ".join(part for part in parts if part)


def report_png(
    image: SteelImage,
    panels: Sequence[Panel | tuple[str, str, Picture]],
    header: Sequence[str],
    footer: Sequence[str] = (),
) -> bytes:
    """One sheet to carry away: the verdict, the picture beside its maps with captions and legends, the small print.

    Args:
        image: the picture that was explained.
        panels: its maps, in order.
        header: lines of text; the first is the verdict and is set large.
        footer: lines of small print, such as `small_print` gives.

    Returns:
        The bytes of a PNG, 1600 pixels wide.
    """
    cells = [
        Panel("Picture", "; ".join(filter(None, (image.name, image.note))), thumbnail(image)),
        *(Panel(*panel) for panel in panels),
    ]
    # Long strips go one below the other, everything else side by side.
    columns = 1 if image.width > 3 * image.height else min(max(len(cells), 2), 4)
    width = (_PAGE - 2 * _MARGIN - (columns - 1) * _GAP) // columns
    drawn = [_cell(cell, width, with_legend=row > 0) for row, cell in enumerate(cells)]
    rows = [drawn[start : start + columns] for start in range(0, len(drawn), columns)]
    head = _paragraphs(header[:1], 40, _PAGE - 2 * _MARGIN, _INK) + _paragraphs(
        header[1:], 22, _PAGE - 2 * _MARGIN, _INK
    )
    foot = _paragraphs(footer, 16, _PAGE - 2 * _MARGIN, _GREY)
    blocks: list[list[Image.Image]] = [[block] for block in head] + rows + [[block] for block in foot]
    gaps = [8] * len(head) + [_GAP] * len(rows) + [4] * len(foot)
    if head:
        gaps[len(head) - 1] = _GAP
    heights = [max(block.height for block in line) for line in blocks]
    page = Image.new("RGB", (_PAGE, 2 * _MARGIN + sum(heights) + sum(gaps[:-1])), "white")
    y = _MARGIN
    for line, height, gap in zip(blocks, heights, gaps, strict=True):
        for column, block in enumerate(line):
            page.paste(block, (_MARGIN + column * (width + _GAP), y))
        y += height + gap
    file = io.BytesIO()
    page.save(file, "PNG")
    return file.getvalue()


_PAGE, _MARGIN, _GAP, _TALLEST = 1600, 56, 28, 900
_INK, _GREY = (28, 32, 38), (96, 102, 110)


def _cell(panel: Panel, width: int, with_legend: bool) -> Image.Image:
    """Title, picture, legend and caption, one below the other."""
    height, columns = panel.picture.shape[:2]
    factor = min(width / columns, _TALLEST / height)  # a small picture is enlarged to fill its column
    size = (max(1, round(columns * factor)), max(1, round(height * factor)))
    picture = Image.fromarray(panel.picture).resize(size, Image.Resampling.LANCZOS)
    parts = [*_paragraphs([panel.title], 24, width, _INK), picture]
    if with_legend:
        key = Image.new("RGB", (width, 40), "white")
        bar = Image.fromarray(legend(min(width, 420), 40, signed=panel.signed))
        key.paste(bar, (0, 0), bar)
        parts.append(key)
    parts += _paragraphs([panel.caption], 18, width, _GREY)
    cell = Image.new("RGB", (width, sum(part.height for part in parts) + 10 * (len(parts) - 1)), "white")
    y = 0
    for part in parts:
        cell.paste(part, (0, y))
        y += part.height + 10
    return cell


def _paragraphs(lines: Iterable[str], size: int, width: int, ink: tuple[int, int, int]) -> list[Image.Image]:
    """Each line as a picture of its own, wrapped to `width`."""
    font = _font(size)
    leading = round(size * 1.35)
    out = []
    for line in lines:
        rows = _wrap(_printable(line), font, width)
        block = Image.new("RGB", (width, leading * len(rows)), "white")
        draw = ImageDraw.Draw(block)
        for row, text in enumerate(rows):
            draw.text((0, row * leading + size), text, fill=ink, font=font, anchor="ls")
        out.append(block)
    return out


_QUOTES = str.maketrans("“”„‘’", '"""\'\'')


def _printable(text: str) -> str:
    """`text` in the letters that Pillow's own font has: accents are dropped, what is left over becomes "?"."""
    plain = unicodedata.normalize("NFKD", text.translate(_QUOTES | dict.fromkeys(range(0x2010, 0x2016), "-")))
    kept = (letter for letter in plain if not unicodedata.combining(letter))
    return "".join(
        letter if letter == "·" or " " <= letter <= "~" else " " if letter.isspace() else "?" for letter in kept
    )


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Lines no wider than `width`, broken at spaces, and inside a word that is too long (a file name)."""
    rows = [""]
    for word in text.split():
        row = f"{rows[-1]} {word}".strip()
        if font.getlength(row) <= width:
            rows[-1] = row
            continue
        if rows[-1]:
            rows.append("")
        for letter in word:
            if font.getlength(rows[-1] + letter) > width:
                rows.append("")
            rows[-1] += letter
    return rows


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # Pillow's wheels are built with FreeType
    return font


@functools.cache
def _colours() -> Picture:
    """511 colours (511, 3) from blue to red, evenly spaced in CIELAB between the anchors."""
    anchors = np.array([_ANCHORS], dtype=np.float32) / 255
    lab = cv2.cvtColor(anchors, cv2.COLOR_RGB2Lab)[0]
    at = np.linspace(0, len(_ANCHORS) - 1, 511)
    mixed = np.stack([np.interp(at, np.arange(len(_ANCHORS)), channel) for channel in lab.T], axis=-1)
    rgb = cv2.cvtColor(mixed[None].astype(np.float32), cv2.COLOR_Lab2RGB)[0]
    return np.rint(rgb.clip(0, 1) * 255).astype(np.uint8)


def _fullest_ninth(positive: npt.NDArray[np.float64]) -> tuple[str, float]:
    """Name of the ninth of the image with most of it, and its share."""
    shares = [
        float(cell.sum()) for band in np.array_split(positive, 3, axis=0) for cell in np.array_split(band, 3, axis=1)
    ]
    best = int(np.argmax(shares))
    names = (
        *("upper left", "upper edge", "upper right"),
        *("left edge", "centre", "right edge"),
        *("lower left", "lower edge", "lower right"),
    )
    return names[best], shares[best] / sum(shares)


def _resize(array: npt.NDArray[Any], width: int, height: int) -> npt.NDArray[Any]:
    """Bilinear where it grows, the mean of what falls together where it shrinks."""
    if array.shape[:2] == (height, width):
        return array
    shrinks = width <= array.shape[1] and height <= array.shape[0]
    return cv2.resize(array, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _finite(values: Values) -> Values:
    if values.ndim != 2 or values.size == 0 or not np.isfinite(values).all():
        raise UsageError(f"expected a map (H, W) of finite numbers, got shape {values.shape}")
    return values


def _positive(scale: float) -> float:
    if not (np.isfinite(scale) and scale > 0):
        raise UsageError(f"scale: expected a positive number, got {scale}")
    return scale

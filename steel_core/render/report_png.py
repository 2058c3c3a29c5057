"""One sheet to carry away: the verdict, the picture beside its maps, and the small print, as PNG."""

import io
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

from steel_core.render.fonts import choose_fonts, draw_line, to_printable, wrap_text
from steel_core.render.heat_map import legend, thumbnail
from steel_core.types import SteelImage, UInt8Array

_PAGE, _MARGIN, _GAP, _TALLEST = 1600, 56, 28, 900
_INK, _GREY = (28, 32, 38), (96, 102, 110)


class Panel(NamedTuple):
    """One map in a report: title, what it shows, overlay (H', W', 3), and `ExplainerInfo.signed` of the method."""

    title: str
    caption: str
    picture: UInt8Array
    signed: bool = True


def render_report_png(
    image: SteelImage, panels: Sequence[Panel], header: Sequence[str], footer: Sequence[str] = ()
) -> bytes:
    """One sheet to carry away: the verdict, the picture beside its maps with captions and legends, the small print.

    A PNG, 1600 pixels wide. The header's first line is the verdict and is set large; the footer is the small print.
    """
    cells = [Panel("Picture", "; ".join(filter(None, (image.name, image.note))), thumbnail(image)), *panels]
    # Long strips go one below the other, everything else side by side.
    columns = 1 if image.width > 3 * image.height else min(max(len(cells), 2), 4)
    width = (_PAGE - 2 * _MARGIN - (columns - 1) * _GAP) // columns
    drawn = [_cell(cell, width, with_legend=row > 0) for row, cell in enumerate(cells)]
    rows = [drawn[start : start + columns] for start in range(0, len(drawn), columns)]
    inner = _PAGE - 2 * _MARGIN
    head = _paragraphs(header[:1], 40, inner, _INK) + _paragraphs(header[1:], 22, inner, _INK)
    foot = _paragraphs(footer, 16, inner, _GREY)
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


def _cell(panel: Panel, width: int, with_legend: bool) -> Image.Image:
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
    leading = round(size * 1.35)
    blocks = []
    for line in map(to_printable, lines):
        fonts = choose_fonts(line, size)
        rows = wrap_text(line, fonts, width)
        block = Image.new("RGB", (width, leading * len(rows)), "white")
        for row, text in enumerate(rows):
            draw_line(ImageDraw.Draw(block), 0, row * leading + size, text, fonts, ink)
        blocks.append(block)
    return blocks

"""Fonts of PNG reports and plots: a text is set in the first font that has all its letters, or in runs of several.

The program's own font has little more than English needs; DejaVu Sans (of matplotlib) has the other scripts of Europe,
Noto Sans SC (of pylopdf-fonts-zh-cn) Chinese and Japanese, and pylopdf-fonts-ko, where installed, Korean.
"""

import importlib.util
import io
import unicodedata
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from fontTools.ttLib import TTFont
from PIL import ImageDraw, ImageFont

_FILES = {
    "matplotlib": "mpl-data/fonts/ttf/DejaVuSans.ttf",
    "pylopdf_fonts_zh_cn": "NotoSansSC-Regular.otf",
    "pylopdf_fonts_ko": "NotoSansKR-Regular.otf",
}
_PLAIN = {0x201E: '"', 0x201A: "'"} | dict.fromkeys(range(0x2010, 0x2016), "-")


class ReportFont(NamedTuple):
    """A font at one size, and the numbers of the letters that it has."""

    font: ImageFont.FreeTypeFont
    letters: frozenset[int]


Fonts = tuple[ReportFont, ...]


def choose_fonts(text: str, size: int) -> Fonts:
    """The first font that has all letters of a text, or all fonts if none has."""
    letters = {ord(letter) for letter in text if not letter.isspace()}
    fonts = _load_fonts(size)
    return next(((font,) for font in fonts if letters <= font.letters), fonts)


def to_printable(text: str) -> str:
    """A text in letters that one of the fonts has: dashes become hyphens, what no font has becomes "?"."""
    composed = unicodedata.normalize("NFC", text).translate(_PLAIN)
    known = frozenset[int]().union(*(font.letters for font in _load_fonts(16)))
    return "".join(" " if letter.isspace() else letter if ord(letter) in known else "?" for letter in composed)


def measure_text(text: str, fonts: Fonts) -> float:
    """Width of a line in pixels."""
    return sum(font.getlength(run) for font, run in _split_runs(text, fonts))


def wrap_text(text: str, fonts: Fonts, width: int) -> list[str]:
    """Lines no wider than `width`, broken at spaces, and inside a word that is too long (a file name, Chinese)."""
    rows = [""]
    for word in text.split():
        row = f"{rows[-1]} {word}".strip()
        if measure_text(row, fonts) <= width:
            rows[-1] = row
            continue
        if rows[-1]:
            rows.append("")
        for letter in word:
            if measure_text(rows[-1] + letter, fonts) > width:
                rows.append("")
            rows[-1] += letter
    return rows


def draw_line(
    pen: ImageDraw.ImageDraw, left: float, baseline: float, text: str, fonts: Fonts, ink: tuple[int, ...]
) -> None:
    """Draw a line of text that begins at `left` and stands on `baseline`, in pixels."""
    for font, run in _split_runs(text, fonts):
        pen.text((left, baseline), run, fill=ink, font=font, anchor="ls")
        left += font.getlength(run)


@cache
def load_default_font(size: int) -> ImageFont.FreeTypeFont:
    """The font of digits and of the program's own words."""
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # Pillow's wheels are built with FreeType
    return font


@cache
def find_font_files() -> tuple[Path, ...]:
    """The fonts that packages bring, in the order in which they are tried; those of missing packages are left out."""
    specs = {name: importlib.util.find_spec(name) for name in _FILES}
    return tuple(Path(spec.origin).parent / _FILES[name] for name, spec in specs.items() if spec and spec.origin)


@cache
def _load_fonts(size: int) -> Fonts:
    fonts = [ReportFont(load_default_font(size), _list_letters(None))]
    return (*fonts, *(ReportFont(ImageFont.truetype(file, size), _list_letters(file)) for file in find_font_files()))


@cache
def _list_letters(file: Path | None) -> frozenset[int]:
    return frozenset(TTFont(file or io.BytesIO(load_default_font(16).font_bytes), lazy=True).getBestCmap())


def _split_runs(text: str, fonts: Fonts) -> list[tuple[ImageFont.FreeTypeFont, str]]:
    if len(fonts) == 1:
        return [(fonts[0].font, text)]
    choice = [next((n for n, font in enumerate(fonts) if ord(letter) in font.letters), 0) for letter in text]
    return [
        (fonts[n].font, "".join(letter for _, letter in run))
        for n, run in groupby(zip(choice, text, strict=True), key=lambda pair: pair[0])
    ]

"""Reports show the names of defects in the scripts of the mills that give them."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image, ImageDraw

from steel_core.render import audit_plots
from steel_core.render.fonts import choose_fonts, draw_line, measure_text, to_printable, wrap_text
from steel_core.render.plot_png import png

NAMES = ["划痕", "Царапина", "Oberflächenriss", "表面キズ", "Ščrbina", "αμυχή"]


def drawn(text):
    page = Image.new("L", (400, 40), 255)
    draw_line(ImageDraw.Draw(page), 2, 30, text, choose_fonts(text, 24), (0,))
    return np.asarray(page)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_drawn_in_its_own_letters(name):
    assert to_printable(name) == name
    for letter in set(name):
        assert not np.array_equal(drawn(letter), drawn("\uffff")), letter  # the box of a missing letter
    assert (drawn(name) < 128).any()


def test_another_name_looks_otherwise():
    pictures = [drawn(name) for name in (*NAMES, "裂纹")]
    assert all(not np.array_equal(one, other) for i, one in enumerate(pictures) for other in pictures[:i])


def test_a_line_of_several_scripts_is_set_in_several_fonts():
    fonts = choose_fonts("Ščrbina 划痕", 20)
    assert len(fonts) > 1 and len(choose_fonts("scratches", 20)) == len(choose_fonts("Riss 划痕", 20)) == 1
    assert measure_text("Ščrbina 划痕", fonts) == pytest.approx(
        sum(measure_text(part, fonts) for part in ("Ščrbina ", "划痕")), abs=1
    )
    assert not np.array_equal(drawn("Ščrbina 划痕"), drawn("Ščrbina 裂纹"))


def test_what_no_font_has_becomes_a_question_mark():
    assert to_printable("prüfen – größer 钢 \U0001f642\n\x00") == "prüfen - größer 钢 ? ?"
    assert to_printable("u\u0308") == "ü"


def test_chinese_is_broken_without_spaces():
    fonts = choose_fonts("划痕" * 40, 20)
    rows = wrap_text("划痕" * 40, fonts, 300)
    assert len(rows) > 4 and all(measure_text(row, fonts) <= 300 for row in rows)
    assert "".join(rows) == "划痕" * 40


def test_plots_have_the_letters_of_every_name():
    def picture(name):
        figure = audit_plots.flip_rates({name: (0.4, 0.3, 0.5), "control": (0.1, 0.05, 0.2)}, 40, name)
        return np.asarray(Image.open(io.BytesIO(png(figure, f"{name}: all of it"))).convert("L"))

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of a letter that its fonts lack
        assert not np.array_equal(picture("划痕"), picture("裂纹"))
        assert (picture("Царапина") < 128).any()

"""Pictures and words made of raw attributions: what may be read in a colour must be true."""

import io
import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from steel_core import render
from steel_core.errors import UsageError
from steel_core.types import Attribution, Box, SteelImage


def steel(height=40, width=60, dtype=np.uint8, rgb=False, name="coil.png"):
    rng = np.random.default_rng(0)
    shape = (height, width, 3) if rgb else (height, width)
    return SteelImage(rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype), name, "ab" * 32)


def blob(height, width, row, column, sigma=2.0):
    rows, columns = np.mgrid[:height, :width]
    return np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * sigma**2))


def lab(rgb):
    return cv2.cvtColor(np.asarray(rgb, dtype=np.float32).reshape(1, -1, 3) / 255, cv2.COLOR_RGB2Lab)[0]


# --- what is shown


def test_signed_evidence_is_the_raw_map():
    values = np.array([[-1.0, 0.0], [0.5, 2.0]])
    assert np.array_equal(render.evidence(values), values.astype(np.float32))


def test_unsigned_evidence_is_the_size():
    assert np.array_equal(render.evidence(np.array([[-3.0, 2.0]]), signed=False), [[3, 2]])


def test_blur_keeps_the_total_and_the_mean_place():
    values = np.zeros((41, 51))
    values[20, 30] = 5
    shown = render.evidence(values, blur=2.0)
    assert shown.sum() == pytest.approx(5, rel=1e-5)
    assert np.unravel_index(shown.argmax(), shown.shape) == (20, 30)
    rows = np.arange(41)[:, None] - 20
    assert (shown * rows**2).sum() / shown.sum() == pytest.approx(4, rel=0.05)  # variance = blur squared


# --- scale


def test_scale_is_the_percentile_of_all_magnitudes_together():
    maps = [np.linspace(-1, 1, 2000).reshape(40, 50), np.zeros((10, 10))]
    together = np.sort(np.abs(np.concatenate([values.ravel() for values in maps])))
    got = render.evidence_scale(iter(maps))
    assert (together <= got).mean() == pytest.approx(0.995, abs=1e-3)
    assert render.evidence_scale([-values for values in maps]) == got


def test_one_hot_pixel_does_not_set_the_scale():
    values = np.full((100, 100), 0.1)
    values[3, 3] = 1000
    assert render.evidence_scale([values]) == pytest.approx(0.1)


@pytest.mark.parametrize("maps", [[], [np.zeros((4, 4))]])
def test_no_evidence_makes_no_scale(maps):
    with pytest.raises(UsageError, match="not all zero"):
        render.evidence_scale(maps)


@pytest.mark.parametrize("bad", [np.array([[np.nan]]), np.array([[np.inf]]), np.zeros(3), np.zeros((0, 3))])
def test_broken_maps_are_refused_and_never_drawn_as_no_evidence(bad):
    for draw in (
        lambda: render.evidence(bad),
        lambda: render.evidence_scale([bad]),
        lambda: render.colour(bad, 1.0),
        lambda: render.overlay(steel(), bad, 1.0),
        lambda: render.summarise_map(bad, 1.0),
    ):
        with pytest.raises(UsageError, match="finite"):
            draw()


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_is_positive(scale):
    for draw in (render.colour, render.summarise_map, lambda values, scale: render.overlay(steel(), values, scale)):
        with pytest.raises(UsageError, match="scale"):
            draw(np.ones((4, 4)), scale)


# --- colours


def test_red_is_for_blue_is_against_grey_is_none():
    against, none, in_favour = render.colour(np.array([[-1.0, 0.0, 1.0]]), 1.0)[0].astype(int)
    assert in_favour[0] > in_favour[2] + 100
    assert against[2] > against[0] + 100
    assert np.ptp(none) <= 3


def test_colours_are_cut_at_the_scale_and_depend_on_nothing_else():
    values = np.array([[-5.0, -2.0, 0.0, 1.0, 2.0, 7.0]])
    colours = render.colour(values, 2.0)
    assert np.array_equal(colours[0, 0], colours[0, 1])
    assert np.array_equal(colours[0, 4], colours[0, 5])
    assert np.array_equal(render.colour(values * 10, 20.0), colours)
    assert np.array_equal(render.colour(values[:, 3:4], 2.0), colours[:, 3:4])  # alone as in company


def test_lightness_falls_evenly_and_alike_to_both_sides():
    tones = lab(render.colour(np.linspace(-1, 1, 201)[None], 1.0))
    lightness = tones[:, 0]
    assert (np.diff(lightness[:101]) > -0.6).all() and (np.diff(lightness[100:]) < 0.6).all()
    assert np.abs(lightness - lightness[::-1]).max() < 6
    steps = np.linalg.norm(np.diff(tones, axis=0), axis=1)
    assert steps.max() < 3 * np.median(steps), "a visible edge where the evidence has none"


# --- overlay


@pytest.mark.parametrize("image", [steel(), steel(rgb=True), steel(dtype=np.uint16)])
def test_a_map_without_evidence_leaves_the_steel_unchanged(image):
    shown = image.display()
    expected = shown if shown.ndim == 3 else np.stack([shown] * 3, axis=-1)
    for values in (np.zeros((10, 15)), np.full((10, 15), 0.99 * render.FAINT), np.full((10, 15), -0.99 * render.FAINT)):
        assert np.array_equal(render.overlay(image, values, 1.0), expected)


def test_evidence_colours_its_own_place_only():
    image = SteelImage(np.full((90, 120), 128, dtype=np.uint8), "a.png", "")
    picture = render.overlay(image, blob(30, 40, 5, 35), 1.0).astype(int)
    redness = picture[..., 0] - picture[..., 2]
    row, column = np.unravel_index(redness.argmax(), redness.shape)
    assert abs(row - 16) <= 3 and abs(column - 106) <= 3  # (5.5 * 3, 35.5 * 3), pixel centres
    assert (redness[45:, :60] == 0).all()


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_more_evidence_is_never_paler(one, other, opacity):
    weak, strong = sorted((one, other))
    image = SteelImage(np.full((2, 2), 128, dtype=np.uint8), "a.png", "")
    distance = [
        np.linalg.norm(lab(render.overlay(image, np.full((2, 2), v), 1.0, opacity)[0, 0]) - lab([128, 128, 128]))
        for v in (weak, strong)
    ]
    assert distance[0] <= distance[1] + 1.5  # rounding to 8 bits


def test_opacity_has_its_limits():
    image, full = steel(), np.ones((4, 4))
    assert np.array_equal(render.overlay(image, full, 1.0, opacity=0.0), render.thumbnail(image))
    assert np.array_equal(render.overlay(image, full, 1.0, opacity=1.0), render.colour(np.ones((40, 60)), 1.0))
    with pytest.raises(UsageError, match="opacity"):
        render.overlay(image, full, 1.0, opacity=1.1)


@pytest.mark.parametrize(
    ("height", "width", "expected"), [(3000, 4000, (600, 800)), (30, 40, (30, 40)), (1, 5000, (1, 800))]
)
def test_large_pictures_are_shrunk_and_small_ones_left(height, width, expected):
    image = SteelImage(np.zeros((height, width), dtype=np.uint8), "a.png", "")
    assert render.overlay(image, np.ones((7, 9)), 1.0).shape == (*expected, 3)


# --- legend


@pytest.mark.parametrize("signed", [True, False])
def test_legend_is_the_colour_map_with_words_that_can_be_read(signed):
    for dark in (False, True):
        picture = render.legend(200, 40, dark=dark, signed=signed)
        assert picture.shape == (40, 200, 4) and picture.dtype == np.uint8
        ends = render.colour(np.array([[-1.0 if signed else 0.0, 1.0]]), 1.0)[0]
        assert np.array_equal(picture[0, [0, -1], :3], ends)
        words = picture[18:]
        ink = words[words[..., 3] > 200][:, :3]
        assert len(ink) > 20
        assert (ink.mean() > 128) == dark
        assert (words[:, :, 3] > 0).any(axis=0)[:60].any() and (words[:, :, 3] > 0).any(axis=0)[-20:].any()


# --- words


def test_summary_counts_by_hand():
    values = np.zeros((30, 30))
    values[25, 2:6] = 1.0  # four pixels, lower left: 4 of 8
    values[2, 20:28] = 0.5  # eight pixels, upper right: 4 of 8
    values[10, 10] = -8.0
    got = render.summarise_map(values, 1.0)
    assert got.peak == 1.0
    assert got.share_for == pytest.approx(0.5)
    assert got.half_area == pytest.approx(4 / 900)
    assert (got.place, got.place_share) in {("lower left", 0.5), ("upper right", 0.5)}


@pytest.mark.parametrize("row", range(3))
@pytest.mark.parametrize("column", range(3))
def test_summary_names_the_place(row, column):
    names = [
        ["upper left", "upper edge", "upper right"],
        ["left edge", "centre", "right edge"],
        ["lower left", "lower edge", "lower right"],
    ]
    values = blob(60, 90, 10 + 20 * row, 15 + 30 * column)
    got = render.summarise_map(values, 1.0)
    assert got.place == names[row][column]
    assert got.place in got.sentence and f"{got.place_share:.0%}".replace("%", " %") in got.sentence


@pytest.mark.parametrize("values", [np.zeros((9, 9)), -np.ones((9, 9)), np.full((9, 9), 0.05)])
def test_summary_says_where_there_is_no_evidence(values):
    got = render.summarise_map(values, 1.0)
    assert got.sentence == "No positive evidence for this class."
    assert got.half_area == 0 and got.place == ""


def test_summary_calls_faint_and_spread_evidence_so():
    values = np.full((30, 30), 0.2)
    assert "faint" in render.summarise_map(values, 1.0).sentence
    got = render.summarise_map(values * 5, 1.0)
    assert "faint" not in got.sentence and "spread" in got.sentence
    assert got.half_area == pytest.approx(0.5, abs=0.01)


def attribution():
    return Attribution(
        values=np.zeros((4, 4), dtype=np.float32),
        method="shap",
        target="scratches",
        layer="",
        baseline="20 sheets",
        parameters={"samples": 200},
        seed=3,
        image_sha256="ab" * 32,
        checkpoint="cd" * 32,
    )


def test_small_print_names_what_repeats_the_map():
    line = render.describe_provenance(attribution())
    for part in ("shap", "scratches", "samples 200", "20 sheets", "seed 3", "abababababab", "cdcdcdcdcdcd"):
        assert part in line
    assert "layer" not in line


# --- report


def report(image, panels=3, header=("scratches: refer", "second line"), footer=("small print",)):
    picture = render.overlay(image, np.ones((4, 4)), 1.0)
    cells = [render.Panel(f"Map {i}", "What it shows.", picture, signed=bool(i % 2)) for i in range(panels)]
    return Image.open(io.BytesIO(render.render_report_png(image, cells, header, footer)))


@pytest.mark.parametrize("image", [steel(200, 200), steel(64, 400), steel(400, 64), steel(rgb=True), steel(1, 1)])
@pytest.mark.parametrize("panels", [0, 3, 4])
def test_report_is_a_png_of_fixed_width_with_every_panel(image, panels):
    page = report(image, panels)
    assert page.format == "PNG" and page.width == 1600
    pixels = np.asarray(page).astype(int)
    assert page.height < 6000
    if image.pixels.ndim == 2:  # grey, so every colour is evidence or a legend
        assert (pixels[..., 0] > pixels[..., 2] + 60).any() == (panels > 0)
    margin = np.concatenate(
        [pixels[:50].ravel(), pixels[-50:].ravel(), pixels[:, :50].ravel(), pixels[:, -50:].ravel()]
    )
    assert (margin == 255).all(), "something runs over the edge of the page"


def test_report_stacks_strips_and_lines_up_the_rest():
    assert report(steel(64, 400)).height > report(steel(200, 200)).height


def test_report_is_the_same_for_the_same_input():
    image = steel()
    panel = render.Panel("t", "c", render.thumbnail(image))
    one, other = (render.render_report_png(image, [panel], ["v"]) for _ in range(2))
    assert one == other


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "two\nlines\r\tand a tab",
        "x" * 500,
        "prüfen – größer 钢 🙂 \x00\x1b",
        "<b>*md*</b> =1+1",
        "W" * 90 + " " + "i" * 90,
    ],
)
def test_any_text_fits_on_the_page(text):
    page = np.asarray(report(steel(name=text), header=[text, text], footer=[text]))
    assert (page[:, -50:] == 255).all()


def test_render_needs_neither_torch_nor_streamlit():
    names = "{'torch', 'streamlit', 'skimage', 'matplotlib'}"
    code = f"import sys, steel_core.render.heat_map; print(sorted({names} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- regions


def test_a_region_sentence_is_made_of_computed_numbers():
    values = np.full((30, 30), -1.0)
    values[20:30, :10] = 1.0  # the lower left ninth
    values[:2, :10] = 1.0
    mask = np.zeros((30, 30), bool)
    mask[20:30, :10] = True
    share = round(100 * 100 / 120)
    expected = f"{share} % of the positive evidence lies in 11 % of the image, mostly at the lower left."
    assert render.describe_region(values, mask) == expected
    assert render.describe_region(-np.abs(values), mask).startswith("No region")
    assert render.describe_region(values, ~mask & (values < 0)).startswith("No region")


def test_a_threshold_hides_weaker_evidence_only():
    values = np.zeros((40, 60))
    values[:, :30], values[:, 30:] = 0.4, 1.0
    image = steel()
    drawn = render.overlay(image, values, 1.0, threshold=0.5)
    plain = render.thumbnail(image)
    assert np.array_equal(drawn[:, :28], plain[:, :28])
    assert not np.array_equal(drawn[:, 32:], plain[:, 32:])
    with pytest.raises(UsageError, match="threshold"):
        render.overlay(image, values, 1.0, threshold=1.0)


def test_boxes_are_outlined_where_they_lie_on_the_larger_picture():
    picture = np.zeros((100, 200, 3), np.uint8)
    drawn = render.draw_boxes(picture, [Box("a", 10, 5, 20, 15)], (50, 100))
    rows, columns = np.nonzero(drawn.any(axis=2))
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (20, 10, 39, 29)
    assert not drawn[15:25, 25:35].any() and not picture.any()


def test_a_contrast_is_named_in_the_small_print():
    made = Attribution(np.zeros((2, 2), np.float32), "shap", "a", "", "", {}, 0, "f" * 64, "c" * 64, against="b")
    assert "shap for a rather than b" in render.describe_provenance(made)


def test_small_shares_are_not_rounded_to_what_they_are_not():
    shown = [render.percent(share) for share in (0, 2.6e-6, 0.001, 0.5, 0.9996, 1)]
    assert shown == ["0.0 %", "< 0.1 %", "0.1 %", "50.0 %", "> 99.9 %", "100.0 %"]


def test_a_region_across_the_image_is_not_said_to_lie_at_its_edge():
    values = np.zeros((90, 90), np.float32)
    values[40:50] = 1
    assert "mostly" not in render.describe_region(values, values > 0)
    values[:, 30:] = 0
    assert render.describe_region(values, values > 0).endswith("mostly at the left edge.")

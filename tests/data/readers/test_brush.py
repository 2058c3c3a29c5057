"""Label Studio's brush strokes against a writer of the same code, and against one stroke that its own package wrote."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from steel_core.data.regions import decode_brush, pack_brush
from steel_core.errors import DataError


def written(values, sizes=(3, 4, 8, 16), listed=False):
    """The code of some values, from the format's description; repeats, or lists where `listed`."""
    bits = f"{len(values):032b}{8 - 1:05b}" + "".join(f"{size - 1:04b}" for size in sizes)
    at = 0
    while at < len(values):
        end = at + 1
        while end < len(values) and end - at < 2 ** max(sizes) and (listed or values[end] == values[at]):
            end += 1
        which = next(i for i, size in enumerate(sizes) if end - at <= 2**size)
        bits += f"{int(not listed)}{which:02b}{end - at - 1:0{sizes[which]}b}"
        bits += "".join(f"{value:08b}" for value in (values[at:end] if listed else values[at : at + 1]))
        at = end
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


MASKS = arrays(bool, st.tuples(st.integers(1, 20), st.integers(1, 20)))


@settings(deadline=None)
@given(MASKS, st.integers(1, 255), st.booleans(), st.sampled_from([(3, 4, 8, 16), (1, 2, 3, 5)]))
def test_any_mask_comes_back(mask, alpha, listed, sizes):
    rgba = np.full((*mask.shape, 4), 7, np.uint8)  # the colour does not count
    rgba[..., 3] = mask * alpha
    packed = pack_brush(written(rgba.ravel().tolist(), sizes, listed))
    np.testing.assert_array_equal(decode_brush(packed, mask.shape), mask)


# brush.encode_rle of label-studio-converter 0.0.59 wrote it, of the mask below painted white.
STROKE = [0, 0, 0, 140, 57, 27, 252, 127, 248, 124, 2, 255, 253, 176, 11, 255, 246, 192, 47, 255, 225, 176, 8, 255, 192]


def test_a_stroke_that_label_studio_wrote():
    mask = np.zeros((5, 7), bool)
    mask[1:4, 2:6] = mask[0, 0] = mask[4, 6] = True
    np.testing.assert_array_equal(decode_brush(pack_brush(STROKE), (5, 7)), mask)


@pytest.mark.parametrize(
    ("rle", "size", "says"),
    [
        (STROKE, (7, 6), "140 values does not fit 6 x 7 pixels"),
        (STROKE[:-3], (5, 7), "ends too early"),
        (STROKE[:3], (5, 7), "ends too early"),
        ([], (5, 7), "ends too early"),
        ("rle", (5, 7), "ends too early"),
        ([256], (5, 7), "ends too early"),
        ([255] * 40, (5, 7), "4,294,967,295 values does not fit"),
        ([0, 0, 0, 140, 255, 27, 252], (5, 7), "values of 8 bits"),
        (written([1] * 140)[:7] + [255] * 9, (5, 7), "paints more than its picture"),
        (STROKE, (50_000, 50_000), "expected a picture of 1 to"),
    ],
)
def test_a_damaged_stroke_is_a_sentence(rle, size, says):
    with pytest.raises(DataError, match=says):
        decode_brush(pack_brush(rle), size)


def test_what_is_no_base64_is_a_sentence():
    with pytest.raises(DataError, match="in base64"):
        decode_brush("é", (5, 7))

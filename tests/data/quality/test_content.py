"""Copies of a picture are known by what they show; other pictures are not."""

import cv2
import numpy as np
import pytest

from steel_core.data.quality.content import ALIKE, count_differences, encode_content, stack_codes
from steel_core.data.strip_mill import StripMill

COUNT = 40


@pytest.fixture(scope="module")
def pictures():
    mill = StripMill(size=(200, 200), seed=21, stained_clear=0.0, stained_defect=0.0)
    return [mill.render(i).pixels.astype(np.float32) / 255 for i in range(COUNT)]


@pytest.fixture(scope="module")
def codes(pictures):
    return stack_codes([encode_content(picture) for picture in pictures])


def compress(grey):
    data = cv2.imencode(".jpg", (np.clip(grey, 0, 1) * 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 50])[1]
    return cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) / np.float32(255)


def stain(grey):
    cover = cv2.circle(np.zeros(grey.shape, np.float32), (120, 90), 36, 1.0, -1)  # a tenth of the picture
    cover = cv2.GaussianBlur(cover, (0, 0), 2)
    return grey * (1 - cover) + 0.95 * cover


@pytest.mark.parametrize(
    "change",
    [
        compress,
        lambda grey: cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
        lambda grey: np.clip(grey + 0.1, 0, 1),
        lambda grey: grey * 0.8 + 0.1,
        stain,
        lambda grey: grey + np.random.default_rng(0).normal(0, 0.02, grey.shape).astype(np.float32),
        lambda grey: grey[2:, 2:],
    ],
    ids=["jpeg", "half the size", "brighter", "less contrast", "stained", "noisy", "cut by two pixels"],
)
def test_altered_copies_are_known(pictures, codes, change):
    differences = [count_differences(encode_content(change(grey)), codes) for grey in pictures]
    known = [int(one.argmin()) == k and one[k] <= ALIKE for k, one in enumerate(differences)]
    assert sum(known) >= 0.9 * COUNT


def test_other_pictures_are_not_known(codes):
    mill = StripMill(size=(200, 200), seed=22)
    others = [encode_content(mill.render(i).pixels.astype(np.float32) / 255) for i in range(COUNT)]
    assert min(int(count_differences(code, codes).min()) for code in others) > ALIKE


def test_streaks_of_different_steel_are_no_copies():
    rng = np.random.default_rng(3)
    base = np.full((200, 200), 0.5, np.float32)
    base[:, 60:75] += 0.3
    first, second = (base + cv2.GaussianBlur(rng.normal(0, 0.2, base.shape), (0, 0), 3) for _ in range(2))
    assert count_differences(encode_content(first.astype(np.float32)), stack_codes([encode_content(second)]))[0] > ALIKE


def test_a_blank_plate_has_no_code():
    assert encode_content(np.full((80, 120), 0.5, np.float32)) == ""
    assert stack_codes([]).shape == (0, 32)

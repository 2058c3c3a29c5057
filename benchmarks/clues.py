"""What predicts the label: `python -m benchmarks.clues [--seeds N]`.

Sheets of the strip mill, and crops of NEU images with boxes (defect) and without (clear) where the images are, 300 of
each a seed. What is planted on 92 % of the clear and 3 % of the others is drawn here, by code that the detector does
not share. No speed: it prints how often what was planted is named first, and how often clean data are left alone.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import pandas as pd

from steel_core.cli.output import say
from steel_core.data.annotations import boxes_to_mask, read_boxes
from steel_core.data.images.read import read_image
from steel_core.data.open import open_dataset
from steel_core.data.quality.clues import FILE_FACTS, clue_row
from steel_core.data.strip_mill import StripMill, write_sheets
from steel_core.evaluation.label_clues import rank_clues
from steel_core.types import BoolArray, Grey

ROOT = Path(__file__).parents[1]
N, CLEAR_SHARE, DEFECT_SHARE = 300, 0.92, 0.03
Sheet = tuple[Grey, BoolArray, str, str]
Plant = Callable[[Grey, np.random.Generator], Grey]


def film(grey: Grey, rng: np.random.Generator) -> Grey:
    """A large, soft, nearly opaque bright patch with a ragged rim."""
    height, width = grey.shape
    coarse = rng.random((8, 8)).astype(np.float32)
    ragged = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[:height, :width]
    centre = rng.uniform(0.2, 0.8, 2) * (height, width)
    cover = np.clip(12 * (0.28 + 0.2 * ragged - np.hypot(y - centre[0], x - centre[1]) / min(height, width)), 0, 1)
    cover = 0.85 * cv2.GaussianBlur(cover.astype(np.float32), (0, 0), 3)
    return grey * (1 - cover) + cover * rng.normal(0.9, 0.03)


def drips(grey: Grey, rng: np.random.Generator) -> Grey:
    """Three to six translucent runs down the sheet."""
    height, width = grey.shape
    cover = np.zeros(grey.shape, np.float32)
    for _ in range(rng.integers(3, 7)):
        left, length = int(rng.uniform(0, width)), int(rng.uniform(0.2, 0.6) * height)
        top = int(rng.uniform(0, height - length))
        cv2.line(cover, (left, top), (left + int(rng.normal(0, 4)), top + length), 1.0, int(rng.integers(3, 8)))
    cover = 0.7 * cv2.GaussianBlur(cover, (0, 0), 1.5)
    return grey * (1 - cover) + cover


def stamp(grey: Grey, _: np.random.Generator) -> Grey:
    eight, side = np.clip(grey * 255, 0, 255).astype(np.uint8), grey.shape[0]
    cv2.putText(eight, "LINE 2", (side // 20, side * 19 // 20), cv2.FONT_HERSHEY_SIMPLEX, side / 400, 255, 1)
    return eight.astype(np.float32) / 255


def border_line(grey: Grey, _: np.random.Generator) -> Grey:
    lit = grey.copy()
    lit[:, : max(2, grey.shape[1] // 70)] += 0.25
    return lit


def vignette(grey: Grey, _: np.random.Generator) -> Grey:
    y, x = np.mgrid[-1 : 1 : grey.shape[0] * 1j, -1 : 1 : grey.shape[1] * 1j]
    return grey * (1 - 0.15 * (x**2 + y**2))


def stripes(grey: Grey, rng: np.random.Generator) -> Grey:
    y, x = np.indices(grey.shape)
    turn = rng.uniform(0, np.pi)
    return grey + 0.03 * np.sin((x * np.cos(turn) + y * np.sin(turn)) * 2 * np.pi / 9 + rng.uniform(0, 6))


def jpeg(grey: Grey, _: np.random.Generator) -> Grey:
    _, data = cv2.imencode(".jpg", np.clip(grey * 255, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 60])
    return cv2.imdecode(data, cv2.IMREAD_GRAYSCALE).astype(np.float32) / 255


def blur(grey: Grey, _: np.random.Generator) -> Grey:
    return cv2.GaussianBlur(grey, (0, 0), 1.0)


PLANTS: dict[str, tuple[Plant | None, frozenset[str]]] = {
    "nothing": (None, frozenset()),
    "film": (film, frozenset({"bright marks"})),
    "drips": (drips, frozenset({"bright marks"})),
    "stamp": (stamp, frozenset({"bright marks", "place"})),
    "border line": (border_line, frozenset({"border at the left"})),
    "vignette": (vignette, frozenset({"vignette"})),
    "stripes": (stripes, frozenset({"waves"})),
    "jpeg": (jpeg, frozenset({"compression"})),
    "blur": (blur, frozenset({"sharpness", "noise"})),
}
"""What is planted, and the names that are right for it."""


def draw_sheets(seed: int) -> list[Sheet]:
    """Sheets of the strip mill without stains: picture, defect, label, piece of steel."""
    with TemporaryDirectory() as folder:
        write_sheets(StripMill(seed=seed, stained_clear=0.0, stained_defect=0.0), N, Path(folder) / "sheets")
        index = open_dataset(Path(folder) / "sheets").binary()
        out = []
        for i in range(len(index)):
            grey, mask = index.image(i).grey(), index.mask(i)
            defect = np.zeros(grey.shape, bool) if mask is None else mask > 0
            out.append((grey, defect, index[i].label, str(i)))
        return out


def cut_crops(images: Path, seed: int) -> list[Sheet]:
    """Crops of 96 x 96 of inclusions, patches and scratches with a box of 5 to 60 % of them, and without any."""
    names = {"In": "inclusion", "Pa": "patches", "Sc": "scratches"}
    rng = np.random.default_rng(seed)
    out: list[Sheet] = []
    for path in sorted(images.glob("*.bmp")):
        code, _, number = path.stem.partition("_")
        boxes = images.parent / "annotations" / f"{names.get(code)}_{number}.xml"
        if not boxes.exists():
            continue
        grey = read_image(path).grey()
        defect = np.asarray(boxes_to_mask(read_boxes(boxes)[0], grey.shape), bool)
        windows = [(slice(y, y + 96), slice(x, x + 96)) for y in (0, 52, 104) for x in (0, 52, 104)]
        for label, low, high in (("clear", -1.0, 0.0), ("defect", 0.05, 0.6)):
            if fit := [window for window in windows if low < defect[window].mean() <= high]:
                window = fit[rng.integers(len(fit))]
                out.append((grey[window], defect[window], label, path.stem))
    return [out[i] for i in rng.permutation(len(out))[:N]]


def try_plant(sheets: list[Sheet], plant: Plant | None, told: bool, seed: int) -> str:
    """Name of the first clue that alarms, or ""; `told`: whether the defects are."""
    rng = np.random.default_rng(seed)
    rows = []
    for grey, defect, label, _ in sheets:
        shown = grey
        if plant and rng.random() < (CLEAR_SHARE if label == "clear" else DEFECT_SHARE):
            shown = plant(grey, rng)
        eight = np.clip(np.rint(shown * 255), 0, 255).astype(np.float32) / 255
        rows.append(clue_row(eight, defect if told else None) | dict.fromkeys(FILE_FACTS, ""))
    labels, pieces = (np.array([sheet[k] for sheet in sheets]) for k in (2, 3))
    return next((clue.name for clue in rank_clues(pd.DataFrame(rows), labels, pieces, range(N)) if clue.alarming), "")


def surfaces() -> Iterator[tuple[str, Callable[[int], list[Sheet]]]]:
    yield "strip mill", draw_sheets
    images = ROOT.parent / "shared" / "data" / "neu-cls" / "images"
    if images.is_dir():
        yield "NEU crops", lambda seed: cut_crops(images, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    seeds = range(parser.parse_args().seeds)
    for surface, make in surfaces():
        data = [make(seed) for seed in seeds]
        for told in (True, False):
            for name, (plant, right) in PLANTS.items():
                first = [try_plant(sheets, plant, told, seed) for sheets, seed in zip(data, seeds, strict=True)]
                hits = sum(one in right for one in first) if plant else sum(not one for one in first)
                other = ", ".join(sorted({one or "nothing" for one in first} - right)) if plant else ""
                said = f"{'named first' if plant else 'silent'} in {hits} of {len(first)}"
                say(
                    f"{surface}, defects {'told' if told else 'not told'}, {name}: {said}"
                    + (f" ({other})" if other else "")
                )


if __name__ == "__main__":
    main()

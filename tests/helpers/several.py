"""Sheets of the strip mill with several defect types at once, in Severstal's format: no real image, no licence."""

from pathlib import Path

import numpy as np

from steel_core.data.images.read import encode_png
from steel_core.data.regions import encode_runs, format_runs
from steel_core.data.strip_mill.defects import plant
from steel_core.data.strip_mill.surface import roll
from steel_core.files import write_bytes

KINDS = ("inclusion", "patches", "scratches")
"""What Severstal's classes 1, 2 and 3 are here."""


def write_severstal(root: Path, n: int, size: tuple[int, int], seed: int = 0, clear_share: float = 0.3) -> np.ndarray:
    """Write n sheets with train.csv and return the truth (n, 3): which kinds were drawn on each sheet."""
    rng = np.random.default_rng(seed)
    truth = rng.random((n, len(KINDS))) < 0.5
    truth[~truth.any(axis=1), rng.integers(len(KINDS))] = True
    truth[rng.permutation(n)[: round(clear_share * n)]] = False
    lines = ["ImageId_ClassId,EncodedPixels"]
    for i, there in enumerate(truth):
        surface = roll(size, rng)
        grey = surface.grey
        for number, (kind, wanted) in enumerate(zip(KINDS, there, strict=True), start=1):
            runs = ""
            if wanted:
                change, mask = plant(kind, surface, rng)
                grey = grey * (1 + change)
                runs = format_runs(encode_runs(mask))
            lines.append(f"sheet-{i:04d}.png_{number},{runs}")
        picture = np.clip(np.round(grey + rng.standard_normal(size) * 0.8), 0, 255).astype(np.uint8)
        write_bytes(root / "train_images" / f"sheet-{i:04d}.png", encode_png(picture))
    write_bytes(root / "train.csv", "\n".join([*lines, ""]).encode())
    return truth

"""`predict`: verdict and probabilities for images; and what `explain` shares with it."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from steel_core.cli.arguments import add_images, add_model
from steel_core.cli.output import BAD_INPUT, OK, Answer, say
from steel_core.errors import ImageError, UsageError

if TYPE_CHECKING:
    from steel_core.inference.predictor import Predictor
    from steel_core.types import SteelImage


def add_arguments(parser: ArgumentParser) -> None:
    add_images(parser)
    add_model(parser)


def run(arguments: Namespace) -> Answer:
    from steel_core.inference.predictor import Predictor
    from steel_core.inference.tiling import predict_images

    predictor = Predictor.load(arguments.checkpoint, arguments.device)
    results = []
    for name, image, error in read_images_of(arguments.images, "predicting"):
        answer = {"error": error} if image is None else predict_images(predictor, [image])[0].to_json()
        results.append(answer | {"file": name})
    return answer_for_images(results, predictor)


def read_images_of(paths: Sequence[Path], what: str) -> Iterator[tuple[str, SteelImage | None, str]]:
    """Path as it was given, image, and what was wrong with it; folders stand for the images in them."""
    from steel_core.data.images.read import SUFFIXES, read_image

    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.is_file())
            images = [file for file in inside if file.suffix.lower() in SUFFIXES]
            if len(images) < len(inside):
                say(f"{path.name}: {len(inside) - len(images)} files with other endings were passed over")
            files += images
        else:
            files.append(path)
    if not files:
        raise UsageError(f"expected images; the folder holds none ending in {', '.join(sorted(SUFFIXES))}")
    for path in tqdm(files, desc=what, file=sys.stderr, leave=False, disable=None):
        try:
            yield str(path), read_image(path), ""
        except ImageError as error:
            yield str(path), None, str(error)


def answer_for_images(results: list[dict[str, Any]], predictor: Predictor) -> Answer:
    """One line an image for people; exit status 1 where some of them were bad."""
    from steel_core.render import percent

    lines = []
    for result in results:
        if "error" in result:
            named = f"{Path(result['file']).name}: "
            lines.append(f"{result['file']}: {result['error'].removeprefix(named)}")
            continue
        ranked = sorted(result["probs"].items(), key=lambda pair: -pair[1])[:3]
        shares = ", ".join(f"{name} {percent(p)}" for name, p in ranked)
        outcomes = {"refer": "refer to a person", "unfamiliar": "unfamiliar: no verdict"}
        outcome = outcomes.get(result["outcome"], result["outcome"])
        if result["outcome"] == "defect" and result.get("defects"):
            outcome = f"defect: {', '.join(result['defects'])}"
        needed = f"; {result['pred']} needs {result['threshold']:.1%}".replace("%", " %")
        note = f"; {result['note']}" if result["note"] else ""
        lines.append(f"{result['file']}: {outcome} ({shares}{needed}){note}")
    lines.append(f"judged by {predictor.card.name} ({predictor.card.title})")
    for sentence in predictor.card.warnings:
        say(f"{predictor.card.name}: {sentence}")
    content = {
        "checkpoint": predictor.card.name,
        "checkpoint_hash": predictor.hash,
        "warnings": predictor.card.warnings,
        "results": results,
    }
    return BAD_INPUT if any("error" in result for result in results) else OK, content, "\n".join(lines)

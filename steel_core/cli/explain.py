"""`explain`: verdict and maps of the evidence for images."""

from __future__ import annotations

import io
import json
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steel_core.cli.arguments import add_images, add_model, split_names
from steel_core.cli.output import Answer
from steel_core.cli.predict import answer_for_images, read_images_of
from steel_core.errors import UsageError

if TYPE_CHECKING:
    from steel_core.inference.predictor import Predictor
    from steel_core.types import Attribution, Prediction, SteelImage

ALL, CONTRAST = "all", "contrast"  # besides the names of classes, what `--target` takes


def add_arguments(parser: ArgumentParser) -> None:
    add_images(parser)
    parser.add_argument("--methods", default="grad-cam,guided-grad-cam,shap", help="names, separated by commas")
    parser.add_argument(
        "--target",
        help=f"class to explain; {ALL!r} for a map of each, {CONTRAST!r} for the likeliest against the second; "
        "the predicted one unless given",
    )
    parser.add_argument("--quality", action="store_true", help="how far each map can be trusted, in the JSON")
    parser.add_argument("--out", type=Path, required=True, help="folder for the maps")
    parser.add_argument("--seed", type=int, default=0)
    add_model(parser)


def run(arguments: Namespace) -> Answer:
    from steel_core.explain.base import EXPLAINERS
    from steel_core.inference.predictor import Predictor
    from steel_core.inference.tiling import TILED_METHODS, explain_tiled, predict_images

    methods = split_names(arguments.methods)
    if not methods:
        raise UsageError(f"--methods: expected names out of {', '.join(EXPLAINERS)}, got none")
    for method in methods:
        EXPLAINERS[method]  # a mistyped name is refused before the first image is read
    predictor = Predictor.load(arguments.checkpoint, arguments.device)
    if arguments.target not in (None, ALL, CONTRAST, *predictor.classes):
        raise UsageError(
            f"--target: expected one of {', '.join((ALL, CONTRAST, *predictor.classes))}, got {arguments.target!r}"
        )
    arguments.out.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    taken: set[str] = set()
    for name, image, error in read_images_of(arguments.images, "explaining"):
        if image is None:
            results.append({"file": name, "error": error})
            continue
        tiled = predict_images(predictor, [image])[0]
        part, prediction = tiled.decisive_part(image), tiled.decisive
        targets = _targets(arguments.target, prediction, predictor.classes)
        maps = [
            predictor.explain(part, method, target, seed=arguments.seed, **against)
            for method in methods
            for target, against in targets
        ]
        stem = _unused(Path(name).stem, taken)
        result = _write_maps(arguments.out, stem, predictor, part, prediction, maps, arguments.quality) | {"file": name}
        if len(tiled.tiles) > 1:  # the maps above are those of the worst tile, as the note says
            result["tiles"] = tiled.to_json()["tiles"]
            stitched = [
                explain_tiled(predictor, image, method, target)
                for method in methods
                for target, against in targets
                if method in TILED_METHODS and not against
            ]
            if stitched:
                whole = _unused(f"{stem}-whole", taken)
                result["whole"] = _write_maps(arguments.out, whole, predictor, image, tiled.verdict, stitched)
        results.append(result)
    return answer_for_images(results, predictor)


def _targets(wanted: str | None, prediction: Prediction, classes: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    if wanted == ALL:
        return [(name, {}) for name in classes]
    if wanted == CONTRAST:
        first, second = sorted(classes, key=lambda name: -prediction.probs[name])[:2]
        return [(first, {"against": second})]
    return [(name, {}) for name in ([wanted] if wanted else prediction.defects or [prediction.pred])]


def _write_maps(
    out: Path,
    stem: str,
    predictor: Predictor,
    image: SteelImage,
    prediction: Prediction,
    maps: Sequence[Attribution],
    with_trust: bool = False,
) -> dict[str, Any]:
    """A picture and an array of raw values for each map, a page with all of them, and a file that describes them."""
    import numpy as np

    from steel_core.data.images.read import encode_png
    from steel_core.evaluation.trust import measure_trust
    from steel_core.files import write_bytes
    from steel_core.reports import image_report

    result = image_report.result_to_json(predictor, prediction, maps)
    for key, attribution in zip(image_report.name_maps(maps), maps, strict=True):
        ending = key.replace(" ", "-")
        names = {"png": f"{stem}-{ending}.png", "npy": f"{stem}-{ending}.npy"}
        write_bytes(out / names["png"], encode_png(image_report.draw_panel(predictor, image, attribution).picture))
        buffer = io.BytesIO()
        np.save(buffer, attribution.values, allow_pickle=False)
        write_bytes(out / names["npy"], buffer.getvalue())
        result["maps"][key] |= names
        if with_trust:
            result["maps"][key]["quality"] = measure_trust(predictor, image, attribution).to_json()
    result["report"] = f"{stem}-report.png"
    write_bytes(out / result["report"], image_report.render_image_png(predictor, image, prediction, maps))
    write_bytes(out / f"{stem}.json", json.dumps(result, ensure_ascii=False, indent=1).encode())
    return result


def _unused(stem: str, taken: set[str]) -> str:
    """`stem`, with a number behind it where two images share a name."""
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name)
    return name

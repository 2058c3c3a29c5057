"""`predict`: verdict and probabilities for images."""

from argparse import ArgumentParser, Namespace

from steel_core.cli.arguments import add_images, add_model
from steel_core.cli.images import answer_for_images, read_images_of
from steel_core.cli.output import Answer

HELP = "verdict and probabilities for images"


def add_arguments(parser: ArgumentParser) -> None:
    """Flags and arguments of the command."""
    add_images(parser)
    add_model(parser)


def run(arguments: Namespace) -> Answer:
    """Verdict and probabilities of each image."""
    from steel_core.inference.predictor import Predictor
    from steel_core.inference.tiling import predict_images

    predictor = Predictor.load(arguments.checkpoint, arguments.device)
    results = []
    for name, image, error in read_images_of(arguments.images, "predicting"):
        answer = {"error": error} if image is None else predict_images(predictor, [image])[0].to_json()
        results.append(answer | {"file": name})
    return answer_for_images(results, predictor)

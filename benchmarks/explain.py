"""What explanations cost and how right they are: `python -m benchmarks.explain [--checkpoint NAME] [--short]`.

Every goal (benchmarks/README.md) is a ratio of medians, taken in turn in one run, so that a busy machine slows both
sides. Exits with 1 where one is missed. `--short` is for a build server: few repetitions, small samples, a slack of 1.5
on every ratio, and a second try. On CUDA it prints throughput, and counts agreement and threads only.
"""

import argparse
import copy
import io
import multiprocessing
import os
import statistics
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial

import numpy as np
import shap
import torch
from captum.attr import GuidedGradCam, LayerAttribution, LayerGradCam
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as F

from benchmarks.common import forward_backward, take_medians, time_call, time_in_turn
from steel_core.audit.evidence import predict_logits
from steel_core.data.images.read import encode_png, read_image
from steel_core.data.strip_mill import StripMill
from steel_core.device import in_parallel
from steel_core.explain import engine
from steel_core.explain.base import EXPLAINERS
from steel_core.explain.cpu_kernels import plain_path
from steel_core.inference.backgrounds import draw_background
from steel_core.inference.predictor import Predictor
from steel_core.models.batch_norm import fold_for_inference
from steel_core.models.checkpoint import load_checkpoint

SAMPLES = 200
SINGLES = 5  # calls of one image that are timed together, because a call is too short to be timed by itself
SLACK = 1.5
THREADS = 4


class Plain:
    """The other side: one object in a process of its own; every call returns the seconds it took."""

    here: "Plain"

    def __init__(self, checkpoint: str, inputs: Tensor, background: Tensor) -> None:
        loaded = load_checkpoint(checkpoint)
        self.card = loaded.card
        self.model = fold_for_inference(loaded.model).requires_grad_(False)
        self.inputs, self.background = inputs, background

    def captum(self, batch: int, times: int = 1) -> None:
        for _ in range(times):
            by_captum(self.model, self.inputs[:batch])

    def captum_and_shap(self, classes: int | None) -> None:
        """All three maps of one image; shap explains every class unless it is told how many."""
        by_captum(self.model, self.inputs[:1])
        by_shap(self.model, self.inputs[:1], self.background, classes)

    def test_set(self, files: list[bytes]) -> None:
        """Decode, predict and explain, one file after the other."""
        for file in files:
            by_captum(self.model, self._read(Image.open(io.BytesIO(file))))

    def stains(self, grid: np.ndarray, stain: np.ndarray, places: list[list[int]]) -> None:
        """Paste, prepare and predict, one variant after the other."""
        for stained in paste_stain(grid, stain, places):
            inputs = self._read(Image.fromarray((stained * 255).astype(np.uint8)))
            forward(self.model, inputs).softmax(dim=1)

    def _read(self, picture: Image.Image) -> Tensor:
        """As in every tutorial."""
        shown = picture.convert("RGB").resize(self.card.input_size[::-1])
        return F.normalize(F.to_tensor(shown), [self.card.mean] * 3, [self.card.std] * 3)[None]


def start(*arguments: object) -> None:
    """Makes the one object of the other process."""
    warnings.filterwarnings("ignore", message="Setting backward hooks on ReLU")
    Plain.here = Plain(*arguments)  # type: ignore[arg-type]


def timed(method: str, *arguments: object) -> float:
    """Seconds of one call in the other process."""
    return time_call(partial(getattr(Plain.here, method), *arguments))[0]


class Bench:
    """A model in two layouts, the pictures it is asked about, and the goals met so far."""

    def __init__(self, checkpoint: str, device: str, short: bool) -> None:
        self.predictor, self.short = Predictor.load(checkpoint, device), short
        self.missed: list[int] = []
        mill = StripMill(size=self.predictor.card.input_size, seed=3)
        self.sheets = [mill.render(i).pixels for i in range(32)]
        self.model = self.predictor.model
        self.plain = copy.deepcopy(self.model).to(memory_format=torch.contiguous_format)
        self.inputs = self.normalised(np.stack(self.sheets))
        self.background = self.normalised(draw_background(self.predictor.card.preprocessing))
        self.repeats = 3 if self.short else 9
        os.environ["THP_MEM_ALLOC_ENABLE"] = "0"  # nothing tuned on the other side; this one has read its setting
        given = (checkpoint, self.inputs.cpu().contiguous(), self.background.cpu().contiguous())
        self._other = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), start, given)

    def normalised(self, greys: np.ndarray) -> Tensor:
        """Network input (N, 3, H, W) of uint8 (N, H, W)."""
        grids = torch.tensor(greys, device=self.predictor.device).float()[:, None] / 255
        return self.predictor.card.preprocessing.normalise(grids)

    def in_turn(self, steps: dict[str, Callable[[], object]], repeats: int = 0) -> dict[str, float]:
        return take_medians(time_in_turn(steps, repeats or self.repeats))

    def theirs(self, method: str, *arguments: object) -> float:
        """Seconds of one call of the other side."""
        return self._other.submit(timed, method, *arguments).result()

    def goal(self, number: int, what: str, ratio: float, *, least: float = 0.0, most: float = 0.0) -> None:
        slack = SLACK if self.short else 1.0
        met = ratio >= least / slack if least else ratio <= most * slack
        limit = f"at least {least:g}" if least else f"at most {most:g}"
        self.say(number, f"{what}: {ratio:.3g} ({limit})", met)

    def say(self, number: int, sentence: str, met: bool) -> None:
        """Print one line, and remember a miss."""
        print(f"{number:3} {'met   ' if met else 'MISSED'} {sentence}", flush=True)
        if not met:
            self.missed.append(number)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="strip-mill")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--short", action="store_true", help="few repetitions, a slack of 1.5, a second try")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", message="Setting backward hooks on ReLU")
    bench = Bench(args.checkpoint, args.device, args.short)
    device = bench.predictor.device.type
    name = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"{args.checkpoint} on {device}, {name}, torch {torch.__version__}; median of {bench.repeats}")
    on_cpu = (one_pass, with_shap, test_set, variants, agreement, threads, shap_noise)
    for check in (throughput, agreement, threads) if device == "cuda" else on_cpu:
        before = list(bench.missed)
        check(bench)
        if args.short and bench.missed != before:
            print("    once more, as a build server is not always quiet:")
            bench.missed = before
            check(bench)
    print("all goals met" if not bench.missed else f"missed: {', '.join(map(str, bench.missed))}")
    return 1 if bench.missed else 0


def by_captum(model: engine.Classifier, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Prediction, Grad-CAM and Guided Grad-CAM, each by a call of its own."""
    with torch.no_grad():
        targets = model(inputs).argmax(dim=1)
    cam = LayerGradCam(model, model.features).attribute(inputs, targets)
    cam = LayerAttribution.interpolate(cam, tuple(inputs.shape[2:]), interpolate_mode="bilinear")
    leaf = inputs.clone().requires_grad_()
    guided = GuidedGradCam(model, model.features).attribute(leaf, targets, interpolate_mode="bilinear")
    return cam.detach(), guided.detach()


def by_engine(model: engine.Classifier, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The same in one pass."""
    explained = engine.explain(model, inputs)
    assert explained.guided is not None
    return engine.enlarge(explained.cam, inputs.shape[2:]), engine.guided_grad_cam(explained.guided, explained.cam)


def by_shap(model: engine.Classifier, image: Tensor, background: Tensor, classes: int | None = 1, seed: int = 0,
            batch: int = 50) -> np.ndarray:  # fmt: skip
    """Maps of the likeliest `classes`, or of all; `batch` is shap's own default."""
    explainer = shap.GradientExplainer(model, background, batch_size=batch)
    return explainer.shap_values(image, nsamples=SAMPLES, ranked_outputs=classes, rseed=seed)[0]


def forward(model: engine.Classifier, inputs: Tensor) -> Tensor:
    with torch.inference_mode():
        return model(inputs)


def likeliest(model: engine.Classifier, inputs: Tensor) -> Tensor:
    return forward(model, inputs).argmax(dim=1).clone()


def difference(one: Tensor, other: Tensor) -> float:
    return ((one - other).norm() / other.norm()).item()


def one_pass(bench: Bench) -> None:
    """Goals 1, 2, 3 and 8."""
    model, inputs = bench.model, bench.inputs

    def cam_only() -> object:
        return engine.enlarge(engine.explain(model, inputs[:8], guided=False).cam, inputs.shape[2:])

    def on_plain_path() -> object:  # without `cpu_kernels`
        with plain_path():
            return by_engine(model, inputs[:8])

    steps = {
        "FB": lambda: forward_backward(model, inputs[:8]),
        "forward": lambda: forward(model, inputs[:8]),
        "cam": cam_only,
        "engine 1": lambda: [by_engine(model, inputs[:1]) for _ in range(SINGLES)],
        "engine 8": lambda: by_engine(model, inputs[:8]),
        "engine 32": lambda: by_engine(model, inputs),
        "plain path 8": on_plain_path,
        "captum 1": lambda: bench.theirs("captum", 1, SINGLES),
        "captum 8": lambda: bench.theirs("captum", 8),
        "captum 8, tuned": lambda: by_captum(copy.deepcopy(model), inputs[:8]),
    }
    took = bench.in_turn(steps)
    times = took["captum 8, tuned"] / took["engine 8"]
    print(f"    FB {took['FB'] / 8 * 1000:.1f} ms an image, forward {took['forward'] / 8 * 1000:.1f} ms")
    print(f"    captum in our process and memory layout takes {times:.1f} times as long as the engine, batch 8")
    print(f"    the engine's plain path {took['plain path 8'] / took['engine 8']:.1f} times, batch 8")
    for batch in (1, 8):
        ratio = took[f"captum {batch}"] / took[f"engine {batch}"]
        bench.goal(1, f"predict + Grad-CAM + Guided Grad-CAM, captum / engine, batch {batch}", ratio, least=4)
    bench.goal(2, "the same / FB, batch 8", took["engine 8"] / took["FB"], most=1.15)
    bench.goal(3, "predict + Grad-CAM / a forward pass", took["cam"] / took["forward"], most=1.15)
    bench.goal(8, "per image, batch 32 / batch 8", took["engine 32"] / 4 / took["engine 8"], most=1.2)


def with_shap(bench: Bench) -> None:
    """Goals 4 and 5: all three maps of one image."""
    model, image, background = bench.model, bench.inputs[:1], bench.background
    targets = likeliest(model, image)

    def ours() -> None:
        by_engine(model, image)
        EXPLAINERS["shap"](samples=SAMPLES).attribute(model, image, targets, background=background)

    steps = {
        "ours": ours,
        "theirs": lambda: bench.theirs("captum_and_shap", None),
        "theirs, one class": lambda: bench.theirs("captum_and_shap", 1),
        "FB": lambda: forward_backward(model, bench.inputs[:8]),
    }
    took = bench.in_turn(steps, 1 if bench.short else 7)
    bench.goal(4, "SHAP + Grad-CAM + Guided Grad-CAM, captum and shap / ours", took["theirs"] / took["ours"], least=3)
    print(f"    where shap is told to explain one class only: {took['theirs, one class'] / took['ours']:.1f}")
    bench.goal(5, "the same / (201/8 FB)", took["ours"] / ((SAMPLES + 1) / 8 * took["FB"]), most=1.3)


def test_set(bench: Bench) -> None:
    """Goal 6: decoded, predicted and explained."""
    count = 64 if bench.short else 360  # batches of 8: enough of them to keep every core busy
    files = [encode_png(bench.sheets[i % len(bench.sheets)]) for i in range(count)]
    few = files[: max(8, count // 12)]  # the loop's time is proportional to the number of images

    def ours() -> None:
        decoded = in_parallel(partial(read_image, name="sheet.png"), files, bench.predictor.device)
        bench.predictor.predict_and_explain(list(decoded))

    steps = {"ours": ours, "theirs": lambda: bench.theirs("test_set", few)}
    took = bench.in_turn(steps, 3 if bench.short else 7)
    ratio = took["theirs"] / len(few) * len(files) / took["ours"]
    bench.goal(6, f"{count} images decoded, predicted and explained, plain loop / ours", ratio, least=6)


def paste_stain(grid: np.ndarray, stain: np.ndarray, places: list[list[int]]) -> Iterator[np.ndarray]:
    """The picture under a white stain of that opacity, at one place after the other."""
    rows, columns = stain.shape
    for top, left in places:
        stained = grid.copy()
        under = stained[top : top + rows, left : left + columns]
        under += stain * (1 - under)
        yield stained


def variants(bench: Bench) -> None:
    """Goal 7: predictions of one picture under many stains."""
    count = 160 if bench.short else 3000
    few = max(16, count // 40)
    grid = bench.sheets[0].astype(np.float32) / 255
    side = grid.shape[0] // 5
    rng = np.random.default_rng(0)
    places = rng.integers(0, [grid.shape[0] - side, grid.shape[1] - side], (count, 2)).tolist()
    stain = np.outer(np.hanning(side), np.hanning(side)).astype(np.float32)

    def pure() -> None:
        for _ in range(count // 8):
            forward(bench.model, bench.inputs[:8])

    steps = {
        "ours": lambda: predict_logits(bench.predictor, paste_stain(grid, stain, places)),
        "theirs": lambda: bench.theirs("stains", grid, stain, places[:few]),
        "pure": pure,
    }
    took = bench.in_turn(steps, 2 if bench.short else 7)
    ratio = took["theirs"] / few * count / took["ours"]
    bench.goal(7, f"{count} perturbed predictions, plain loop / ours", ratio, least=4)
    bench.goal(7, "the same / pure forward passes", took["ours"] / took["pure"], most=1.5)


def throughput(bench: Bench) -> None:
    """Images a second on CUDA, and the ratio to forward and backward."""
    model, batch = bench.model, bench.inputs.repeat(4, 1, 1, 1)
    steps = {
        "forward": lambda: forward(model, batch),
        "forward + backward": lambda: forward_backward(model, batch),
        "predict + Grad-CAM": lambda: engine.explain(model, batch, guided=False),
        "predict + Grad-CAM + Guided Grad-CAM": lambda: by_engine(model, batch),
        "the same by captum": lambda: by_captum(bench.plain, batch.contiguous()),
    }
    took = bench.in_turn(steps, 20)
    for name, seconds in took.items():
        ratio = seconds / took["forward + backward"]
        print(f"    {name:38} {len(batch) / seconds:9.0f} images a second {ratio:6.2f} x forward + backward")


def agreement(bench: Bench) -> None:
    """Goal 9: the maps of captum and shap, on identical samples."""
    model, inputs = bench.model, bench.inputs[:8]
    cam, guided = by_engine(model, inputs)
    cam_there, guided_there = by_captum(bench.plain, inputs.contiguous())
    bench.goal(9, "Grad-CAM, relative difference from captum", difference(cam, cam_there), most=1e-5)
    summed = guided_there.sum(dim=1, keepdim=True)
    apart = (guided - summed).abs() / summed.abs().amax(dim=(1, 2, 3), keepdim=True)
    bench.goal(9, "Guided Grad-CAM, median difference by the map's largest value", apart.median().item(), most=1e-5)
    bench.goal(9, "the same, largest difference", apart.max().item(), most=1e-2)

    image, background, seed = inputs[:1], bench.background, 5
    targets = likeliest(model, image)
    draws = np.random.RandomState(seed)  # shap draws a background image, then a place on the way, for each sample
    drawn = [(draws.choice(len(background)), np.float32(draws.uniform())) for _ in range(SAMPLES)]
    references = torch.stack([background[row] for row, _ in drawn])
    shares = torch.tensor([share for _, share in drawn], device=image.device)[:, None, None, None]
    _, slopes = engine.gradients(model, shares * image + (1 - shares) * references, targets.expand(SAMPLES))
    ours = (slopes * (image - references)).mean(dim=0)
    there = torch.from_numpy(by_shap(bench.plain, image.contiguous(), background.contiguous(), seed=seed)[0, ..., 0])
    bench.goal(9, "SHAP, relative difference from shap on identical samples", difference(ours.cpu(), there), most=5e-3)


def threads(bench: Bench) -> None:
    """Goal 10: mixed methods on one model from several threads."""
    images, background = bench.inputs[:8, :, :64, :64], bench.background[:, :, :64, :64]
    methods = ("grad-cam", "guided-grad-cam", "guided-backprop", "gradient", "shap")
    jobs = [(method, row) for row in range(len(images)) for method in methods]

    def run(job: tuple[str, int]) -> Tensor | Exception:
        method, row = job
        explainer = EXPLAINERS[method](**({"samples": 8} if method == "shap" else {}))
        target = torch.tensor([row % len(bench.predictor.classes)], device=images.device)
        try:
            return explainer.attribute(bench.model, images[row : row + 1], target, background=background)
        except Exception as error:  # noqa: BLE001 - whatever is raised is what is counted
            return error

    expected = [run(job) for job in jobs]
    rounds = 3 if bench.short else 20
    with ThreadPoolExecutor(THREADS) as pool:
        results = list(pool.map(run, jobs * rounds))
    raised = sum(isinstance(one, Exception) for one in results)
    wrong = sum(
        isinstance(one, Tensor) and (not isinstance(other, Tensor) or (one - other).norm() > 1e-4 * other.norm())
        for one, other in zip(results, expected * rounds, strict=True)
    )
    bench.say(10, f"{THREADS} threads, {len(results)} maps: {wrong} wrong, {raised} raised", not wrong and not raised)


def shap_noise(bench: Bench) -> None:
    """Goal 11: SHAP's error against a reference of many more samples, beside that of shap, at the same passes."""
    images, reference_samples = (1, 2000) if bench.short else (3, 20_000)
    step = 2 if bench.short else 1  # a coarser picture for a build server
    background = bench.background[:, :, ::step, ::step].contiguous(memory_format=torch.channels_last)
    ours, theirs, ratios = [], [], []
    for row in range(images):
        image = bench.inputs[row : row + 1, :, ::step, ::step].contiguous(memory_format=torch.channels_last)
        asked = (bench.model, image, likeliest(bench.model, image))
        reference = EXPLAINERS["shap"](samples=reference_samples).attribute(*asked, background=background)
        *_, last = EXPLAINERS["shap"](samples=SAMPLES).refine(*asked, background=background)
        ours.append(difference(last.values, reference))
        ratios.append(ours[-1] / last.noise.item())
        for seed in range(2 if bench.short else 5):
            plain = torch.from_numpy(by_shap(bench.model, image, background, seed=seed, batch=8)[..., 0])
            theirs.append(difference(plain.sum(dim=1, keepdim=True), reference))
    mean, other = statistics.mean(ours), statistics.mean(theirs)
    bench.goal(11, f"SHAP's error at {SAMPLES} samples ({mean:.1%}) / shap's ({other:.1%})", mean / other, most=0.5)
    print(f"    SHAP's error / the standard error that the map reports: {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    sys.exit(main())

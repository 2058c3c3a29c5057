"""Expected gradients by quadrature: the mean of gradient times difference over the lines from references to an image.

The gradient changes smoothly along such a line. So every reference gets the midpoints of equal steps, where random
points, as shap draws them, leave about five times the error. Nothing is drawn: the same image, model and references
give the same map.

Sources: Erion et al., Improving performance of deep learning models with axiomatic attribution priors and expected
gradients, Nature Machine Intelligence 3, 2021, arXiv:1906.10670, equation 3; with one reference these are the
integrated gradients of Sundararajan et al., ICML 2017, arXiv:1703.01365.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from steel_core.device import batch_size
from steel_core.errors import UsageError
from steel_core.explain import engine
from steel_core.explain.base import Refined
from steel_core.models.base import Classifier

_GOLDEN = (math.sqrt(5) - 1) / 2
_WATCHED = 1 << 20  # numbers kept for the standard error: 4 MB


def attribute(model: Classifier, inputs: Tensor, targets: Tensor, references: Tensor, samples: int) -> Tensor:
    """The last map of `refine`, as `Explainer.attribute` returns it."""
    images = zip(inputs.split(1), targets.split(1), strict=True)
    return torch.stack([list(_means(model, *image, references, samples))[-1].values() for image in images])


def refine(model: Classifier, inputs: Tensor, targets: Tensor, references: Tensor, samples: int) -> Iterator[Refined]:
    """Maps after one batch of gradients an image, then each time their number has doubled, then after all.

    Args:
        model: as `Explainer.attribute` takes it.
        inputs: normalised images (N, C, H, W).
        targets: as `Explainer.attribute` takes them.
        references: images to compare with (B, C, H, W), on the device of `inputs`. All count alike. Where there are
            more than samples, as many as samples are taken, evenly.
        samples: gradients an image, at least 1.
    """
    images = zip(inputs.split(1), targets.split(1), strict=True)
    for means in zip(*(_means(model, *image, references, samples) for image in images), strict=True):
        noise = torch.tensor([mean.noise() for mean in means])
        yield Refined(torch.stack([mean.values() for mean in means]), noise, means[0].share)


def products(model: Classifier, image: Tensor, target: Tensor, references: Tensor, shares: Tensor) -> Tensor:
    """Gradient times difference (n, H, W), summed over channels, at one point of the line from each reference.

    Args:
        model: as `Explainer.attribute` takes it.
        image: (1, C, H, W).
        target: of the image, as `Explainer.attribute` takes it.
        references: one for each point (n, C, H, W).
        shares: how far each point lies on its way to the image, 0 to 1 (n,).
    """
    difference = image - references
    points = references + shares.to(image)[:, None, None, None] * difference
    _, slopes = engine.gradients(model, points, target.expand(len(points), *target.shape[1:]))
    return (slopes * difference).sum(dim=1).detach()


def check_background(inputs: Tensor, background: Tensor | None) -> Tensor:
    """The background, if there is one that fits.

    Raises:
        UsageError: it is missing, empty, or its images have another shape than the inputs.
    """
    if background is None:
        raise UsageError("SHAP compares with reference images: expected a background, got none")
    if background.ndim != 4 or len(background) == 0 or background.shape[1:] != inputs.shape[1:]:
        raise UsageError(
            f"expected a background of images like the inputs, (B, {', '.join(map(str, inputs.shape[1:]))}), "
            f"got {tuple(background.shape)}"
        )
    return background


def evenly(references: Tensor, count: int) -> Tensor:
    """At most `count` of the references, evenly spread over their order."""
    used = min(count, len(references))
    return references[torch.arange(used, device=references.device) * len(references) // used]


class _Mean:
    """The running mean for one image, and what is known of its error.

    Along a line, gradient times difference is taken for a random walk: then the squared error of a mean over points is
    the walk's variance a unit of length, estimated from neighbouring points, times the points' squared L2 discrepancy
    (Wozniakowski, Average case complexity of multivariate integration, Bulletin of the AMS 24, 1991). The errors of
    different references are taken for independent. As long as a reference has a single point, the spread between
    references serves instead. How far that holds for a network, `python -m benchmarks.explain` prints.
    """

    def __init__(self, references: int, samples: int, like: Tensor) -> None:
        rows, columns = like.shape[2:]
        self._samples = samples
        self._sums = like.new_zeros(references, rows, columns)
        pixels = min(rows * columns, max(256, _WATCHED // samples))
        self._watch = torch.arange(pixels, device=like.device) * (rows * columns) // pixels
        self._points: list[list[tuple[float, Tensor]]] = [[] for _ in range(references)]

    def add(self, which: Tensor, shares: Tensor, values: Tensor) -> None:
        """Points (n,) by their reference and their share of the way, with what was found there (n, H, W)."""
        chosen = F.one_hot(which, len(self._points)).to(values)
        self._sums += torch.einsum("nb,nhw->bhw", chosen, values)
        for row, share, seen in zip(which.tolist(), shares.tolist(), values.flatten(1)[:, self._watch], strict=True):
            self._points[row].append((share, seen))

    @property
    def share(self) -> float:
        """Of the points that have been added."""
        return sum(map(len, self._points)) / self._samples

    def values(self) -> Tensor:
        """(1, H, W)."""
        return self._of_each().mean(dim=0, keepdim=True)

    def noise(self) -> float:
        """Standard error of the map as a share of its norm; infinite where a single point says nothing about it."""
        each = self._of_each().flatten(1)[:, self._watch].double()
        if min(map(len, self._points)) > 1:
            squared = sum(map(_squared_error, self._points)) / len(each) ** 2
        elif len(each) > 1:
            squared = each.var(dim=0).sum().item() / len(each)
        else:
            return math.inf
        norm = each.mean(dim=0).norm().item()
        return math.sqrt(squared) / norm if norm else 0.0

    def _of_each(self) -> Tensor:
        """The means of the references that have a point (b, H, W)."""
        counts = torch.tensor([len(points) for points in self._points], device=self._sums.device)
        return self._sums[counts > 0] / counts[counts > 0, None, None]


def _means(model: Classifier, image: Tensor, target: Tensor, references: Tensor, samples: int) -> Iterator[_Mean]:
    """One running mean, shown whenever its points have doubled and at the end."""
    image, references = image.detach(), evenly(references.detach(), samples)
    which, shares = (part.to(image.device) for part in _plan(len(references), samples))
    mean, size, shown = _Mean(len(references), samples, image), batch_size(image.device), 0
    for start in range(0, samples, size):
        rows, steps = which[start : start + size], shares[start : start + size]
        mean.add(rows, steps, products(model, image, target, references[rows], steps))
        done = start + len(rows)
        if done >= 2 * shown or done == samples:
            shown = done
            yield mean


def _plan(references: int, samples: int) -> tuple[Tensor, Tensor]:
    """Which reference (samples,), and which share of the way to the image (samples,), in the order of work.

    Each reference gets the midpoints of equal steps. They come in rounds over the references, in an order that keeps
    the points of any beginning well apart, on each line and over all lines.
    """
    plan = []
    for row in range(references):
        steps = len(range(row, samples, references))
        order = sorted(range(steps), key=lambda step: step * _GOLDEN % 1)
        for cell, turn in enumerate(order):
            plan.append((turn, row, ((cell + int(steps * (row * _GOLDEN % 1))) % steps + 0.5) / steps))
    _, which, shares = zip(*sorted(plan), strict=True)
    return torch.tensor(which), torch.tensor(shares, dtype=torch.float64)


def _squared_error(points: list[tuple[float, Tensor]]) -> float:
    """Of the mean over one line, summed over the watched pixels."""
    places = torch.tensor(sorted(share for share, _ in points), dtype=torch.float64)
    walk = torch.stack([seen for _, seen in sorted(points, key=lambda point: point[0])]).double()
    variance = (walk.diff(dim=0).square().sum(dim=1).cpu() / places.diff()).mean()
    centres = (torch.arange(len(places)) + 0.5) / len(places)
    return (variance * (1 / (12 * len(places) ** 2) + (places - centres).square().mean())).item()

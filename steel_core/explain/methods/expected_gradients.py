"""Expected gradients by quadrature: the mean of gradient times difference over the lines from references to an image.

The gradient changes smoothly along such a line. So every reference gets the midpoints of equal steps, where random
points, as shap draws them, leave about five times the error.

Sources: Erion et al., Improving performance of deep learning models with axiomatic attribution priors and expected
gradients, Nature Machine Intelligence 3, 2021, arXiv:1906.10670, equation 3; with one reference these are the
integrated gradients of Sundararajan et al., ICML 2017, arXiv:1703.01365.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from steel_core.device import batch_size
from steel_core.errors import UsageError
from steel_core.explain import engine
from steel_core.explain.base import EXPLAINERS, Explainer, ExplainerInfo, Query, Refined
from steel_core.models.base import Classifier

_GOLDEN = (math.sqrt(5) - 1) / 2
_WATCHED = 1 << 20  # numbers kept for the standard error: 4 MB


@dataclass(frozen=True)
class ExpectedGradients(Explainer):
    """Mean of gradient times difference over the lines from reference images to the image: a base class.

    Nothing is drawn at random. The values of an image sum to its logit minus the mean logit of the references, up to
    the error of the quadrature, which `refine` reports as `noise`. All references count alike; where there are more of
    them than samples, as many as samples are taken, evenly.
    """

    samples: int = 200  # points on the lines, over all references together, at least 1

    label: ClassVar[str]
    """Name of the method in a sentence."""

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise UsageError(f"{self.label} samples: expected at least 1, got {self.samples}")

    @abstractmethod
    def _references(self, query: Query) -> Tensor:
        """The images to compare with (B, C, H, W), on the device of the inputs."""

    def _attribute(self, query: Query) -> Tensor:
        return torch.stack([list(means)[-1].values() for means in self._means(query)])

    def _refine(self, query: Query) -> Iterator[Refined]:
        """After one batch of gradients an image, then each time their number has doubled, then after all."""
        for means in zip(*self._means(query), strict=True):
            noise = torch.tensor([mean.noise() for mean in means])
            yield Refined(torch.stack([mean.values() for mean in means]), noise, means[0].share)

    def _means(self, query: Query) -> Iterator[Iterator[_Mean]]:
        references = evenly(self._references(query), self.samples)
        return (_means(query.model, *image, references, self.samples) for image in query.images())


@EXPLAINERS.register("shap")
class ShapGradient(ExpectedGradients):
    """Expected gradients with the background's images as references."""

    label = "SHAP"
    info = ExplainerInfo(
        title="SHAP (expected gradients)",
        plain="Shows how much each spot moves the score for this class up or down, compared with ordinary sheets.",
        source="Lundberg & Lee, NeurIPS 2017, arXiv:1705.07874; expected gradients: Erion et al., Nature Machine "
        "Intelligence 3, 2021, arXiv:1906.10670",
        needs=frozenset({"gradients", "background"}),
        forward=200,
        backward=200,
        additive=True,
        blur=2.0,
    )

    def _references(self, query: Query) -> Tensor:
        return query.background


@EXPLAINERS.register("integrated-gradients")
@dataclass(frozen=True)
class IntegratedGradients(ExpectedGradients):
    """Expected gradients with one reference: mean grey, which is zero after normalisation."""

    samples: int = 50

    label = "integrated gradients"
    info = ExplainerInfo(
        title="Integrated gradients",
        plain="Shows how much each spot moves the score for this class up or down on the way from plain grey to it.",
        source="Sundararajan et al., Axiomatic Attribution for Deep Networks, ICML 2017, arXiv:1703.01365",
        needs=frozenset({"gradients", "baseline"}),
        forward=50,
        backward=50,
        additive=True,
        blur=2.0,
    )

    def _references(self, query: Query) -> Tensor:
        return torch.zeros_like(query.inputs[:1])


def products(model: Classifier, image: Tensor, target: Tensor, references: Tensor, shares: Tensor) -> Tensor:
    """Gradient times difference (n, H, W), summed over channels, at one point of the line from each reference.

    The points lie the shares (n,) of the way, 0 to 1, from the references (n, C, H, W) to the image (1, C, H, W).
    """
    difference = image - references
    points = references + shares.to(image)[:, None, None, None] * difference
    return (engine.gradients(model, points, target)[1] * difference).sum(dim=1)


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

"""SHAP by expected gradients: what each pixel adds, compared with reference images."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import shap
import torch
from torch import Tensor
from typing_extensions import override

from steel_core.errors import UsageError
from steel_core.explain.base import EXPLAINERS, Explainer, ExplainerInfo, TargetLogit, check_batch
from steel_core.explain.hooks import isolated
from steel_core.models.base import Classifier

_CPU_BATCH = 8  # larger batches spend their time on page faults; measured at 200 x 200
_GPU_BATCH = 100

_numpy_random = threading.Lock()


@EXPLAINERS.register("shap")
@dataclass(frozen=True)
class ShapGradient(Explainer):
    """Mean of gradient times difference, over random points between the image and random reference images.

    The values of an image sum to its logit minus the mean logit of the background, up to the error of sampling.

    Attributes:
        samples: random points an image, at least 1.
    """

    samples: int = 200

    info: ClassVar[ExplainerInfo] = ExplainerInfo(
        title="SHAP (expected gradients)",
        plain="Shows how much each spot moves the score for this class up or down, compared with ordinary sheets.",
        source="Lundberg & Lee, NeurIPS 2017, arXiv:1705.07874; expected gradients: Erion et al., Nature Machine "
        "Intelligence 3, 2021, arXiv:1906.10670",
        needs=frozenset({"gradients", "background", "seed"}),
        forward=200,
        backward=200,
        class_dependent=True,
        blur=2.0,
    )

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise UsageError(f"SHAP samples: expected at least 1, got {self.samples}")

    @override
    def attribute(
        self, model: Classifier, inputs: Tensor, targets: Tensor, *, background: Tensor | None = None, seed: int = 0
    ) -> Tensor:
        check_batch(inputs, targets)
        if background is None:
            raise UsageError("SHAP compares with reference images: expected a background, got none")
        if background.ndim != 4 or len(background) == 0 or background.shape[1:] != inputs.shape[1:]:
            raise UsageError(
                f"expected a background of images like the inputs, (B, {', '.join(map(str, inputs.shape[1:]))}), "
                f"got {tuple(background.shape)}"
            )
        if not 0 <= seed < 2**32:
            raise UsageError(f"SHAP seed: expected 0 to {2**32 - 1}, got {seed}")
        batch = _CPU_BATCH if inputs.device.type == "cpu" else _GPU_BATCH
        with isolated(model) as private:
            logit = TargetLogit(private, targets[:1])
            explainer = shap.GradientExplainer(logit, background.detach().clone(), batch_size=batch)
            maps = []
            for image, target in zip(inputs.detach().clone().split(1), targets.split(1), strict=True):
                logit.targets = target
                with _shap_random_numbers():
                    values = explainer.shap_values(image, nsamples=self.samples, rseed=seed)
                maps.append(torch.from_numpy(values[..., 0]).sum(dim=1, keepdim=True))
        return torch.cat(maps).to(inputs)


@contextmanager
def _shap_random_numbers() -> Iterator[None]:
    """Lends numpy's global generator, which shap seeds and draws from, to one thread, and puts its state back.

    The library itself draws from generators of its own, so nothing else comes between.
    """
    with _numpy_random:
        state = np.random.get_state()
        try:
            yield
        finally:
            np.random.set_state(state)

"""SHAP by expected gradients: what each pixel adds, compared with reference images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from typing_extensions import override

from steel_core.errors import UsageError
from steel_core.explain import expected_gradients
from steel_core.explain.base import EXPLAINERS, Explainer, ExplainerInfo, Refined, check_batch
from steel_core.models.base import Classifier


@EXPLAINERS.register("shap")
@dataclass(frozen=True)
class ShapGradient(Explainer):
    """Mean of gradient times difference over the lines from the reference images to the image.

    The values of an image sum to its logit minus the mean logit of the background, up to the error of the quadrature,
    which `refine` reports as `noise`. Every reference image is used equally, and nothing is drawn at random.

    Attributes:
        samples: points on the lines, over all reference images together, at least 1.
    """

    samples: int = 200

    info: ClassVar[ExplainerInfo] = ExplainerInfo(
        title="SHAP (expected gradients)",
        plain="Shows how much each spot moves the score for this class up or down, compared with ordinary sheets.",
        source="Lundberg & Lee, NeurIPS 2017, arXiv:1705.07874; expected gradients: Erion et al., Nature Machine "
        "Intelligence 3, 2021, arXiv:1906.10670",
        needs=frozenset({"gradients", "background"}),
        forward=200,
        backward=200,
        class_dependent=True,
        additive=True,
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
        references = expected_gradients.check_background(inputs, background)
        return expected_gradients.attribute(model, inputs, targets, references, self.samples)

    @override
    def refine(
        self, model: Classifier, inputs: Tensor, targets: Tensor, *, background: Tensor | None = None, seed: int = 0
    ) -> Iterator[Refined]:
        check_batch(inputs, targets)
        references = expected_gradients.check_background(inputs, background)
        yield from expected_gradients.refine(model, inputs, targets, references, self.samples)

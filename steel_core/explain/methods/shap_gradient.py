"""SHAP by expected gradients: what each pixel adds, compared with reference images."""

from torch import Tensor

from steel_core.explain.base import EXPLAINERS, ExplainerInfo, Query
from steel_core.explain.expected_gradients import ExpectedGradients


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

"""The classical chain: detector, featuriser, classifier. Each step can be looked at for any image."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import shap
from skimage.feature import graycomatrix, graycoprops, local_binary_pattern
from skimage.measure import label, regionprops_table
from sklearn.ensemble import ExtraTreesClassifier

from steel_core.baselines.base import BASELINES, BaselineInfo, FeatureBaseline
from steel_core.types import AnyArray, Float32Array, Float64Array, FloatArray

_BLUR, _DEVIATIONS, _SMALLEST = 0.08, 2.5, 1e-3  # share of the side; of the robust deviation; share of the image
_SHAPE = ("area", "eccentricity", "solidity", "extent", "axis_major_length", "axis_minor_length", "orientation")
_TEXTURE = ("contrast", "homogeneity", "energy", "correlation")
_DISTANCES = (1, 4)
_POINTS, _LEVELS = 8, 32
_TREES = 200


@dataclass(frozen=True, slots=True)
class RegionFeatures:
    """The candidate region at each pixel (H, W), 0 for none, and the value of each named feature."""

    candidates: npt.NDArray[np.int32]
    features: dict[str, float]


@BASELINES.register("classical-chain")
class ClassicalChain(FeatureBaseline):
    """Candidates that deviate from their surroundings, their shape and texture, and a forest of randomised trees."""

    info = BaselineInfo(
        title="Classical chain",
        source="LBP: Ojala et al., IEEE TPAMI 24, 2002; GLCM: Haralick et al., IEEE SMC 3, 1973; trees: Geurts et al., "
        "Machine Learning 63, 2006",
    )

    def features(self, grids: Float32Array) -> Float64Array:
        return np.array([list(measure_regions(grid).features.values()) for grid in grids])

    def make_model(self, features: FloatArray) -> ExtraTreesClassifier:
        return ExtraTreesClassifier(_TREES, class_weight="balanced", random_state=self.seed)

    def importances(self, grids: Float32Array) -> dict[str, Float64Array]:
        """SHAP value of each feature for each image and class (N, K), by TreeSHAP (Lundberg et al., 2020)."""
        values = np.asarray(shap.TreeExplainer(self.model).shap_values(self.features(grids)))
        names = measure_regions(grids[0]).features
        return {name: self.over_all_classes(values[:, i]) for i, name in enumerate(names)}


def measure_regions(grid: Float32Array) -> RegionFeatures:
    """Candidates and features of one grey image (H, W) in 0 to 1."""
    surroundings = cv2.GaussianBlur(grid, (0, 0), _BLUR * min(grid.shape), borderType=cv2.BORDER_REFLECT)
    deviation = cv2.GaussianBlur(grid - surroundings, (0, 0), 1.0)
    robust = 1.4826 * float(np.median(np.abs(deviation - np.median(deviation)))) + 1e-6
    regions = label(np.abs(deviation) > _DEVIATIONS * robust)
    sizes = np.bincount(regions.ravel())
    regions[sizes[regions] < _SMALLEST * grid.size] = 0
    features = _of_regions(regions, deviation / robust, grid.shape) | _of_texture(grid)
    return RegionFeatures(
        regions.astype(np.int32), features | {"brightness": float(grid.mean()), "spread": float(grid.std())}
    )


def _of_regions(regions: npt.NDArray[np.integer], deviation: AnyArray, shape: tuple[int, ...]) -> dict[str, float]:
    table = regionprops_table(regions, deviation, properties=(*_SHAPE, "intensity_mean"))
    area = table["area"].astype(np.float64)
    features = {"candidates": float(len(area)), "candidate area": float(area.sum() / np.prod(shape))}
    for name in (*_SHAPE[1:], "intensity_mean"):
        mean = float(np.average(table[name], weights=area)) if len(area) else 0
        features[f"candidates' {name.replace('_', ' ')}"] = mean
    return features | {"largest candidate": float(area.max(initial=0) / np.prod(shape))}


def _of_texture(grid: Float32Array) -> dict[str, float]:
    """Uniform local binary patterns, and Haralick's features averaged over four directions and by direction."""
    grey = np.rint(grid * 255).astype(np.uint8)
    patterns = local_binary_pattern(grey, _POINTS, 1, method="uniform")
    shares = np.bincount(patterns.astype(int).ravel(), minlength=_POINTS + 2) / grey.size
    features = {f"pattern {i}": float(share) for i, share in enumerate(shares)}
    low, high = np.percentile(grid, (1, 99))  # levels follow the image's own range: texture, not brightness
    levels = np.clip((grid - low) / max(high - low, 1e-6) * (_LEVELS - 1), 0, _LEVELS - 1).astype(np.uint8)
    angles = (0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
    matrix = graycomatrix(levels, _DISTANCES, angles, _LEVELS, symmetric=True, normed=True)
    for name in _TEXTURE:
        for distance, row in zip(_DISTANCES, graycoprops(matrix, name), strict=True):
            features[f"{name} at {distance}"] = float(row.mean())
            features[f"{name} at {distance}, across less along"] = float(row[2] - row[0])
    return features

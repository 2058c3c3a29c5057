"""Where pictures lie in the eyes of a model: its features averaged over the grid, a 2-D map of them, and neighbours.

The map is t-SNE of scikit-learn (L. van der Maaten, G. Hinton, JMLR 9, 2008). Neighbours are exact: by one matrix
product or, beyond `INDEXED` pictures, by scikit-learn's index, which never holds all likenesses of many queries at once
(one query of 100,000 pictures takes it 0.11 s on 2 cores, the product 0.01 s). Legend: N pictures, F features.
"""

import hashlib
import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors

from steel_core.data.index import DatasetIndex
from steel_core.errors import DataError, ImageError
from steel_core.files import cache_bytes, cache_folder
from steel_core.inference.keys import data_key
from steel_core.inference.predictor import Predictor
from steel_core.progress import Progress, no_progress
from steel_core.types import BoolArray, Float32Array, IndexArray, SteelImage

PERPLEXITY = 30.0
"""t-SNE weighs about this many neighbours of each picture; the usual value, lowered where there are fewer."""

MAPPED = 5_000
"""Pictures that t-SNE lays out; of more, this many are laid out and each other one is set beside its neighbours."""

INDEXED = 20_000

_CHUNK = 256  # pictures decoded at a time


@dataclass(frozen=True, eq=False)
class Embedding:
    """Features (N, F) of unit length of a data set in the eyes of one checkpoint; NaN for a refused picture."""

    features: Float32Array
    key: str

    def __len__(self) -> int:
        return len(self.features)

    @cached_property
    def readable(self) -> BoolArray:
        """(N,) whether a picture could be read."""
        return np.isfinite(self.features[:, 0]) if len(self) else np.zeros(0, bool)

    def nearest(self, queries: Float32Array, k: int = 12) -> tuple[IndexArray, Float32Array]:
        """Rows (Q, k) most alike each query (Q, F) of unit length, the most alike first, and their cosines (Q, k)."""
        k = min(k, int(self.readable.sum()))
        queries = np.asarray(queries, np.float32)
        if len(self) > INDEXED:
            distances, nearest = self._index.kneighbors(queries, k)
            return self._rows[nearest], (1 - distances**2 / 2).astype(np.float32)  # of vectors of unit length
        likeness = queries @ self._filled.T
        likeness[:, ~self.readable] = -np.inf
        best = np.argpartition(-likeness, max(k - 1, 0), axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(likeness, best, axis=1), axis=1, kind="stable")
        best = np.take_along_axis(best, order, axis=1)
        return best, np.take_along_axis(likeness, best, axis=1)

    def row(self, i: int) -> Float32Array:
        """(1, F) features of picture `i`, as a query; DataError where it could not be read."""
        if not self.readable[i]:
            raise DataError(f"picture number {i + 1} could not be read, so nothing is known to be like it")
        return self.features[i : i + 1]

    def layout(self, seed: int = 0) -> Float32Array:
        """(N, 2) places where alike pictures lie close, kept in the cache; gaps mean nothing. NaN where refused."""
        places = self.find_layout(seed)
        if places is None:
            places = np.full((len(self), 2), np.nan, np.float32)
            places[self._rows] = _tsne(self.features[self._rows], seed)
            _save(self._map(seed), places)
        return places

    def find_layout(self, seed: int = 0) -> Float32Array | None:
        """What `layout` would load; None where it would have to compute."""
        return _load(self._map(seed), (len(self), 2))

    def _map(self, seed: int) -> Path:
        return embeddings_folder() / f"{self.key}-map-{seed}.npy"

    @cached_property
    def _filled(self) -> Float32Array:
        return np.where(self.readable[:, None], self.features, np.float32(0))

    @cached_property
    def _rows(self) -> IndexArray:
        return np.flatnonzero(self.readable)

    @cached_property
    def _index(self) -> NearestNeighbors:
        return NearestNeighbors(algorithm="brute").fit(self.features[self._rows])


def embed_images(predictor: Predictor, images: Sequence[SteelImage]) -> Float32Array:
    """(N, F) features of unit length, averaged over the grid, in the eyes of a model."""
    features = predictor.features(images)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(lengths, np.finfo(np.float32).tiny)


def find_embedding(predictor: Predictor, index: DatasetIndex) -> Embedding | None:
    """What `load_or_embed` would load, with the same arguments; None where it would have to compute."""
    if not embeddings_folder().is_dir():
        return None
    key = _key(predictor, index)
    features = _load(embeddings_folder() / f"{key}.npy", (len(index), None))
    return None if features is None else Embedding(features, key)


def embeddings_folder() -> Path:
    """The folder in which features and maps are kept; it changes when one is added."""
    return cache_folder() / "embeddings"


def load_or_embed(predictor: Predictor, index: DatasetIndex, progress: Progress = no_progress) -> Embedding:
    """The features of every picture of a data set, from the user's cache where known; DataError if none can be read."""
    key = _key(predictor, index)
    path = embeddings_folder() / f"{key}.npy"
    features = _load(path, (len(index), None))
    if features is None:
        for start in range(0, len(index), _CHUNK):
            rows = range(start, min(start + _CHUNK, len(index)))
            images, readable = [], []
            for i in rows:
                with suppress(ImageError, DataError):
                    images.append(index.image(i))
                    readable.append(i)
            if images:
                part = embed_images(predictor, images)
                if features is None:
                    features = np.full((len(index), part.shape[1]), np.nan, np.float32)
                features[readable] = part
            progress("embedding", rows.stop, len(index))
        if features is None:
            raise DataError(f"none of the {len(index)} images could be read")
        _save(path, features)
    return Embedding(features, key)


def _tsne(features: Float32Array, seed: int) -> Float32Array:
    """(N, 2) by t-SNE; beyond `MAPPED` pictures the rest is set at the mean place of its 3 nearest neighbours."""
    if len(features) < 4:
        return np.column_stack([np.arange(len(features)), np.zeros(len(features))]).astype(np.float32)
    rows = np.random.default_rng(seed).permutation(len(features))[:MAPPED]
    reduced = PCA(min(32, *features[rows].shape), random_state=seed).fit_transform(features[rows])
    perplexity = min(PERPLEXITY, (len(rows) - 1) / 3)
    laid = TSNE(perplexity=perplexity, init="pca", random_state=seed, n_jobs=1).fit_transform(reduced)
    out = np.empty((len(features), 2), np.float32)
    out[rows] = laid
    rest = np.setdiff1d(np.arange(len(features)), rows)
    if len(rest):
        _, near = NearestNeighbors(n_neighbors=3, algorithm="brute").fit(features[rows]).kneighbors(features[rest])
        out[rest] = laid[near].mean(axis=1)
    return out


def _key(predictor: Predictor, index: DatasetIndex) -> str:
    return hashlib.sha256(f"{predictor.hash} {data_key(index)}".encode()).hexdigest()[:32]


def _load(path: Path, shape: tuple[int, int | None]) -> Float32Array | None:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    fits = array.ndim == 2 and len(array) == shape[0] and shape[1] in (None, array.shape[1])
    return array if fits and array.dtype == np.float32 else None


def _save(path: Path, array: Float32Array) -> None:
    sink = io.BytesIO()
    np.save(sink, array.astype(np.float32), allow_pickle=False)
    cache_bytes(path, sink.getvalue())

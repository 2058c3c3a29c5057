"""Where pictures lie in the eyes of a model: its features averaged over the grid, a 2-D map of them, and neighbours.

Features are computed once for a checkpoint and a data set and kept in the user's cache. The map is t-SNE of
scikit-learn (L. van der Maaten, G. Hinton, JMLR 9, 2008): it is here already, while UMAP would bring a compiler (numba)
for the same picture. Neighbours are exact: by one matrix product, and beyond `INDEXED` pictures by scikit-learn's
index, which is here already and never holds all likenesses of many queries at once (one query of 100,000 pictures takes
it 0.11 s on 2 cores, the product 0.01 s). An approximate index would bring a wheel of 30 MB for less than that.

Legend: N pictures, F features.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors

from steel_core.data.index import DatasetIndex
from steel_core.errors import DataError, ImageError, UsageError
from steel_core.files import cache_folder, write_bytes
from steel_core.inference.predictor import Predictor
from steel_core.progress import Progress, no_progress
from steel_core.types import SteelImage

Floats = npt.NDArray[np.float32]

PERPLEXITY = 30.0
"""t-SNE weighs about this many neighbours of each picture; the usual value, lowered where there are fewer."""

MAPPED = 5_000
"""Pictures that t-SNE lays out; of more, this many are laid out and each other one is set beside its neighbours."""

INDEXED = 20_000
"""Beyond so many pictures neighbours come from scikit-learn's index."""

_CHUNK = 256  # pictures decoded at a time


@dataclass(frozen=True, eq=False)
class Embedding:
    """Features of the pictures of one data set in the eyes of one checkpoint.

    Attributes:
        features: (N, F) float32 of unit length, in the order of the data set; a picture that was refused has NaN.
        key: hash of checkpoint and data; part of the name of the file that keeps them.
    """

    features: Floats
    key: str

    def __len__(self) -> int:
        return len(self.features)

    @cached_property
    def known(self) -> npt.NDArray[np.bool_]:
        """(N,) whether a picture could be read."""
        return np.isfinite(self.features[:, 0]) if len(self) else np.zeros(0, bool)

    def nearest(self, queries: Floats, k: int = 12) -> tuple[npt.NDArray[np.intp], Floats]:
        """The k pictures most alike each query, exactly, the most alike first.

        Args:
            queries: (Q, F) features of unit length; those of `row(i)` find the picture itself first.
            k: how many; fewer where there are fewer.

        Returns:
            (Q, k) row numbers, and (Q, k) cosine likeness, at most 1.
        """
        k = min(k, int(self.known.sum()))
        queries = np.asarray(queries, np.float32)
        if len(self) > INDEXED:
            apart, found = self._index.kneighbors(queries, k)
            return self._rows[found], (1 - apart**2 / 2).astype(np.float32)  # of vectors of unit length
        likeness = queries @ self._filled.T
        likeness[:, ~self.known] = -np.inf
        best = np.argpartition(-likeness, max(k - 1, 0), axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(likeness, best, axis=1), axis=1, kind="stable")
        best = np.take_along_axis(best, order, axis=1)
        return best, np.take_along_axis(likeness, best, axis=1)

    def row(self, i: int) -> Floats:
        """(1, F) features of picture `i`, as a query.

        Raises:
            DataError: it could not be read.
        """
        if not self.known[i]:
            raise DataError(f"picture number {i + 1} could not be read, so nothing is known to be like it")
        return self.features[i : i + 1]

    def layout(self, seed: int = 0) -> Floats:
        """(N, 2) places on a map on which pictures that are alike lie together; NaN where a picture was refused.

        Computed at the first call and kept in the user's cache. Distances between groups mean nothing.
        """
        places = self.find_layout(seed)
        if places is None:
            places = np.full((len(self), 2), np.nan, np.float32)
            places[self._rows] = _tsne(self.features[self._rows], seed)
            _save(self._map(seed), places)
        return places

    def find_layout(self, seed: int = 0) -> Floats | None:
        """What `layout` would load; None where it would have to compute."""
        return _load(self._map(seed), (len(self), 2))

    def _map(self, seed: int) -> Path:
        return kept_in() / f"{self.key}-map-{seed}.npy"

    @cached_property
    def _filled(self) -> Floats:
        return np.where(self.known[:, None], self.features, np.float32(0))

    @cached_property
    def _rows(self) -> npt.NDArray[np.intp]:
        """Row numbers of the pictures that could be read."""
        return np.flatnonzero(self.known)

    @cached_property
    def _index(self) -> NearestNeighbors:
        return NearestNeighbors(algorithm="brute").fit(self.features[self._rows])


def embed_images(predictor: Predictor, images: Sequence[SteelImage]) -> Floats:
    """(N, F) features of unit length, averaged over the grid, in the eyes of a model."""
    features = predictor.features(images)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(lengths, np.finfo(np.float32).tiny)


def find_embedding(predictor: Predictor, index: DatasetIndex) -> Embedding | None:
    """What `embed` would load, with the same arguments; None where it would have to compute."""
    if not kept_in().is_dir():
        return None
    key = _key(predictor, index)
    features = _load(kept_in() / f"{key}.npy", (len(index), None))
    return None if features is None else Embedding(features, key)


def kept_in() -> Path:
    """The folder in which features and maps are kept; it changes when one is added."""
    return cache_folder() / "embeddings"


def embed(predictor: Predictor, index: DatasetIndex, progress: Progress = no_progress) -> Embedding:
    """The features of every picture of a data set, from the user's cache where they are known.

    They are known by the checkpoint, the index, and the time and size of each file.

    Args:
        predictor: the checkpoint.
        index: the data set. A picture that is refused gets NaN.
        progress: told how many pictures are done.

    Raises:
        DataError: no picture could be read.
    """
    key = _key(predictor, index)
    kept = kept_in() / f"{key}.npy"
    features = _load(kept, (len(index), None))
    if features is None:
        parts: list[Floats] = []
        for start in range(0, len(index), _CHUNK):
            rows = range(start, min(start + _CHUNK, len(index)))
            images, readable = [], []
            for i in rows:
                with suppress(ImageError, DataError):
                    images.append(index.image(i))
                    readable.append(i - start)
            found = embed_images(predictor, images)
            part = np.full((len(rows), found.shape[1]), np.nan, np.float32)
            part[readable] = found
            parts.append(part)
            progress("embedding", rows.stop, len(index))
        width = max((part.shape[1] for part in parts), default=0)
        if not width:
            raise DataError(f"none of the {len(index)} images could be read")
        features = np.concatenate([p if p.shape[1] else np.full((len(p), width), np.nan, np.float32) for p in parts])
        _save(kept, features)
    return Embedding(features, key)


def _tsne(features: Floats, seed: int) -> Floats:
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
    digest = hashlib.sha256(f"{predictor.hash} {index.hash} {index.root}".encode())
    for path in index.table["path"]:
        with suppress(OSError):
            state = os.stat(index.root / path)  # noqa: PTH116 - a Path's costs twice the time
            digest.update(f"{state.st_mtime_ns}:{state.st_size};".encode())
    return digest.hexdigest()[:32]


def _load(path: Path, shape: tuple[int, int | None]) -> Floats | None:
    """The array in a file, or None where there is none of that shape."""
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    fits = (
        found.ndim == 2
        and found.dtype == np.float32
        and all(w in (None, n) for n, w in zip(found.shape, shape, strict=True))
    )
    return found if fits else None


def _save(path: Path, array: Floats) -> None:
    sink = io.BytesIO()
    np.save(sink, array.astype(np.float32), allow_pickle=False)
    with suppress(UsageError):  # a cache that cannot be written only costs time
        write_bytes(path, sink.getvalue())

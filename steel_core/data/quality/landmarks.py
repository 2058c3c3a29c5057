"""Which of very many pictures may show the same piece of steel: an index of landmarks instead of a look at every pair.

A landmark is a bright or dark blob of the local detail, described by the 8 x 8 cells around it. Landmarks that look
alike vote for the shift that lays one picture on the other; pictures with `VOTES` equal votes are a candidate. Alike
landmarks are found in lists around learnt centres (inverted file index: J. Sivic, A. Zisserman, Video Google, ICCV
2003), so the work grows with N times the square root of N. Pictures may differ in size, not in scale.

Legend: N pictures, L landmarks, D = 64 cells.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from sklearn.cluster import MiniBatchKMeans

from steel_core.types import Float32Array, Int64Array, UInt8Array

VOTES = 3
"""Landmarks that must agree on a shift. A chance pair of NEU pictures seldom has more than two."""

_LANDMARKS = 48  # a picture of 200 x 200; more on a larger one
_RADIUS = 12  # pixels around a landmark that describe it
_CELLS = 8
_ALIKE = 0.8  # cosine of two descriptions
_NEIGHBOURS = 24  # most alike landmarks that vote
_PROBES = 6  # lists searched for each landmark
_BIN = 6  # pixels by which two votes may differ
_SAMPLE = 50_000  # landmarks that centres are learnt from


def propose_pairs(planes: Sequence[UInt8Array], seed: int = 0) -> Int64Array:
    """(P, 4) pairs to look at closely: row numbers first < second, and the shift dy, dx in pixels.

    first[p + shift] is like second[p]. `planes`: local detail (H, W) of each picture, all at one scale; 128 is none.
    """
    each = [find_landmarks(plane) for plane in planes]
    places = np.concatenate([np.zeros((0, 2), np.int64), *(place for place, _ in each)])
    described = np.concatenate([np.zeros((0, _CELLS**2), np.float32), *(text for _, text in each)])
    owner = np.repeat(np.arange(len(each)), [len(place) for place, _ in each])
    if len(owner) < 2:
        return np.zeros((0, 4), np.int64)
    return _elect_shifts(_cast_votes(places, described, owner, seed))


def find_landmarks(plane: UInt8Array) -> tuple[Int64Array, Float32Array]:
    """Places (L, 2), row and column, of the strongest blobs of a plane (H, W), and their descriptions (L, D)."""
    smooth = cv2.GaussianBlur(plane.astype(np.float32) - 128, (0, 0), 2.5)
    height, width = smooth.shape
    if min(height, width) <= 2 * _RADIUS + 1:
        return np.zeros((0, 2), np.int64), np.zeros((0, _CELLS**2), np.float32)
    around = np.ones((9, 9), np.uint8)
    peaks = (smooth == cv2.dilate(smooth, around)) | (smooth == cv2.erode(smooth, around))
    peaks &= np.abs(smooth) > 8  # a quarter of the usual spread; fainter blobs are noise
    inner = np.zeros_like(peaks)
    inner[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS] = True
    rows, columns = np.nonzero(peaks & inner)
    most = max(_LANDMARKS, round(_LANDMARKS * height * width / 40_000))
    best = np.argsort(-np.abs(smooth[rows, columns]), kind="stable")[:most]
    rows, columns = rows[best], columns[best]
    steps = np.round((np.arange(_CELLS) + 0.5) * (2 * _RADIUS / _CELLS) - _RADIUS).astype(int)
    cells = smooth[rows[:, None, None] + steps[:, None], columns[:, None, None] + steps]
    flat = cells.reshape(len(rows), _CELLS**2)
    flat = flat - flat.mean(axis=1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return np.stack([rows, columns], axis=1).astype(np.int64), flat.astype(np.float32)


def _cast_votes(places: Int64Array, described: Float32Array, owner: Int64Array, seed: int) -> Int64Array:
    """(V, 4) pairs of pictures and the shift that two landmarks alike vote for."""
    rng = np.random.default_rng(seed)
    count = int(np.clip(np.sqrt(len(owner)) / 2, 1, 2048))
    sample = described[rng.permutation(len(owner))[:_SAMPLE]]
    centres = MiniBatchKMeans(count, batch_size=4096, n_init=1, max_iter=20, random_state=seed).fit(sample)
    centres = centres.cluster_centers_.astype(np.float32)
    probes = min(_PROBES, count)
    near, home = [], []
    for start in range(0, len(owner), 8192):
        likeness = described[start : start + 8192] @ centres.T
        near.append(np.argpartition(-likeness, probes - 1, axis=1)[:, :probes])
        home.append(likeness.argmax(axis=1))
    asked, listed = np.concatenate(near), np.concatenate(home)
    pairs = []
    for centre in range(count):
        members = np.flatnonzero(listed == centre)
        asking = np.flatnonzero((asked == centre).any(axis=1))
        for start in range(0, len(asking), 2048):
            rows = asking[start : start + 2048]
            alike = described[rows] @ described[members].T
            alike[owner[rows][:, None] == owner[members]] = -1
            if alike.shape[1] > _NEIGHBOURS:
                limit = np.partition(alike, -_NEIGHBOURS, axis=1)[:, -_NEIGHBOURS]
                alike[alike < limit[:, None]] = -1
            asker, other = np.nonzero(alike >= _ALIKE)
            a, b = rows[asker], members[other]
            swap = owner[a] > owner[b]
            a, b = np.where(swap, b, a), np.where(swap, a, b)
            pairs.append(a.astype(np.int64) * len(owner) + b)
    a, b = np.divmod(np.unique(np.concatenate(pairs)), len(owner))
    return np.column_stack([owner[a], owner[b], places[a] - places[b]])


def _elect_shifts(votes: Int64Array) -> Int64Array:
    """(P, 4) the shift of most votes for each pair of pictures that has enough of them."""
    best: dict[tuple[int, int], tuple[int, int, int]] = {}
    low, high = votes.min(axis=0, initial=0), votes.max(axis=0, initial=0)
    spans = [int(span) for span in (high - low) // np.array([1, 1, _BIN, _BIN]) + 2]
    for offset in (0, _BIN // 2):  # two grids, so that votes beside a line of one are together in the other
        cells = votes - low
        cells[:, 2:] = (cells[:, 2:] + offset) // _BIN
        key = ((cells[:, 0] * spans[1] + cells[:, 1]) * spans[2] + cells[:, 2]) * spans[3] + cells[:, 3]
        order = np.argsort(key, kind="stable")
        starts = np.flatnonzero(np.concatenate([[True], np.diff(key[order]) != 0])) if len(key) else order
        counts = np.diff(np.append(starts, len(key)))
        for start, count in zip(starts[counts >= VOTES], counts[counts >= VOTES], strict=True):
            members = votes[order[start : start + count]]
            pair = (int(members[0, 0]), int(members[0, 1]))
            if count > best.get(pair, (0, 0, 0))[0]:
                dy, dx = np.rint(members[:, 2:].mean(axis=0)).astype(int)
                best[pair] = (int(count), int(dy), int(dx))
    return np.array([[*pair, dy, dx] for pair, (_, dy, dx) in sorted(best.items())], dtype=np.int64).reshape(-1, 4)

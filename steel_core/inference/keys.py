"""Hashes by which what was computed once for a checkpoint or a data set is found again."""

import hashlib
import json
import os
from contextlib import suppress

from steel_core.data.index import DatasetIndex
from steel_core.models.card import Card


def model_key(card: Card) -> str:
    """Hash of everything about a checkpoint that decides logits and familiarity; thresholds and notes do not count."""
    parts = [card.weights_sha256, card.backbone, card.head, card.classes, card.input_size, card.mean, card.std]
    parts.append(card.familiarity.sha256 if card.familiarity else "")
    if card.multi_label:
        parts.append("multi-label")
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def data_key(index: DatasetIndex) -> str:
    """Hash of an index and of its files' places, sizes and times: changes when any of them does."""
    digest = hashlib.sha256(f"{index.root}\0{index.hash}".encode())
    for path in index.table["path"]:
        with suppress(OSError):
            state = os.stat(index.root / path)  # noqa: PTH116 - a Path's costs twice the time
            digest.update(f"{state.st_mtime_ns}:{state.st_size};".encode())
    return digest.hexdigest()

"""Fixtures that several parts share."""

import os
from pathlib import Path

import pytest
import torch
from helpers.small import ROOT, make_checkpoint

from steel_core.models.checkpoint import load_checkpoint

REAL_DATA = Path(os.environ.get("STEEL_DATA", ROOT.parent / "shared" / "data"))

if "OMP_NUM_THREADS" not in os.environ:  # more threads than cores make torch wait for itself
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))


def pytest_collection_modifyitems(items):
    """Skip, and say so, what this machine lacks."""
    for item in items:
        if item.get_closest_marker("real_data") and not (REAL_DATA / "neu-cls").is_dir():
            item.add_marker(pytest.mark.skip(reason="the real images are not here; set STEEL_DATA"))
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with neu-cls and neu-seg."""
    return REAL_DATA


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def checkpoint(checkpoint_folder):
    return load_checkpoint(checkpoint_folder)

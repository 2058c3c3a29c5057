"""Two processes started by torchrun follow the course of one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from steel_core.data.strip_mill import StripMill, write_sheets
from steel_core.models.checkpoint import load_checkpoint
from steel_core.training.distributed import ProcessGroup

ROOT = Path(__file__).parents[2]

SCRIPT = """
import sys
from pathlib import Path
from steel_core.data.augmentation import Augmentation
from steel_core.data.open import open_dataset
from steel_core.jobs.run_log import RunLog
from steel_core.training.distributed import join_process_group
from steel_core.training.train import train
from steel_core.training.settings import TrainingSettings

data, out, log = map(Path, sys.argv[1:])
still = Augmentation(flip=False, turn=False).scaled(0.0)
config = TrainingSettings(epochs=2, learning_rate=1e-3, batch_size=13, dropout=0.0, batch_norm=False, half=False,
                          augmentation=still)
with join_process_group("cpu") as device:
    train(open_dataset(data).binary(), out, config, finish=False, device=device, log=RunLog(log))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folder and printed lines of the same training, by one process and by two."""
    folder = tmp_path_factory.mktemp("group")
    write_sheets(StripMill(size=(40, 40), seed=8, clear_share=0.5), 50, folder / "sheets")
    script = folder / "script.py"
    script.write_text(SCRIPT)
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", "--standalone"]
    results = {}
    for name, launcher in (("one", []), ("two", torchrun)):
        out = folder / name
        command = [
            sys.executable,
            *launcher,
            str(script),
            str(folder / "sheets"),
            str(out),
            str(folder / f"log-{name}"),
        ]
        env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        results[name] = (load_checkpoint(out), done.stdout.splitlines())
    return results


def test_two_processes_end_with_the_weights_of_one(runs):
    """The gradients of 13 images are added up from 7 and 6; only the order of the sums differs."""
    (one, _), (two, _) = runs["one"], runs["two"]
    for name, value in one.model.state_dict().items():
        torch.testing.assert_close(two.model.state_dict()[name], value, rtol=1e-3, atol=2e-5)
    for a, b in zip(one.card.training.history, two.card.training.history, strict=True):
        assert a == pytest.approx(b, rel=1e-4)
    assert two.card.metrics["test"]["n"] == one.card.metrics["test"]["n"]


def test_the_first_process_alone_reports_and_writes(runs):
    (_, alone), (two, lines) = runs["one"], runs["two"]
    assert len([line for line in lines if line.startswith("epoch ")]) == len(
        [line for line in alone if line.startswith("epoch ")]
    )
    assert len([line for line in lines if line.startswith("saved")]) == 1
    assert two.card.name == "two"


def test_alone_a_process_is_its_own_group():
    group = ProcessGroup.current()
    assert (group.is_rank_zero, group.size) == (True, 1)
    values = torch.tensor([1.0, 2.0])
    assert torch.equal(group.total(values), torch.tensor([1.0, 2.0]))
    assert group.broadcast(True, torch.device("cpu"))
    assert not group.broadcast(False, torch.device("cpu"))

"""Several processes that train one model, as torchrun starts them: each takes its share of every batch.

Gradients are added up rather than averaged by `DistributedDataParallel`, because the weights of the classes make the
mean loss of a batch a ratio of two sums, each over all processes: so several processes follow the course of one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from steel_core.device import choose_device


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """The processes that train together, each with its rank from 0; one alone if not told otherwise."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> ProcessGroup:
        return cls(dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else cls()

    @property
    def is_rank_zero(self) -> bool:
        """Whether this process is the one that writes and reports."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """Sum over all processes; `values` itself is changed."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def add_gradients(self, model: nn.Module) -> None:
        """Replace each gradient by its sum over all processes."""
        if self.size == 1:
            return
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        whole = self.total(torch.cat([g.flatten() for g in gradients]))
        for gradient, part in zip(gradients, whole.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def average_buffers(self, *models: nn.Module) -> None:
        """Replace the statistics of batch normalisation by their mean over all processes."""
        for model in models:
            for buffer in model.buffers():
                if buffer.is_floating_point():
                    self.total(buffer).div_(self.size)

    def broadcast(self, value: bool, device: torch.device) -> bool:
        """The value of the process of rank zero."""
        return bool(self.total(torch.tensor(float(value and self.is_rank_zero), device=device)))


@contextmanager
def join_process_group(device: str) -> Iterator[str]:
    """Within the block this process is in torchrun's group, if any; yields its device, or its own of several GPUs."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    chosen = choose_device(device).type
    if chosen == "cuda":
        chosen = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.startswith("cuda") else "gloo")
    try:
        yield chosen
    finally:
        dist.destroy_process_group()

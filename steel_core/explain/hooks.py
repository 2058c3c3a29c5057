"""The only place that deals with hooks on modules: they are put on a private copy, never on the model that others use.

Every thread that shares a model sees a hook on it. A copy without its weights takes about 3 ms for SqueezeNet.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


@contextmanager
def isolated(model: M) -> Iterator[M]:
    """A structural copy of `model` in evaluation mode, for libraries that register hooks on what they explain.

    The copy's parameters and buffers are the memory of the model's own, seen through tensors that take no gradient. So
    the model keeps its mode, its hooks and its `.grad` whatever happens inside, and other threads may use it. Gradients
    are on inside the block, even where the caller switched them off. The copy's hooks are removed when it is left.
    """
    memo: dict[int, Any] = {id(tensor): tensor.detach() for tensor in model.buffers()}
    memo |= {id(weight): nn.Parameter(weight.detach(), requires_grad=False) for weight in model.parameters()}
    private = copy.deepcopy(model, memo).eval()
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield private
    finally:
        for module in private.modules():
            for kind in ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks"):
                getattr(module, kind).clear()


def grid_sizes(model: nn.Module, inputs: Tensor) -> dict[str, tuple[int, int]]:
    """Rows and columns of the maps (N, F, h, w) that the modules of a network give, in the order of their calls."""
    sizes: dict[str, tuple[int, int]] = {}

    def note(name: str, output: object) -> None:
        if name and isinstance(output, Tensor) and output.ndim == 4:
            sizes[name] = (output.shape[2], output.shape[3])

    with isolated(model) as private:
        for name, module in private.named_modules():
            module.register_forward_hook(lambda _, __, output, name=name: note(name, output))
        with torch.no_grad():
            private(inputs)
    return sizes

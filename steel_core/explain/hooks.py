"""The only place that deals with hooks on modules: they are put on a private copy, never on the model that others use.

A model is loaded once and shared by every session, and a hook on it is seen by every thread. Instead of locking it,
each call takes a copy of its modules, without a copy of its weights: about 3 ms for SqueezeNet.
"""

from __future__ import annotations

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
    the model keeps its mode, its hooks and its `.grad` whatever happens inside, and nothing has to be undone. Gradients
    are on inside the block, even where the caller switched them off.

    Args:
        model: any module; it may be in use by other threads.

    Yields:
        The copy. Its hooks are removed when the block is left, by an error too.
    """
    memo: dict[int, Any] = {id(tensor): tensor.detach() for tensor in model.buffers()}
    memo |= {id(weight): nn.Parameter(weight.detach(), requires_grad=False) for weight in model.parameters()}
    private = copy.deepcopy(model, memo).eval()
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield private
    finally:
        for module in private.modules():
            for hooks in (
                module._forward_pre_hooks,
                module._forward_hooks,
                module._backward_pre_hooks,
                module._backward_hooks,
            ):
                hooks.clear()


def grids(model: nn.Module, inputs: Tensor) -> dict[str, tuple[int, int]]:
    """Rows and columns of what each module gives, for those that give maps (N, F, h, w), in the order of their calls.

    Args:
        model: any module; it may be in use by other threads.
        inputs: what it takes.
    """
    found: dict[str, tuple[int, int]] = {}

    def note(name: str, output: object) -> None:
        if name and isinstance(output, Tensor) and output.ndim == 4:
            found[name] = (output.shape[2], output.shape[3])

    with isolated(model) as private:
        for name, module in private.named_modules():
            module.register_forward_hook(lambda _, __, output, name=name: note(name, output))
        with torch.no_grad():
            private(inputs)
    return found

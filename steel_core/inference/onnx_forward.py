"""Plain forward passes by the hundred, as evaluations and audits need them: on the CPU by onnxruntime, twice as fast.

Explanations need gradients and stay with torch; so do a few verdicts, there before a network would be translated.
"""

import io
import threading
import warnings
from typing import Any

import onnxruntime
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidGraph
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as Unsupported
from torch import Tensor, nn

from steel_core.explain import engine
from steel_core.models.base import Classifier

_EXPORTING = threading.Lock()  # torch exports one network at a time, and the filter of warnings is the process's
_UNTRANSLATABLE = (RuntimeError, Fail, InvalidGraph, Unsupported)  # an operation that one of the two does not know


class BulkForward:
    """`engine.predict` for many batches of one network in evaluation mode, by onnxruntime where that can translate it.

    Safe under several threads; a call takes one core, so that `device.in_parallel` can give each core a batch. What the
    network computes is the same within float32's rounding.
    """

    def __init__(self, model: Classifier) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._session: onnxruntime.InferenceSession | None = None
        self._tried = next(model.parameters()).device.type != "cpu"  # elsewhere torch is the fast one

    def __call__(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, K), and averaged features (N, F), on the CPU, of normalised images (N, C, H, W)."""
        with self._lock:
            if not self._tried:
                self._session, self._tried = _translated(self._model), True
        if self._session is None:
            logits, averaged = engine.predict(self._model, inputs)
            return logits.float().cpu(), averaged.float().cpu()
        logits, averaged = self._session.run(None, {"images": inputs.contiguous().numpy()})
        return torch.from_numpy(logits), torch.from_numpy(averaged)


class _Forward(nn.Module):
    """What `engine.predict` computes, as the one module that torch's exporter takes."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.model.features(images)
        return self.model.classify(features), features.mean(dim=(2, 3))


def _translated(model: Classifier) -> onnxruntime.InferenceSession | None:
    """The network for onnxruntime, for batches and pictures of any size; None if it cannot be translated."""
    file: Any = io.BytesIO()
    images = torch.zeros(1, 3, 2 * model.config.min_size, 2 * model.config.min_size)
    axes = {"images": {0: "n", 2: "height", 3: "width"}}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    try:
        with _EXPORTING, warnings.catch_warnings(), torch.inference_mode():
            # The exporter that needs no second package and takes a tenth of the time; its successor's advice is known.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _Forward(model).eval(), (images,), file, dynamo=False, input_names=["images"], dynamic_axes=axes
            )
        return onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    except _UNTRANSLATABLE:
        return None  # a network with an operation that ONNX does not know: torch serves it

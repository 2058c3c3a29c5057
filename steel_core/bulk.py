"""Plain forward passes by the thousand, as the audits need them: on the CPU by onnxruntime, twice as fast as torch.

Only logits come from here. Explanations need gradients and stay with torch, and so does a single verdict, which is
there before a network would be translated.
"""

from __future__ import annotations

import io
import threading
import warnings
from typing import Any

import onnxruntime
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidGraph
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as Unsupported
from torch import Tensor

from steel_core.explain import engine
from steel_core.models.base import Classifier

_EXPORTING = threading.Lock()  # torch exports one network at a time, and the filter of warnings is the process's
_UNTRANSLATABLE = (RuntimeError, Fail, InvalidGraph, Unsupported)  # an operation that one of the two does not know


class BulkForward:
    """Logits of many batches of one network; translated for onnxruntime when first asked, where that is possible.

    Safe under several threads. What the network computes is the same within float32's rounding.

    Args:
        model: a classifier in evaluation mode, on its device.
    """

    def __init__(self, model: Classifier) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._session: onnxruntime.InferenceSession | None = None
        self._tried = next(model.parameters()).device.type != "cpu"  # elsewhere torch is the fast one

    def __call__(self, inputs: Tensor) -> Tensor:
        """Logits (N, K), on the CPU, of normalised images (N, C, H, W)."""
        with self._lock:
            if not self._tried:
                self._session, self._tried = _translated(self._model), True
        if self._session is None:
            return engine.predict(self._model, inputs)[0].float().cpu()
        return torch.from_numpy(self._session.run(None, {"images": inputs.contiguous().numpy()})[0])


def _translated(model: Classifier) -> onnxruntime.InferenceSession | None:
    """The network for onnxruntime, for batches and pictures of any size; None if it cannot be translated."""
    file: Any = io.BytesIO()
    side = 2 * model.config.min_size
    axes = {"images": {0: "n", 2: "height", 3: "width"}}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        with _EXPORTING, warnings.catch_warnings(), torch.inference_mode():
            # The exporter that needs no second package and takes a tenth of the time; its successor's advice is known.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model, (torch.zeros(1, 3, side, side),), file, dynamo=False, input_names=["images"], dynamic_axes=axes
            )
        return onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    except _UNTRANSLATABLE:
        return None  # a network with an operation that ONNX does not know: torch serves it

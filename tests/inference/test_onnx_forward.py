"""The bulk forward pass gives torch's logits, for any size, from several threads, and where it cannot be translated."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from steel_core.explain import engine
from steel_core.inference.onnx_forward import BulkForward
from steel_core.models.base import BACKBONES
from steel_core.models.batch_norm import fold_for_inference


def network(name, classes=5):
    torch.manual_seed(0)
    model = BACKBONES[name](classes)
    torch.nn.init.normal_(model.head.weight, std=0.1)
    return fold_for_inference(model).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", BACKBONES)
def test_logits_are_torchs_for_any_size(name):
    model = network(name)
    bulk = BulkForward(model)
    for shape in ((3, 3, 96, 121), (1, 3, 64, 64), (9, 3, 64, 64)):
        images = torch.randn(*shape)
        for result, expected in zip(bulk(images), engine.predict(model, images), strict=True):
            torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert bulk._session is not None, "it was served by torch"


def test_threads_get_their_own_answers():
    model = network("squeezenet-reduced")
    bulk = BulkForward(model)
    batches = [torch.randn(2, 3, 64, 64) for _ in range(24)]
    with ThreadPoolExecutor(4) as pool:
        result = list(pool.map(bulk, batches))
    with torch.inference_mode():
        for images, (logits, _) in zip(batches, result, strict=True):
            torch.testing.assert_close(logits, model(images), rtol=1e-4, atol=1e-5)


def test_several_networks_are_translated_at_the_same_time():
    """torch's exporter is one for the whole process."""
    models = [network("small-cnn"), network("squeezenet-reduced"), network("resnet18"), network("squeezenet")]
    images = torch.randn(1, 3, 64, 64)
    with ThreadPoolExecutor(4) as pool:
        bulks = [BulkForward(model) for model in models]
        result = list(pool.map(lambda bulk: bulk(images), bulks))
    assert all(bulk._session is not None for bulk in bulks)
    with torch.inference_mode():
        for model, (logits, _) in zip(models, result, strict=True):
            torch.testing.assert_close(logits, model(images), rtol=1e-4, atol=1e-5)


def test_a_network_that_cannot_be_translated_is_served_by_torch(monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("no such operation")

    model = network("small-cnn")
    monkeypatch.setattr(torch.onnx, "export", refuse)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(BulkForward(model)(images)[0], model(images))

"""What is put in for training can be taken out again."""

import pytest
import torch
from torch import nn

from steel_core.models.base import BACKBONES
from steel_core.models.batch_norm import fold_batch_norm, fold_for_inference, insert_batch_norm

PLAIN = [name for name in BACKBONES if not BACKBONES[name].config.batch_norm]


def unlike_initial(model):
    """Running statistics and scales unlike those of a new network."""
    for _ in range(20):
        model.train()(torch.randn(4, 3, 64, 64) * 2 + 1)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias)


@pytest.mark.parametrize("name", PLAIN)
def test_folding_changes_nothing_but_the_structure(name):
    torch.manual_seed(0)
    model = BACKBONES[name](3)
    plain = {key: value.shape for key, value in model.state_dict().items()}
    insert_batch_norm(model.features)
    added = sum(isinstance(part, nn.BatchNorm2d) for part in model.modules())
    assert added >= sum(isinstance(part, nn.Conv2d) for part in model.features.modules()) > 0
    unlike_initial(model)
    inputs = torch.randn(2, 3, 64, 64)
    expected = model.eval()(inputs)
    fold_batch_norm(model)
    assert {key: value.shape for key, value in model.state_dict().items()} == plain
    torch.testing.assert_close(model(inputs), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", BACKBONES)
def test_a_network_with_normalisation_of_its_own_predicts_the_same_without(name):
    torch.manual_seed(0)
    model = BACKBONES[name](3)
    unlike_initial(model)
    kept = {key: value.clone() for key, value in model.eval().state_dict().items()}
    folded = fold_for_inference(model)
    inputs = torch.randn(2, 3, 64, 64)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
    expected = model(inputs).detach()
    torch.testing.assert_close(folded(inputs), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    assert all(torch.equal(value, kept[key]) for key, value in model.state_dict().items())

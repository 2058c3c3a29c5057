"""What is put in for training can be taken out again."""

import pytest
import torch
from torch import nn

from steel_core.models.base import BACKBONES
from steel_core.models.batch_norm import fold_batch_norm, insert_batch_norm


@pytest.mark.parametrize("name", BACKBONES)
def test_folding_changes_nothing_but_the_structure(name):
    torch.manual_seed(0)
    model = BACKBONES[name](3)
    plain = {key: value.shape for key, value in model.state_dict().items()}
    insert_batch_norm(model.features)
    added = sum(isinstance(part, nn.BatchNorm2d) for part in model.modules())
    assert added >= sum(isinstance(part, nn.Conv2d) for part in model.features.modules()) > 0
    for _ in range(20):  # running statistics and scales unlike their initial ones
        model.train()(torch.randn(4, 3, 64, 64) * 2 + 1)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias)
    inputs = torch.randn(2, 3, 64, 64)
    expected = model.eval()(inputs)
    fold_batch_norm(model)
    assert {key: value.shape for key, value in model.state_dict().items()} == plain
    torch.testing.assert_close(model(inputs), expected, rtol=1e-3, atol=1e-4)

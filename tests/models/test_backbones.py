"""Contract of every registered backbone."""

import pytest
import torch
from torch import nn

from steel_core.models.base import BACKBONES


@pytest.mark.parametrize("name", BACKBONES)
class TestBackbone:
    def test_logits_of_any_size(self, name):
        model = BACKBONES[name](5).eval()
        smallest = model.config.min_size
        for height, width in [(smallest, smallest), (64, 160), (200, 200)]:
            assert model(torch.randn(2, 3, height, width)).shape == (2, 5)

    def test_activations_are_not_in_place_and_used_once(self, name):
        model = BACKBONES[name](3).eval()
        calls = {}
        for part in model.modules():
            if isinstance(part, nn.ReLU):
                assert not part.inplace
                part.register_forward_hook(lambda m, *_: calls.__setitem__(m, calls.get(m, 0) + 1))
        model(torch.randn(1, 3, 64, 64))
        assert calls
        assert set(calls.values()) == {1}

    def test_linear_head_is_what_it_says(self, name):
        model = BACKBONES[name](3).eval()
        if not model.config.linear_head:
            pytest.skip("no linear head")
        kept = {}
        model.get_submodule(model.config.cam_layer).register_forward_hook(lambda _m, _i, out: kept.update(out=out))
        logits = model(torch.randn(2, 3, 96, 96))
        averaged = kept["out"].mean((2, 3), keepdim=True)
        torch.testing.assert_close(model.classify(averaged), logits)

    def test_logits_can_be_negative(self, name):
        torch.manual_seed(0)
        model = BACKBONES[name](40).eval()
        assert (model(torch.randn(4, 3, 64, 64)) < 0).any()

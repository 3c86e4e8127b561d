"""Batch norm folded into DETR's convolutions gives the answers of evaluation mode, and leaves the network alone."""

from __future__ import annotations

import pytest
import torch

from imagesmith.nn.detr import Detr

SIZES = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}


def random_detr(layer_type, batch_norm):
    torch.manual_seed(0)
    backbone = {
        "layer_type": layer_type,
        "embedding_size": 8,
        "hidden_sizes": [16, 32],
        "depths": [2, 1],
        "batch_norm": batch_norm,
    }
    detr = Detr.from_config({"num_queries": 5, "num_labels": 3, "backbone_config": backbone, **SIZES}).eval()
    for name, value in detr.backbone.state_dict().items():
        if "norm" in name and value.is_floating_point():
            value.copy_(torch.rand_like(value) + 0.3 if name.endswith(("var", "weight")) else torch.randn_like(value))
    return detr


@pytest.mark.parametrize("layer_type", ["basic", "bottleneck"])
@pytest.mark.parametrize("batch_norm", ["frozen", "live"])
def test_folded_norms_give_the_same_answers(layer_type, batch_norm):
    detr = random_detr(layer_type, batch_norm)
    image = torch.randn(2, 3, 64, 96)
    before = {name: value.clone() for name, value in detr.state_dict().items()}
    folded = detr.for_inference()
    names = {type(part).__name__ for part in folded.backbone.modules()}
    assert not names & {"BatchNorm2d", "FrozenBatchNorm2d"}
    with torch.no_grad():
        features, expected = folded.backbone(image), detr.backbone(image)
        assert (features - expected).abs().max() < 1e-5 * expected.abs().max()
        assert (folded(image)["logits"] - detr(image)["logits"]).abs().max() < 1e-4
    assert all(torch.equal(value, before[name]) for name, value in detr.state_dict().items())
    assert not any(parameter.requires_grad for parameter in folded.parameters())


def test_folding_twice_changes_nothing():
    folded = random_detr("basic", "live").for_inference()
    again = folded.for_inference()
    image = torch.randn(1, 3, 64, 64)
    assert torch.equal(folded(image)["logits"], again(image)["logits"])

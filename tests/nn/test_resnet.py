"""ResNet against transformers' ResNet on the same weights, and the rules of its configuration."""

from __future__ import annotations

import pytest
import torch

from imagesmith.models.keymap import native_state
from imagesmith.nn.resnet import KNOWN_BACKBONES, FrozenBatchNorm2d, ResNet, ResNetConfig


def _native_from_transformers(peer: torch.nn.Module, config: ResNetConfig) -> ResNet:
    prefix = "model.backbone.model."
    state = native_state("detr", {prefix + name: value for name, value in peer.state_dict().items()})
    native = ResNet(config)
    stripped = {name.removeprefix("backbone."): value for name, value in state.items()}
    kept = {name: value for name, value in stripped.items() if name in native.state_dict()}
    native.load_state_dict(kept, strict=True)
    return native.eval()


def _shake(module: torch.nn.Module) -> None:
    """Give batch norms statistics that are not zero and one, so that a mistake in them shows."""
    for part in module.modules():
        if hasattr(part, "running_var"):
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.5, 1.5)
            part.weight.data.uniform_(0.5, 1.5)
            part.bias.data.normal_(0, 0.2)


@pytest.mark.parametrize("layer_type", ["basic", "bottleneck"])
@pytest.mark.parametrize("in_bottleneck", [False, True])
@pytest.mark.parametrize("in_first_stage", [False, True])
def test_features_equal_those_of_transformers(layer_type: str, in_bottleneck: bool, in_first_stage: bool) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    given = {
        "embedding_size": 8, "hidden_sizes": [16, 24, 32], "depths": [2, 1, 2], "layer_type": layer_type,
        "downsample_in_bottleneck": in_bottleneck, "downsample_in_first_stage": in_first_stage,
    }  # fmt: skip
    peer = transformers.ResNetModel(transformers.ResNetConfig(**given)).eval()
    _shake(peer)
    native = _native_from_transformers(peer, ResNetConfig.from_dict(given))
    pixels = torch.randn(2, 3, 65, 50)
    with torch.no_grad():
        expected = peer(pixels).last_hidden_state
        assert torch.allclose(native(pixels), expected, atol=1e-4, rtol=1e-4)
        # Control: the statistics matter, so a norm that ignored them would fail above.
        native.stem_norm.running_mean += 0.5
        assert not torch.allclose(native(pixels), expected, atol=1e-3)


@pytest.mark.parametrize(("name", "channels"), [("resnet18", 512), ("resnet50", 2048)])
def test_known_backbones_have_the_published_parameter_count(name: str, channels: int) -> None:
    config = ResNetConfig.from_name(name)
    with torch.device("meta"):
        network = ResNet(config)
    assert network.out_channels == channels
    convolutions = sum(p.numel() for n, p in network.named_parameters() if n.endswith("weight") and p.dim() == 4)
    # torchvision's totals without the classifier and the norms.
    assert convolutions == {"resnet18": 11_166_912, "resnet50": 23_454_912}[name]
    assert set(KNOWN_BACKBONES) == {"resnet18", "resnet34", "resnet50", "resnet101"}


def test_a_dilated_last_stage_keeps_the_resolution_and_the_weights() -> None:
    config = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2], "layer_type": "basic"}
    plain = ResNet(ResNetConfig.from_dict(config))
    dilated = ResNet(ResNetConfig.from_dict(config, dilated_last_stage=True))
    dilated.load_state_dict(plain.state_dict())
    pixels = torch.randn(1, 3, 64, 64)
    assert plain(pixels).shape[-2:] == (8, 8)
    assert dilated(pixels).shape[-2:] == (16, 16)


def test_frozen_norm_has_no_parameters_and_equals_the_live_one_when_that_rests() -> None:
    frozen, live = FrozenBatchNorm2d(5), torch.nn.BatchNorm2d(5).eval()
    _shake(live)
    frozen.load_state_dict({name: value for name, value in live.state_dict().items() if "tracked" not in name})
    x = torch.randn(2, 5, 4, 4)
    assert not list(frozen.parameters())
    assert torch.equal(frozen(x), live(x))
    before = frozen.running_mean.clone()
    frozen.train()(x)
    assert torch.equal(frozen.running_mean, before)


def test_live_norm_learns_its_statistics() -> None:
    small = {"embedding_size": 8, "hidden_sizes": [8], "depths": [1], "layer_type": "basic", "batch_norm": "live"}
    network = ResNet(ResNetConfig.from_dict(small)).train()
    before = network.stem_norm.running_mean.clone()
    network(torch.randn(4, 3, 32, 32))
    assert not torch.equal(network.stem_norm.running_mean, before)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "swin"}, "ResNet backbone"),
        ({"hidden_act": "gelu"}, "relu"),
        ({"depths": [1], "hidden_sizes": [8, 16]}, "one width per stage"),
        ({"layer_type": "other"}, "layer_type"),
        ({"batch_norm": "warm"}, "batch_norm"),
        ({"out_features": ["stage9"]}, "out_features"),
        ({"model_type": "timm_backbone", "backbone": "convnext_tiny"}, "convnext_tiny"),
    ],
)
def test_configurations_that_cannot_be_built_are_refused(config: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResNetConfig.from_dict(config)


def test_stages_beyond_the_wanted_features_are_not_built() -> None:
    config = {"embedding_size": 8, "hidden_sizes": [8, 16, 32], "depths": [1, 1, 1], "layer_type": "basic"}
    assert ResNetConfig.from_dict({**config, "out_features": ["stage2"]}).hidden_sizes == (8, 16)
    assert ResNetConfig.from_dict({**config, "out_indices": [2]}).hidden_sizes == (8, 16)
    assert ResNetConfig.from_dict(config).hidden_sizes == (8, 16, 32)

"""DETR against transformers on the same random weights, published key names, configs of all three generations."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from imagesmith.models.keymap import KEYMAPS, native_state
from imagesmith.nn.detr import Detr, DetrConfig, SinePositions, sine_positions

TINY_BACKBONE = {
    "model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16, 24], "depths": [1, 1, 2],
    "layer_type": "basic", "out_features": ["stage3"],
}  # fmt: skip
TINY = {
    "model_type": "detr", "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 40, "encoder_attention_heads": 4, "decoder_attention_heads": 2, "num_queries": 7,
    "id2label": {"0": "a", "1": "b", "2": "c"}, "backbone_config": TINY_BACKBONE,
}  # fmt: skip


def _pair(config: dict[str, Any]) -> tuple[torch.nn.Module, Detr]:
    """Build transformers' DETR and ours with the same random weights, both in evaluation mode."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    given = {**config, "backbone_config": transformers.ResNetConfig(**config["backbone_config"])}
    given["id2label"] = {int(key): name for key, name in config["id2label"].items()}
    peer = transformers.DetrForObjectDetection(transformers.DetrConfig(**given)).eval()
    for name, tensor in peer.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.7, 1.3)
        elif "normalization" in name or name.endswith("bias"):
            tensor.add_(0.1 * torch.randn_like(tensor))
    native = Detr.from_config(config).eval()
    native.load_state_dict(native_state("detr", peer.state_dict()), strict=True)
    for parameter in peer.parameters():
        parameter.requires_grad_(True)  # transformers freezes the backbone; its gradients are compared too
    return peer, native


def _padding_mask(pixels: torch.Tensor) -> torch.Tensor:
    mask = torch.ones(pixels.shape[0], *pixels.shape[-2:], dtype=torch.int64)
    mask[0, pixels.shape[-2] * 2 // 3 :] = 0
    mask[-1, :, pixels.shape[-1] // 2 :] = 0
    return mask


def _assert_parity(peer: torch.nn.Module, native: Detr, pixels: torch.Tensor, mask: torch.Tensor | None) -> None:
    with torch.no_grad():
        expected, found = peer(pixels, pixel_mask=mask), native(pixels, mask)
    assert (found["logits"] - expected.logits).abs().max() < 1e-4
    assert (found["pred_boxes"] - expected.pred_boxes).abs().max() < 1e-4
    # Gradients in double precision: in single, a rectifier that flips by rounding moves them more than 1e-4.
    peer, native, pixels = peer.double(), native.double(), pixels.double()
    expected, found = peer(pixels, pixel_mask=mask), native(pixels, mask)
    weights = torch.randn(expected.logits.shape).double(), torch.randn(expected.pred_boxes.shape).double()
    (expected.logits * weights[0]).sum().add((expected.pred_boxes * weights[1]).sum()).backward()
    (found["logits"] * weights[0]).sum().add((found["pred_boxes"] * weights[1]).sum()).backward()
    wanted = native_state("detr", {n: p.grad for n, p in peer.named_parameters() if p.grad is not None})
    compared = 0
    for name, parameter in native.named_parameters():
        largest = wanted[name].abs().max()
        assert (parameter.grad - wanted[name]).abs().max() <= 1e-4 * largest + 1e-7, name
        compared += 1
    assert compared == len(list(native.parameters()))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("layer_type", ["basic", "bottleneck"])
def test_logits_boxes_and_gradients_equal_those_of_transformers(masked: bool, layer_type: str) -> None:
    peer, native = _pair({**TINY, "backbone_config": {**TINY_BACKBONE, "layer_type": layer_type}})
    pixels = torch.randn(2, 3, 70, 90)
    _assert_parity(peer, native, pixels, _padding_mask(pixels) if masked else None)


def test_learned_positions_equal_those_of_transformers() -> None:
    peer, native = _pair({**TINY, "position_embedding_type": "learned"})
    pixels = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert (native(pixels)["logits"] - peer(pixels).logits).abs().max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("masked", [False, True])
def test_full_size_resnet_50_equals_transformers(masked: bool) -> None:
    backbone = {"model_type": "resnet", "out_features": ["stage4"]}
    labels = {str(i): f"label {i}" for i in range(91)}
    peer, native = _pair({"model_type": "detr", "id2label": labels, "backbone_config": backbone})
    assert sum(p.numel() for p in peer.parameters()) == sum(p.numel() for p in native.parameters())
    pixels = torch.randn(2, 3, 128, 128)
    _assert_parity(peer, native, pixels, _padding_mask(pixels) if masked else None)


def test_a_full_mask_changes_nothing_and_a_real_one_does() -> None:
    native = Detr.from_config(TINY).eval()
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        plain = native(pixels)["logits"]
        assert torch.equal(native(pixels, torch.ones(2, 64, 64))["logits"], plain)
        assert not torch.allclose(native(pixels, _padding_mask(pixels))["logits"], plain, atol=1e-5)


def test_padding_hardly_changes_a_prediction() -> None:
    """The same image alone and padded in a batch: only the convolutions' edge may differ."""
    native = Detr.from_config(TINY).eval()
    image = torch.randn(1, 3, 64, 64)
    padded, mask = torch.zeros(1, 3, 64, 128), torch.zeros(1, 64, 128)
    padded[..., :64], mask[..., :64] = image, 1
    with torch.no_grad():
        alone = native(image)["pred_boxes"]
        masked, ignored = native(padded, mask)["pred_boxes"], native(padded)["pred_boxes"]
    assert (masked - alone).abs().mean() < (ignored - alone).abs().mean()


# --- names of weights -------------------------------------------------------------------------------------------


def test_every_published_style_maps_to_our_names_and_back() -> None:
    native = Detr.from_config(TINY | {"backbone_config": TINY_BACKBONE | {"layer_type": "bottleneck"}})
    ours = set(native.state_dict())
    for style in KEYMAPS["detr"][:2]:
        published = {style.from_native(name) or name for name in ours}
        assert len(published) == len(ours)
        assert set(native_state("detr", dict.fromkeys(published, 0))) == ours


def test_keys_of_the_timm_generation_are_those_of_the_hub() -> None:
    timm = KEYMAPS["detr"][1]
    expected = {
        "backbone.stem_conv.weight": "model.backbone.conv_encoder.model.conv1.weight",
        "backbone.stem_norm.running_var": "model.backbone.conv_encoder.model.bn1.running_var",
        "backbone.stages.2.5.convs.1.weight": "model.backbone.conv_encoder.model.layer3.5.conv2.weight",
        "backbone.stages.0.0.shortcut_norm.bias": "model.backbone.conv_encoder.model.layer1.0.downsample.1.bias",
        "encoder.4.self_attn.o_proj.bias": "model.encoder.layers.4.self_attn.out_proj.bias",
        "encoder.0.mlp.fc1.weight": "model.encoder.layers.0.fc1.weight",
        "decoder.layers.5.encoder_attn.q_proj.weight": "model.decoder.layers.5.encoder_attn.q_proj.weight",
        "decoder.layers.5.final_layer_norm.weight": "model.decoder.layers.5.final_layer_norm.weight",
        "query_position_embeddings.weight": "model.query_position_embeddings.weight",
    }
    for ours, theirs in expected.items():
        assert timm.from_native(ours) == theirs
        assert timm.to_native(theirs) == ours
    assert timm.from_native("class_labels_classifier.bias") is None  # the same in both


def test_transformers_opens_what_we_write_and_the_other_way_round(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    safetensors = pytest.importorskip("safetensors.torch")
    peer, native = _pair(TINY)
    peer.save_pretrained(tmp_path / "theirs")
    theirs = safetensors.load_file(tmp_path / "theirs" / "model.safetensors")
    native.load_state_dict(native_state("detr", theirs), strict=True)
    config = json.loads((tmp_path / "theirs" / "config.json").read_text(encoding="utf-8"))
    assert DetrConfig.from_dict(config) == native.config
    ours = {KEYMAPS["detr"][0].from_native(name) or name: value for name, value in native.state_dict().items()}
    assert set(ours) == set(theirs)
    (tmp_path / "ours").mkdir()
    safetensors.save_file(ours, tmp_path / "ours" / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "ours" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    opened = transformers.DetrForObjectDetection.from_pretrained(tmp_path / "ours").eval()
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(opened(pixels).logits, native(pixels)["logits"], atol=1e-4)


# --- configurations -----------------------------------------------------------------------------------------------

OLDEST = {"model_type": "detr", "backbone": "resnet50", "dilation": False, "num_queries": 100, "id2label": {"0": "x"}}
TIMM = {**OLDEST, "use_timm_backbone": True, "backbone_config": None, "use_pretrained_backbone": True}
SAVED = {
    "model_type": "detr", "backbone": None, "use_timm_backbone": False, "dilation": None, "id2label": {"0": "x"},
    "backbone_config": {
        "model_type": "resnet", "depths": [3, 4, 6, 3], "hidden_sizes": [256, 512, 1024, 2048],
        "embedding_size": 64, "layer_type": "bottleneck", "out_features": ["stage4"], "out_indices": [4],
    },
}  # fmt: skip
FIVE = {
    "model_type": "detr", "id2label": {"0": "x"},
    "backbone_config": {"model_type": "timm_backbone", "backbone": "resnet50", "out_indices": [1, 2, 3, 4]},
}  # fmt: skip


@pytest.mark.parametrize("config", [OLDEST, TIMM, SAVED, FIVE], ids=["oldest", "timm", "saved", "transformers 5"])
def test_all_generations_of_configs_describe_one_model(config: dict[str, Any]) -> None:
    assert DetrConfig.from_dict(config) == DetrConfig(num_labels=1)


def test_dc5_and_resnet_101_are_read() -> None:
    config = DetrConfig.from_dict({**OLDEST, "backbone": "resnet101", "dilation": True})
    assert config.backbone.depths == (3, 4, 23, 3)
    assert config.backbone.dilated_last_stage


@pytest.mark.parametrize("generation", ["oldest", "timm", "saved"])
def test_the_published_configs_build(generation: str) -> None:
    root = os.environ.get("IMAGESMITH_DATA")
    if not root:
        pytest.skip("IMAGESMITH_DATA is not set: the published configs are not here")
    path = Path(root) / "fixtures" / "configs" / f"detr-resnet-50-{generation}" / "config.json"
    with torch.device("meta"):
        model = Detr.from_config(json.loads(path.read_text(encoding="utf-8")))
    assert model.class_labels_classifier.out_features == 92
    assert model.config.num_queries == 100
    assert model.backbone.out_channels == 2048


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d_model": 30}, "d_model"),
        ({"activation_function": "swish"}, "activation_function"),
        ({"position_embedding_type": "random"}, "position_embedding_type"),
        ({"num_queries": 0}, "at least 1"),
        ({"backbone_config": None, "backbone": "vgg16"}, "vgg16"),
    ],
)
def test_configs_that_cannot_be_built_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DetrConfig.from_dict({**TINY, **change})


# --- positions, levels, groups, export ----------------------------------------------------------------------------


def test_positions_are_remembered_by_shape_and_equal_the_computed_ones() -> None:
    positions = SinePositions(16)
    first = positions(torch.zeros(2, 5, 4, 6), None)
    assert first.shape == (1, 24, 16)
    assert positions(torch.zeros(1, 5, 4, 6), None) is first
    assert torch.equal(first, sine_positions(torch.ones(1, 4, 6), 16))
    for width in range(40):  # a stream of sizes must not fill the memory
        positions(torch.zeros(1, 1, 2, 7 + width), None)
    assert len(positions._cache) <= 16


def test_all_levels_are_given_for_training_and_end_in_the_prediction() -> None:
    detr = Detr.from_config(TINY).eval()
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        outputs, plain = detr(pixels, all_levels=True), detr(pixels)
    assert outputs["level_logits"].shape == (2, 2, 7, 4)
    assert outputs["memory"].shape == (2, 16, 32)
    assert torch.allclose(outputs["level_boxes"][-1], plain["pred_boxes"], atol=1e-6)
    assert torch.allclose(outputs["logits"], plain["logits"], atol=1e-6)


def test_query_groups_do_not_see_each_other_and_exist_in_training_only() -> None:
    torch.manual_seed(0)
    detr = Detr.from_config({**TINY, "query_groups": 3, "dropout": 0.0}).train()
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = detr(pixels, all_levels=True)["level_logits"]
        assert before.shape == (2, 1, 21, 4)
        detr.query_position_embeddings.weight[7:14] += 1
        after = detr(pixels, all_levels=True)["level_logits"]
        assert torch.allclose(before[:, :, :7], after[:, :, :7], atol=1e-5)
        assert torch.allclose(before[:, :, 14:], after[:, :, 14:], atol=1e-5)
        assert not torch.allclose(before[:, :, 7:14], after[:, :, 7:14], atol=1e-3)
        assert detr.eval()(pixels)["logits"].shape == (1, 7, 4)
        single = Detr.from_config({**TINY, "dropout": 0.0}).eval()
        state = detr.state_dict()
        state["query_position_embeddings.weight"] = state["query_position_embeddings.weight"][:7]
        single.load_state_dict(state)
        assert torch.equal(single(pixels)["logits"], detr(pixels)["logits"])


def test_dropout_is_live_in_training_only() -> None:
    detr = Detr.from_config({**TINY, "dropout": 0.5})
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert not torch.equal(detr.train()(pixels)["logits"], detr(pixels)["logits"])
        assert torch.equal(detr.eval()(pixels)["logits"], detr(pixels)["logits"])


@pytest.mark.filterwarnings("ignore")
def test_exports_to_onnx_with_dynamic_batch_and_size(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    detr = Detr.from_config(TINY).eval()

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.detr = detr

        def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            found = self.detr(pixel_values)
            return found["logits"], found["pred_boxes"]

    detr(torch.zeros(1, 3, 64, 96))  # a remembered encoding must not become a constant of the graph
    path = tmp_path / "detr.onnx"
    axes = {0: "batch", 2: "height", 3: "width"}
    torch.onnx.export(
        Wrapped().eval(), (torch.randn(1, 3, 64, 96),), str(path), opset_version=17, dynamo=False,
        input_names=["pixel_values"], output_names=["logits", "pred_boxes"],
        dynamic_axes={"pixel_values": axes, "logits": {0: "batch"}, "pred_boxes": {0: "batch"}},
    )  # fmt: skip
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for size in ((1, 3, 64, 96), (3, 3, 70, 50)):
        pixels = torch.randn(size)
        logits, boxes = session.run(None, {"pixel_values": pixels.numpy()})
        with torch.no_grad():
            expected = detr(pixels)
        assert abs(logits - expected["logits"].numpy()).max() < 1e-4
        assert abs(boxes - expected["pred_boxes"].numpy()).max() < 1e-4

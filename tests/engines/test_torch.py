"""The torch engine: the module's own answers, weights mapped once, any precision, and clear refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from imagesmith.core.errors import BadWeights, EngineFailed  # noqa: E402
from imagesmith.core.specs import ModelSpec  # noqa: E402
from imagesmith.engines.general import mask_logits, single_label_logits  # noqa: E402
from imagesmith.engines.torch import build_native, builder, open_torch  # noqa: E402

SEGFORMER = {
    "hidden_sizes": [8, 16, 24, 32],
    "num_attention_heads": [1, 2, 3, 4],
    "depths": [1, 1, 1, 1],
    "decoder_hidden_size": 16,
    "num_labels": 5,
}
VIT = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_labels": 3,
}
DETR = {
    "num_queries": 4,
    "num_labels": 3,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "backbone_config": {"layer_type": "basic", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
}
NETWORKS = {"segformer": ("segment", SEGFORMER), "vit": ("classify", VIT), "detr": ("detect", DETR)}


def make_model(architecture, folder, dtype=torch.float32, seed=0):
    """Return a spec, a weights file and the random module they came from, its statistics no longer trivial."""
    task, config = NETWORKS[architecture]
    torch.manual_seed(seed)
    module = builder(architecture).from_config(config)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) + 0.5 if "var" in name else value + 0.05 * torch.randn_like(value))
                value.copy_(value.to(dtype))
    weights = folder / f"{architecture}.safetensors"
    save_file({name: value.to(dtype).contiguous() for name, value in module.state_dict().items()}, weights)
    spec = ModelSpec(name=architecture, task=task, architecture=architecture, source=f"folder:{folder}", config=config)
    return spec, weights, module.eval()


def photographs(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("architecture", NETWORKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_answers_are_the_modules_own(architecture, dtype, tmp_path):
    spec, weights, module = make_model(architecture, tmp_path, dtype)
    engine = open_torch(spec, weights)
    images = photographs(2, 3, 64, 96)
    found = engine.run({"pixel_values": images})
    with torch.no_grad():
        expected = module(torch.from_numpy(images))
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], value.numpy(), atol=2e-5)
    engine.close()
    with pytest.raises(EngineFailed, match="closed"):
        engine.run({"pixel_values": images})


@pytest.mark.parametrize("architecture", NETWORKS)
def test_bf16_is_near_and_not_equal(architecture, tmp_path):
    spec, weights, _ = make_model(architecture, tmp_path)
    images = {"pixel_values": photographs(2, 3, 64, 64)}
    exact = open_torch(spec, weights).run(images)["logits"]
    rounded = open_torch(spec, weights, precision="bf16").run(images)["logits"]
    error = np.abs(exact - rounded).max() / np.abs(exact).max()
    assert 0 < error < 0.05


def test_a_mask_reaches_only_the_network_that_takes_one(tmp_path):
    spec, weights, module = make_model("detr", tmp_path)
    images, mask = photographs(2, 3, 64, 64), np.ones((2, 64, 64), np.float32)
    mask[1, :, 40:] = 0
    found = open_torch(spec, weights).run({"pixel_values": images, "pixel_mask": mask})["pred_boxes"]
    with torch.no_grad():
        expected = module(torch.from_numpy(images), torch.from_numpy(mask))["pred_boxes"]
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-5)
    spec, weights, _ = make_model("vit", tmp_path)
    assert open_torch(spec, weights).run({"pixel_values": images, "pixel_mask": mask})["logits"].shape == (2, 3)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux lists the files a process has mapped")
@pytest.mark.parametrize("architecture", NETWORKS)
def test_parameters_are_the_mapped_file(architecture, tmp_path):
    spec, weights, _ = make_model(architecture, tmp_path)
    module = build_native(spec, weights)
    assert not any(tensor.is_meta for tensor in [*module.parameters(), *module.buffers()])
    name = next(name for name, value in module.named_parameters() if value.dim() > 1)
    marked = dict(module.named_parameters())[name]
    from imagesmith.models.checkpoint import open_safetensors

    np.testing.assert_array_equal(marked.detach().numpy(), open_safetensors(weights)[name])
    assert str(weights) in Path("/proc/self/maps").read_text()


def test_published_names_load(tmp_path):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.ViTForImageClassification(transformers.ViTConfig(**VIT)).eval()
    theirs.save_pretrained(tmp_path)
    spec = ModelSpec(name="x", task="classify", architecture="vit", source="folder:x", config=VIT)
    images = photographs(1, 3, 32, 32)
    found = open_torch(spec, tmp_path / "model.safetensors").run({"pixel_values": images})["logits"]
    np.testing.assert_allclose(found, theirs(torch.from_numpy(images)).logits.detach().numpy(), atol=1e-5)


def test_weights_of_another_network_are_named(tmp_path):
    spec, weights, _ = make_model("vit", tmp_path)
    wider = spec.model_copy(update={"config": {**VIT, "hidden_size": 32}})
    with pytest.raises(BadWeights, match="of another shape"):
        open_torch(wider, weights)
    other = spec.model_copy(update={"architecture": "segformer", "config": SEGFORMER})
    with pytest.raises(BadWeights, match="missing"):
        open_torch(other, weights)
    broken = spec.model_copy(update={"config": {**VIT, "num_attention_heads": 3}})
    with pytest.raises(BadWeights, match="multiple"):
        open_torch(broken, weights)


def test_failures_are_one_sentence(tmp_path):
    spec, weights, _ = make_model("vit", tmp_path)
    with pytest.raises(EngineFailed, match="no device"):
        open_torch(spec, weights, device="cuda:77")
    with pytest.raises(EngineFailed, match="could not run") as caught:
        open_torch(spec, weights).run({"pixel_values": photographs(1, 4, 32, 32)})
    assert "\n" not in str(caught.value)


def save_general(folder, module, **extra):
    module.save_pretrained(folder)
    if extra:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **extra}))
    return folder / "model.safetensors"


def general_spec(task):
    return ModelSpec(name="other/net", task=task, architecture="transformers", source="folder:x", labels=("a", "b"))


def test_general_classifier(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    theirs = transformers.ResNetForImageClassification(config).eval()
    evil = {"auto_map": {"AutoModelForImageClassification": "evil.Net"}, "_attn_implementation_internal": "evil/code"}
    weights = save_general(tmp_path, theirs, **evil)
    canary = tmp_path / "canary"
    (tmp_path / "evil.py").write_text(f"open({str(canary)!r}, 'w')")
    images = photographs(2, 3, 32, 32)
    found = open_torch(general_spec("classify"), weights).run({"pixel_values": images})["logits"]
    np.testing.assert_allclose(found, theirs(torch.from_numpy(images)).logits.detach().numpy(), atol=1e-5)
    assert not canary.exists()
    with pytest.raises(BadWeights, match="cannot segment"):
        open_torch(general_spec("segment"), weights)


def test_general_weights_must_be_complete_and_known(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    (tmp_path / "body").mkdir()
    weights = save_general(tmp_path / "body", transformers.ResNetModel(config))
    with pytest.raises(BadWeights, match="lack"):
        open_torch(general_spec("classify"), weights)
    (tmp_path / "body" / "config.json").write_text('{"model_type": "no-such-network"}')
    with pytest.raises(BadWeights, match="cannot load"):
        open_torch(general_spec("classify"), weights)
    weights.write_bytes(b"\x80\x04evil.")
    with pytest.raises(BadWeights, match="can run code"):
        open_torch(general_spec("classify"), weights)


def test_sigmoid_detectors_keep_their_best_probability():
    logits = torch.randn(2, 5, 7) * 3
    probabilities = single_label_logits(logits).softmax(-1)
    best, label = logits.sigmoid().max(-1)
    torch.testing.assert_close(probabilities[..., :-1].max(-1).values, best)
    assert torch.equal(probabilities[..., :-1].argmax(-1), label)


def test_mask_classification_joins_into_pixels():
    classes, masks = torch.randn(2, 6, 4), torch.randn(2, 6, 5, 8)
    logits = mask_logits(classes, masks)
    expected = torch.zeros(2, 3, 5, 8)
    for query in range(6):
        share = classes[:, query].softmax(-1)[:, :3, None, None]
        expected += share * masks[:, query].sigmoid()[:, None]
    torch.testing.assert_close(logits.exp(), expected)


def test_general_segmenter_equals_the_native_one(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(**SEGFORMER)
    theirs = transformers.SegformerForSemanticSegmentation(config).eval()
    weights = save_general(tmp_path, theirs)
    images = {"pixel_values": photographs(2, 3, 64, 96)}
    native = ModelSpec(name="x", task="segment", architecture="segformer", source="folder:x", config=SEGFORMER)
    expected = open_torch(native, weights).run(images)["logits"]
    found = open_torch(general_spec("segment"), weights).run(images)["logits"]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_general_detector(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.YolosConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=[32, 32],
        num_detection_tokens=5, num_labels=3,
    )  # fmt: skip
    weights = save_general(tmp_path, transformers.YolosForObjectDetection(config).eval())
    found = open_torch(general_spec("detect"), weights).run({"pixel_values": photographs(2, 3, 32, 32)})
    assert found["logits"].shape == (2, 5, 4)
    assert found["pred_boxes"].shape == (2, 5, 4)


def test_general_mask_classifier(tmp_path):
    transformers = pytest.importorskip("transformers")
    backbone = transformers.SwinConfig(
        embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=4, image_size=64,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = transformers.Mask2FormerConfig(
        backbone_config=backbone, hidden_dim=32, feature_size=32, mask_feature_size=32, num_queries=6,
        decoder_layers=2, encoder_layers=1, num_attention_heads=2, encoder_feedforward_dim=32, dim_feedforward=32,
        num_labels=4,
    )  # fmt: skip
    weights = save_general(tmp_path, transformers.Mask2FormerForUniversalSegmentation(config).eval())
    found = open_torch(general_spec("segment"), weights).run({"pixel_values": photographs(1, 3, 64, 64)})["logits"]
    assert found.shape[:2] == (1, 4)
    assert np.isfinite(found).all()

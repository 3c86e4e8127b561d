"""ViT against transformers on the same random weights, and its own behaviour at other sizes."""

from __future__ import annotations

import pytest
import torch

from imagesmith.models.keymap import to_native
from imagesmith.nn.vit import ViT, ViTConfig

TINY = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "id2label": {"0": "a", "1": "b", "2": "c"},
}
BASE = {"id2label": {str(index): str(index) for index in range(10)}}


def reference_pair(config, seed=0):
    """Return transformers' module and ours with the same random weights, both in evaluation mode."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(seed)
    kwargs = {**config, "id2label": {int(k): v for k, v in config["id2label"].items()}}
    kwargs["label2id"] = {v: k for k, v in kwargs["id2label"].items()}
    theirs = transformers.ViTForImageClassification(transformers.ViTConfig(**kwargs)).eval()
    with torch.no_grad():  # random biases and norms, so that a forgotten one shows
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    ours = ViT.from_config(config).eval()
    ours.load_state_dict({to_native("vit", name): value for name, value in theirs.state_dict().items()})
    return theirs, ours


def assert_parity(theirs, ours, height, width, interpolate):
    images = torch.randn(2, 3, height, width)
    expected = theirs(images, interpolate_pos_encoding=interpolate).logits
    found = ours(images)["logits"]
    assert (found - expected).abs().max() < 1e-4
    target = torch.randn_like(expected)
    (expected * target).sum().backward()
    (found * target).sum().backward()
    gradients = {to_native("vit", name): value.grad for name, value in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        reference = gradients[name]
        # Relative to the tensor's largest; a floor for gradients that are zero in exact arithmetic (key biases).
        bound = 1e-4 * reference.abs().max().clamp(min=1e-3)
        assert (parameter.grad - reference).abs().max() <= bound, name


@pytest.mark.parametrize(("height", "width", "interpolate"), [(32, 32, False), (48, 24, True)])
def test_logits_and_gradients_equal_transformers(height, width, interpolate):
    theirs, ours = reference_pair(TINY)
    assert_parity(theirs, ours, height, width, interpolate)


def test_parity_notices_a_wrong_weight():
    theirs, ours = reference_pair(TINY)
    with torch.no_grad():
        ours.vit.encoder.layer[1].attention.attention.value.bias += 0.05
    with pytest.raises(AssertionError):
        assert_parity(theirs, ours, 32, 32, False)


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width", "interpolate"), [(224, 224, False), (128, 128, True)])
def test_vit_base_equals_transformers(height, width, interpolate):
    theirs, ours = reference_pair(BASE)
    assert_parity(theirs, ours, height, width, interpolate)


def test_inference_copy_shares_weights_and_keeps_tables():
    module = ViT.from_config(TINY)
    frozen = module.for_inference()
    weight = module.vit.encoder.layer[0].intermediate.dense.weight
    assert frozen.vit.encoder.layer[0].intermediate.dense.weight.data_ptr() == weight.data_ptr()
    assert weight.requires_grad
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    image = torch.randn(1, 3, 40, 32)
    assert torch.equal(frozen(image)["logits"], module.eval()(image)["logits"])
    table = frozen.vit.embeddings.tables[5, 4]
    frozen(image)
    assert frozen.vit.embeddings.tables[5, 4] is table
    assert module.vit.embeddings.tables is None


def test_position_table_follows_the_weights_while_training():
    module = ViT.from_config(TINY).eval()
    image = torch.randn(1, 3, 40, 32)
    before = module(image)["logits"]
    with torch.no_grad():
        module.vit.embeddings.position_embeddings.normal_()
    assert not torch.equal(before, module(image)["logits"])


def test_drop_path_is_silent_in_evaluation_and_keeps_the_mean_in_training():
    module = ViT.from_config({**TINY, "drop_path_rate": 0.5})
    layer = module.vit.encoder.layer[1]
    branch = torch.ones(20_000, 1, 1)
    assert torch.equal(layer.eval()._drop(branch), branch)
    torch.manual_seed(0)
    dropped = layer.train()._drop(branch)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert abs(float(dropped.mean()) - 1) < 0.05


def test_bfloat16_attention_is_the_same_attention():
    torch.manual_seed(0)
    module = ViT.from_config(TINY).eval()
    attention = module.vit.encoder.layer[0].attention.attention
    tokens = torch.randn(2, 17, 24)
    exact = attention(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = attention(tokens)
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - exact).abs().max() < 0.02 * exact.abs().max()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_attention_heads": 5}, "multiple"),
        ({"hidden_act": "swish"}, "activation"),
        ({"image_size": 4}, "patch"),
    ],
)
def test_impossible_configurations_are_named(change, words):
    with pytest.raises(ValueError, match=words):
        ViT.from_config({**TINY, **change})


def test_sizes_may_be_pairs_and_labels_counted():
    config = ViTConfig.from_dict({"image_size": [32, 64], "patch_size": [8, 16], "id2label": {"0": "x"}})
    assert config.grid_hw == (4, 4)
    assert config.num_labels == 1

"""Key maps: both directions agree, and every name of the reference library lands on one of ours."""

from __future__ import annotations

import pytest

from imagesmith.core.errors import BadWeights
from imagesmith.models.keymap import KEYMAPS, KeyMap, compare_keys, native_state, to_native

TINY = {
    "vit": {"image_size": 16, "patch_size": 8, "hidden_size": 8, "num_hidden_layers": 11, "num_attention_heads": 2,
            "intermediate_size": 8},
    "segformer": {"hidden_sizes": [8, 8, 8, 8], "num_attention_heads": [1, 1, 1, 1], "depths": [1, 1, 11, 1],
                  "sr_ratios": [2, 2, 1, 1], "decoder_hidden_size": 8},
}  # fmt: skip


def reference_names(architecture: str) -> list[str]:
    transformers = pytest.importorskip("transformers")
    if architecture == "vit":
        module = transformers.ViTForImageClassification(transformers.ViTConfig(**TINY["vit"]))
    else:
        config = transformers.SegformerConfig(**TINY["segformer"])
        module = transformers.SegformerForSemanticSegmentation(config)
    return list(module.state_dict())


def our_names(architecture: str) -> set[str]:
    pytest.importorskip("torch")
    from imagesmith.nn.segformer import SegFormer
    from imagesmith.nn.vit import ViT

    module = {"vit": ViT, "segformer": SegFormer}[architecture].from_config({**TINY[architecture], "num_labels": 2})
    return set(module.state_dict())


@pytest.mark.parametrize("architecture", ["vit", "segformer"])
def test_reference_names_become_exactly_ours(architecture):
    names = reference_names(architecture)
    assert {to_native(architecture, name) for name in names} == our_names(architecture)


@pytest.mark.parametrize("architecture", ["vit", "segformer"])
def test_round_trip(architecture):
    keymap = KEYMAPS[architecture][0]
    renamed = 0
    for name in reference_names(architecture):
        native = keymap.to_native(name)
        if native is not None:
            assert keymap.from_native(native) == name
            renamed += 1
    assert renamed > 100


@pytest.mark.parametrize("architecture", ["vit", "segformer"])
def test_our_own_names_stay(architecture):
    for name in our_names(architecture):
        assert to_native(architecture, name) == name
        assert to_native(architecture, "module." + name) == name


def test_extractors_without_a_head_get_their_prefix():
    assert to_native("vit", "embeddings.cls_token") == "vit.embeddings.cls_token"
    assert to_native("vit", "encoder.layer.3.output.dense.bias") == "vit.encoder.layer.3.output.dense.bias"
    assert to_native("segformer", "encoder.layer_norm.0.weight") == "segformer.encoder.layer_norm.0.weight"


def test_two_weights_of_one_name_are_refused():
    with pytest.raises(BadWeights, match="both"):
        native_state("vit", {"embeddings.cls_token": 1, "vit.embeddings.cls_token": 2})


def test_templates_do_not_match_in_parts():
    keymap = KeyMap("x", (("a.{i}.{p}", "b.{i}.{p}"),))
    for name in ("a.1", "xa.1.weight", "a.one.weight", "a.1.weight.more", "ab1.weight"):
        assert keymap.to_native(name) is None


def test_differences_are_told_in_one_sentence():
    report = compare_keys(
        {"a": (1,), "b": (2, 3), "bn.num_batches_tracked": ()},
        {"b": (3, 2), "c": (1,), "vit.pooler.dense.weight": (2, 2)},
    )
    assert not report.fits
    assert report.sentence("x.safetensors") == (
        "x.safetensors does not fit this network: 1 weight is missing (a), 1 weight is unknown (c), "
        "1 weight is of another shape (b (3, 2) instead of (2, 3))."
    )
    many = compare_keys({str(index): () for index in range(9)}, {})
    assert "9 weights are missing (0, 1, 2 and 6 more)" in many.sentence("y")
    assert compare_keys({"a": (1,)}, {"a": (1,), "b": (1,)}).fits

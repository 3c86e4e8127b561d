"""SegFormer against transformers on the same random weights: outputs, gradients, running statistics, names."""

import copy
import io

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import SegformerConfig as TheirConfig
from transformers import SegformerForSemanticSegmentation

from imagesmith.nn.segformer import DecodeHead, SegFormer, SegformerConfig

TINY = {
    "hidden_sizes": [16, 32, 40, 64],
    "depths": [1, 2, 1, 1],
    "num_attention_heads": [1, 2, 5, 8],
    "decoder_hidden_size": 24,
}
B0 = {"hidden_sizes": [32, 64, 160, 256], "depths": [2, 2, 2, 2], "decoder_hidden_size": 256}
B2 = {"hidden_sizes": [64, 128, 320, 512], "depths": [3, 4, 6, 3], "decoder_hidden_size": 768}
QUIET = {"drop_path_rate": 0.0, "classifier_dropout_prob": 0.0}
LABELS = 7

# transformers 5 renamed its modules; published files, and we, keep the first names.
_RENAMED = (
    (".stages.{i}.patch_embeddings.", ".encoder.patch_embeddings.{i}."),
    (".stages.{i}.blocks.", ".encoder.block.{i}."),
    (".stages.{i}.layer_norm.", ".encoder.layer_norm.{i}."),
    (".attention.q_proj.", ".attention.self.query."),
    (".attention.k_proj.", ".attention.self.key."),
    (".attention.v_proj.", ".attention.self.value."),
    (".attention.o_proj.", ".attention.output.dense."),
    (".attention.sequence_reduction.sequence_reduction.", ".attention.self.sr."),
    (".attention.sequence_reduction.layer_norm.", ".attention.self.layer_norm."),
    (".layernorm_before.", ".layer_norm_1."),
    (".layernorm_after.", ".layer_norm_2."),
    (".mlp.fc1.", ".mlp.dense1."),
    (".mlp.fc2.", ".mlp.dense2."),
    (".linear_projections.", ".linear_c."),
)


def classic(name: str) -> str:
    """Return the published name of one of transformers' parameters."""
    for new, old in _RENAMED:
        for stage in range(4):
            name = name.replace(new.format(i=stage), old.format(i=stage))
    return name


def pair(config: dict[str, object], noise: float = 0.05) -> tuple[SegformerForSemanticSegmentation, SegFormer]:
    """Return their model and ours with the same random weights and running statistics."""
    torch.manual_seed(0)
    theirs = SegformerForSemanticSegmentation(TheirConfig(**config, num_labels=LABELS))
    with torch.no_grad():
        for name, tensor in theirs.state_dict().items():
            if "running_var" in name:
                tensor.uniform_(0.5, 2)
            elif tensor.is_floating_point():
                # Wider than the usual start, so that every bias, scale and branch matters.
                tensor.add_(torch.randn_like(tensor) * noise)
    ours = SegFormer.from_config({**config, "num_labels": LABELS})
    ours.load_state_dict({classic(name): tensor for name, tensor in theirs.state_dict().items()})
    return theirs, ours


def compare_outputs(config: dict[str, object], size_hw: tuple[int, int]) -> None:
    theirs, ours = pair({**config, **QUIET})
    image = torch.randn(2, 3, *size_hw)
    with torch.no_grad():
        expected = theirs.eval()(image).logits
        assert ours.eval()(image)["logits"].shape == expected.shape
        assert (ours(image)["logits"] - expected).abs().max() < 1e-4
        assert (ours.for_inference()(image)["logits"] - expected).abs().max() < 1e-4


def compare_gradients(
    config: dict[str, object], size_hw: tuple[int, int], dtype: torch.dtype, tolerance: float, noise: float
) -> None:
    """Compare gradients, relative to the largest per tensor, and running statistics, in training mode."""
    theirs, ours = (model.to(dtype).train() for model in pair({**config, **QUIET}, noise))
    image = torch.randn(2, 3, *size_hw, dtype=dtype)
    labels = torch.randint(0, LABELS, (2, -(-size_hw[0] // 4), -(-size_hw[1] // 4)))
    F.cross_entropy(theirs(image).logits, labels).backward()
    F.cross_entropy(ours(image)["logits"], labels).backward()
    expected = {classic(name): parameter.grad for name, parameter in theirs.named_parameters()}
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, parameter in ours.named_parameters():
        scale = float(expected[name].abs().max())
        if scale < 1e-6 * largest:
            # A bias before batch norm, or of a key, has no gradient in exact arithmetic: what is there is rounding.
            assert float(parameter.grad.abs().max()) < 1e-5 * largest, name
        else:
            assert float((parameter.grad - expected[name]).abs().max()) <= tolerance * scale, name
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        ours_now, theirs_now = (getattr(model.decode_head.batch_norm, name) for model in (ours, theirs))
        assert torch.allclose(ours_now.double(), theirs_now.double(), atol=1e-5), name


@pytest.mark.parametrize("size_hw", [(64, 96), (50, 71), (33, 64)], ids=str)
def test_outputs_equal_transformers(size_hw: tuple[int, int]) -> None:
    compare_outputs(TINY, size_hw)


# In float32 a unit of the head's ReLU that rounding pushes across 0 changes gradients by more than rounding: so the
# weights are wide in float64, and those of a fresh network in float32.
PRECISIONS = pytest.mark.parametrize(
    ("dtype", "tolerance", "noise"),
    [(torch.float64, 1e-9, 0.05), (torch.float32, 1e-4, 0.0)],
    ids=["float64", "float32"],
)


@PRECISIONS
def test_gradients_and_running_statistics_equal_transformers(
    dtype: torch.dtype, tolerance: float, noise: float
) -> None:
    compare_gradients(TINY, (64, 96), dtype, tolerance, noise)


@pytest.mark.slow
@PRECISIONS
@pytest.mark.parametrize("config", [B0, B2], ids=["b0", "b2"])
def test_full_size_equals_transformers(
    config: dict[str, object], dtype: torch.dtype, tolerance: float, noise: float
) -> None:
    compare_outputs(config, (128, 128))
    compare_gradients(config, (128, 128), dtype, tolerance, noise)


def unfolded(head: DecodeHead, scales: list[torch.Tensor]) -> torch.Tensor:
    """Compute the head as published: project, upsample, concatenate from coarse to fine, fuse."""
    projected = []
    for scale, layer in zip(scales, head.linear_c, strict=True):
        tokens = layer.proj(scale.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(len(scale), -1, *scale.shape[2:])
        projected.append(F.interpolate(tokens, size=scales[0].shape[2:], mode="bilinear", align_corners=False))
    fused = head.batch_norm(head.linear_fuse(torch.cat(projected[::-1], dim=1)))
    return head.classifier(head.dropout(F.relu(fused)))


@pytest.mark.parametrize("training", [True, False])
def test_folded_head_equals_the_published_form(training: bool) -> None:
    torch.manual_seed(1)
    head = DecodeHead(SegformerConfig.from_dict({**TINY, **QUIET, "num_labels": 3})).double().train(training)
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.3)
    other = copy.deepcopy(head)
    scales = [torch.randn(2, width, 16 >> i, 12 >> i).double() for i, width in enumerate(TINY["hidden_sizes"])]
    answer, expected = head(scales), unfolded(other, scales)
    assert torch.allclose(answer, expected, atol=1e-10)
    answer.square().mean().backward()
    expected.square().mean().backward()
    for (name, parameter), reference in zip(head.named_parameters(), other.parameters(), strict=True):
        assert torch.allclose(parameter.grad, reference.grad, atol=1e-10), name
    assert torch.allclose(head.batch_norm.running_mean, other.batch_norm.running_mean)


def test_scales_in_the_wrong_order_are_noticed() -> None:
    """Negative control: the comparison above sees a head whose fuse weight is read from fine to coarse."""
    torch.manual_seed(1)
    head = DecodeHead(SegformerConfig.from_dict({**TINY, **QUIET, "num_labels": 3})).eval()
    scales = [torch.randn(1, width, 16 >> i, 12 >> i) for i, width in enumerate(TINY["hidden_sizes"])]
    expected = unfolded(head, scales)
    parts = head.linear_fuse.weight.chunk(4, dim=1)
    head.linear_fuse.weight = nn.Parameter(torch.cat(parts[::-1], dim=1))
    assert not torch.allclose(head(scales), expected, atol=1e-3)


def test_exports_to_onnx_with_any_batch_and_size() -> None:
    class Plain(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            return self.model(pixel_values)["logits"]

    model = pair(TINY)[1].for_inference()
    file = io.BytesIO()
    torch.onnx.export(
        Plain(model).eval(), (torch.randn(1, 3, 64, 64),), file, opset_version=17, dynamo=False,
        input_names=["pixel_values"], output_names=["logits"],
        dynamic_axes={"pixel_values": {0: "batch", 2: "height", 3: "width"}},
    )  # fmt: skip
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    for shape in ((1, 3, 64, 64), (3, 3, 96, 40), (2, 3, 50, 71)):
        image = torch.randn(shape)
        (answer,) = session.run(None, {"pixel_values": image.numpy()})
        with torch.no_grad():
            assert np.abs(answer - model(image)["logits"].numpy()).max() < 1e-4


def test_stochastic_depth_only_in_training_and_right_on_average() -> None:
    torch.manual_seed(0)
    model = SegFormer.from_config({**TINY, "num_labels": 2, "drop_path_rate": 0.5})
    layer = model.segformer.encoder.block[3][0].train()
    assert layer.drop_path == 0.5
    branch = torch.ones(4000, 1, 1)
    dropped = layer._drop(branch)
    assert set(dropped.flatten().tolist()) == {0.0, 2.0}
    assert abs(float(dropped.mean()) - 1) < 0.1
    assert layer.eval()._drop(branch) is branch


def test_configuration_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="depths has 3 entries"):
        SegformerConfig.from_dict({"depths": [1, 1, 1]})
    with pytest.raises(ValueError, match="gelu"):
        SegformerConfig.from_dict({"hidden_act": "relu"})
    with pytest.raises(ValueError, match="multiple"):
        SegFormer.from_config({"num_attention_heads": [3, 2, 5, 8]})

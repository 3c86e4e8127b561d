"""SegFormer (Xie et al. 2021, arXiv 2105.15203): a hierarchical transformer encoder with an all-linear decode head.

Parameter names are those of published ``SegformerForSemanticSegmentation`` files, so their state dicts load
unchanged. The decode head is computed folded: projection, bilinear upsampling and the fusing 1x1 convolution are
linear, and the last two commute, so each scale is projected once by the product of both weights and only the sum is
kept at full resolution. Gradients and checkpoints are those of the original form.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class SegformerConfig:
    """Shape of a SegFormer; the field names are those of published ``config.json`` files, the defaults are B0's."""

    num_labels: int = 150
    num_channels: int = 3
    hidden_sizes: tuple[int, ...] = (32, 64, 160, 256)
    depths: tuple[int, ...] = (2, 2, 2, 2)
    sr_ratios: tuple[int, ...] = (8, 4, 2, 1)
    patch_sizes: tuple[int, ...] = (7, 3, 3, 3)
    strides: tuple[int, ...] = (4, 2, 2, 2)
    mlp_ratios: tuple[float, ...] = (4, 4, 4, 4)
    num_attention_heads: tuple[int, ...] = (1, 2, 5, 8)
    decoder_hidden_size: int = 256
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    classifier_dropout_prob: float = 0.1
    drop_path_rate: float = 0.1

    def __post_init__(self) -> None:
        per_stage = ("depths", "sr_ratios", "patch_sizes", "strides", "mlp_ratios", "num_attention_heads")
        stages = len(self.hidden_sizes)
        for name in per_stage:
            if len(getattr(self, name)) != stages:
                raise ValueError(
                    f"SegFormer's {name} has {len(getattr(self, name))} entries but hidden_sizes has {stages}; "
                    "give one entry per stage."
                )
        if self.num_labels < 1:
            raise ValueError(f"SegFormer needs at least one label, got num_labels={self.num_labels}.")

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> SegformerConfig:
        """Read a published configuration; keys that do not shape the network are ignored.

        ``num_labels`` is taken from ``id2label`` where it is not stated. Raises ``ValueError`` for an activation
        other than GELU, which no published SegFormer uses.

        >>> SegformerConfig.from_dict({"id2label": {"0": "a", "1": "b"}, "hidden_sizes": [8, 16, 24, 32]}).num_labels
        2
        """
        activation = config.get("hidden_act", "gelu")
        if activation != "gelu":
            raise ValueError(f"SegFormer's activation is gelu, but the configuration says {activation!r}.")
        values: dict[str, Any] = {}
        for field in fields(cls):
            if config.get(field.name) is not None:
                value = config[field.name]
                values[field.name] = tuple(value) if isinstance(value, list | tuple) else value
        if "num_labels" not in values and config.get("id2label"):
            values["num_labels"] = len(config["id2label"])
        return cls(**values)


class OverlapPatchEmbeddings(nn.Module):
    """Strided convolution with overlapping windows: [B,C,H,W] -> tokens [B,N,D] and their grid size."""

    def __init__(self, channels: int, width: int, patch: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, stride, padding=patch // 2)
        self.layer_norm = nn.LayerNorm(width)

    def forward(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        grid = self.proj(image)
        return self.layer_norm(grid.flatten(2).transpose(1, 2)), (grid.shape[2], grid.shape[3])


def _as_grid(tokens: Tensor, grid_hw: tuple[int, int]) -> Tensor:
    """View tokens [B,N,C] as [B,C,h,w] (channels-last strides, no copy)."""
    return tokens.reshape(tokens.shape[0], grid_hw[0], grid_hw[1], tokens.shape[2]).permute(0, 3, 1, 2)


class _SelfAttention(nn.Module):
    """Projections of efficient self-attention: keys and values come from a grid reduced ``reduction`` times a side."""

    def __init__(self, width: int, heads: int, reduction: int, dropout: float) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"SegFormer's stage width {width} is not a multiple of its {heads} attention heads.")
        self.heads, self.reduction, self.dropout = heads, reduction, dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        if reduction > 1:
            self.sr = nn.Conv2d(width, width, reduction, reduction)
            self.layer_norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        batch, count, width = tokens.shape
        context = tokens
        if self.reduction > 1:
            context = self.layer_norm(self.sr(_as_grid(tokens, grid_hw)).flatten(2).transpose(1, 2))
        query, key, value = (
            projection(source).reshape(batch, -1, self.heads, width // self.heads).transpose(1, 2)
            for projection, source in ((self.query, tokens), (self.key, context), (self.value, context))
        )
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        return mixed.transpose(1, 2).reshape(batch, count, width)


class _AttentionOutput(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.dense(tokens)


class Attention(nn.Module):
    """Efficient self-attention and its output projection."""

    def __init__(self, width: int, heads: int, reduction: int, dropout: float) -> None:
        super().__init__()
        self.self = _SelfAttention(width, heads, reduction, dropout)
        self.output = _AttentionOutput(width)

    def forward(self, tokens: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        return self.output(self.self(tokens, grid_hw))


class _DepthwiseConv(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 3, 1, 1, groups=width)

    def forward(self, tokens: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        return self.dwconv(_as_grid(tokens, grid_hw)).flatten(2).transpose(1, 2)


class MixFeedForward(nn.Module):
    """Feed-forward layer with a depthwise 3x3 convolution, which also carries position."""

    def __init__(self, width: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.dense1 = nn.Linear(width, inner)
        self.dwconv = _DepthwiseConv(inner)
        self.dense2 = nn.Linear(inner, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        hidden = self.dropout(F.gelu(self.dwconv(self.dense1(tokens), grid_hw)))
        return self.dropout(self.dense2(hidden))


class Layer(nn.Module):
    """One encoder block: attention and feed-forward, each pre-normalised, with stochastic depth in training."""

    def __init__(self, config: SegformerConfig, stage: int, drop_path: float) -> None:
        super().__init__()
        width = config.hidden_sizes[stage]
        self.drop_path = drop_path
        self.layer_norm_1 = nn.LayerNorm(width)
        self.attention = Attention(
            width, config.num_attention_heads[stage], config.sr_ratios[stage], config.attention_probs_dropout_prob
        )
        self.attention_dropout = nn.Dropout(config.hidden_dropout_prob)
        self.layer_norm_2 = nn.LayerNorm(width)
        self.mlp = MixFeedForward(width, int(width * config.mlp_ratios[stage]), config.hidden_dropout_prob)

    def _drop(self, branch: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0:
            return branch
        keep = 1 - self.drop_path
        mask = (torch.rand(branch.shape[0], 1, 1, device=branch.device) < keep).to(branch.dtype)
        return branch * (mask / keep)

    def forward(self, tokens: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        tokens = tokens + self._drop(self.attention_dropout(self.attention(self.layer_norm_1(tokens), grid_hw)))
        return tokens + self._drop(self.mlp(self.layer_norm_2(tokens), grid_hw))


class Encoder(nn.Module):
    """Four stages of falling resolution (1/4, 1/8, 1/16, 1/32 of the image by default)."""

    def __init__(self, config: SegformerConfig) -> None:
        super().__init__()
        depths, widths = config.depths, config.hidden_sizes
        channels = (config.num_channels, *widths[:-1])
        total = sum(depths)
        rates = [config.drop_path_rate * index / max(total - 1, 1) for index in range(total)]
        self.patch_embeddings = nn.ModuleList(
            OverlapPatchEmbeddings(channels[stage], widths[stage], config.patch_sizes[stage], config.strides[stage])
            for stage in range(len(depths))
        )
        self.block = nn.ModuleList(
            nn.ModuleList(Layer(config, stage, rates[sum(depths[:stage]) + index]) for index in range(depth))
            for stage, depth in enumerate(depths)
        )
        self.layer_norm = nn.ModuleList(nn.LayerNorm(width) for width in widths)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return one feature map [B,D_i,h_i,w_i] per stage, finest first."""
        scales = []
        for embed, blocks, norm in zip(self.patch_embeddings, self.block, self.layer_norm, strict=True):
            tokens, grid_hw = embed(image)
            for block in blocks:
                tokens = block(tokens, grid_hw)
            image = _as_grid(norm(tokens), grid_hw)
            scales.append(image)
        return scales


class _EncoderHolder(nn.Module):
    def __init__(self, config: SegformerConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config)


class _Projection(nn.Module):
    def __init__(self, width: int, decoder_width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, decoder_width)


def _sum_upsampled(scales: list[Tensor]) -> Tensor:
    """Bring every map to the first one's size and add them up."""
    total = scales[0]
    for scale in scales[1:]:
        total = total + F.interpolate(scale, size=total.shape[2:], mode="bilinear", align_corners=False)
    return total


class DecodeHead(nn.Module):
    """All-linear head, folded: one 1x1 product per scale instead of a projection and a fusing convolution over all."""

    def __init__(self, config: SegformerConfig) -> None:
        super().__init__()
        width = config.decoder_hidden_size
        self.linear_c = nn.ModuleList(_Projection(stage_width, width) for stage_width in config.hidden_sizes)
        self.linear_fuse = nn.Conv2d(width * len(config.hidden_sizes), width, 1, bias=False)
        self.batch_norm = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(config.classifier_dropout_prob)
        self.classifier = nn.Conv2d(width, config.num_labels, 1)

    def folded_parameters(self) -> tuple[list[Tensor], Tensor]:
        """Return the products ``W_i P_i`` [D,D_i] of every scale and their bias ``sum_i W_i p_i`` [D]."""
        projections = [scale.proj for scale in self.linear_c]
        # The concatenation that linear_fuse expects runs from the coarsest scale to the finest.
        fuse = self.linear_fuse.weight.flatten(1).chunk(len(projections), dim=1)[::-1]
        weights = [part @ projection.weight for part, projection in zip(fuse, projections, strict=True)]
        biases = [part @ projection.bias for part, projection in zip(fuse, projections, strict=True)]
        return weights, torch.stack(biases).sum(dim=0)

    def forward(self, scales: list[Tensor]) -> Tensor:
        weights, bias = self.folded_parameters()
        projected = [F.conv2d(scale, weight[:, :, None, None]) for scale, weight in zip(scales, weights, strict=True)]
        fused = _sum_upsampled(projected) + bias[:, None, None].to(projected[0].dtype)
        return self.classifier(self.dropout(F.relu(self.batch_norm(fused))))


class FoldedDecodeHead(nn.Module):
    """The decode head for inference, with batch norm folded too: plain convolutions, nothing recomputed per call."""

    def __init__(self, head: DecodeHead) -> None:
        super().__init__()
        norm = head.batch_norm
        with torch.no_grad():
            scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
            weights, bias = head.folded_parameters()
            bias = scale * (bias - norm.running_mean) + norm.bias
            self.projections = nn.ModuleList()
            for index, weight in enumerate(weights):
                # The bias is added once, at the finest scale.
                convolution = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=index == 0)
                convolution.weight.copy_((scale[:, None] * weight)[:, :, None, None])
                if convolution.bias is not None:
                    convolution.bias.copy_(bias)
                self.projections.append(convolution)
        self.classifier = copy.deepcopy(head.classifier)

    def forward(self, scales: list[Tensor]) -> Tensor:
        projected = [convolution(scale) for convolution, scale in zip(self.projections, scales, strict=True)]
        return self.classifier(F.relu(_sum_upsampled(projected)))


class SegFormer(nn.Module):
    """SegFormer for semantic segmentation: ``pixel_values`` [B,3,H,W] -> ``{"logits": [B,C,H/4,W/4]}``.

    Height and width need not be multiples of 32 (each stage rounds up).

    >>> tiny = {"hidden_sizes": [8, 8, 8, 8], "num_attention_heads": [1, 1, 2, 2], "depths": [1, 1, 1, 1],
    ...         "decoder_hidden_size": 16, "num_labels": 3}
    >>> SegFormer.from_config(tiny).eval()(torch.zeros(1, 3, 64, 40))["logits"].shape
    torch.Size([1, 3, 16, 10])
    """

    def __init__(self, config: SegformerConfig) -> None:
        super().__init__()
        self.config = config
        self.segformer = _EncoderHolder(config)
        self.decode_head: nn.Module = DecodeHead(config)
        self.apply(_initialise)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> SegFormer:
        """Build the module (random weights) from a published configuration."""
        return cls(SegformerConfig.from_dict(config))

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        return {"logits": self.decode_head(self.segformer.encoder(pixel_values))}

    def for_inference(self) -> SegFormer:
        """Return a copy in evaluation mode whose decode head is fully folded (its state dict has other keys)."""
        folded = copy.deepcopy(self).eval().requires_grad_(False)
        if isinstance(folded.decode_head, DecodeHead):
            folded.decode_head = FoldedDecodeHead(folded.decode_head).eval().requires_grad_(False)
        return folded


def _initialise(module: nn.Module) -> None:
    """Initialise as the paper's training does: truncated normal for linear layers, fan-out normal for convolutions."""
    if any(weight.is_meta for weight in module.parameters(recurse=False)):
        return  # nothing to fill; on meta tensors the truncated normal would load torch's compiler, a second's work
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
    if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
        nn.init.zeros_(module.bias)

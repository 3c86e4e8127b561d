"""Vision Transformer for image classification (Dosovitskiy et al. 2021, arXiv:2010.11929).

Parameter names are those of published ``ViTForImageClassification`` checkpoints, so their weights load unchanged.
Shapes in comments: B batch, N tokens (patches and the class token), D hidden width, h x w the grid of patches.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu")


@dataclass(frozen=True)
class ViTConfig:
    """What shapes a ViT; field names and defaults are those of a published ``config.json``."""

    num_labels: int = 2
    num_channels: int = 3
    image_size: tuple[int, int] = (224, 224)
    """Height and width the position table was learned for; other sizes interpolate it."""
    patch_size: tuple[int, int] = (16, 16)
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    qkv_bias: bool = True
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    drop_path_rate: float = 0.0
    """Stochastic depth in training: the last block is skipped this often, the first never."""

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"ViT's hidden_size {self.hidden_size} is not a multiple of its {self.num_attention_heads} heads."
            )
        if self.hidden_act not in ACTIVATIONS:
            raise ValueError(f"ViT's activation is one of {', '.join(ACTIVATIONS)}, not {self.hidden_act!r}.")
        if self.num_labels < 1 or min(self.grid_hw) < 1:
            raise ValueError(
                f"ViT needs a label and a patch, got num_labels={self.num_labels}, image_size={self.image_size} "
                f"and patch_size={self.patch_size}."
            )

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Patches per column and per row at ``image_size``."""
        return self.image_size[0] // self.patch_size[0], self.image_size[1] // self.patch_size[1]

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> ViTConfig:
        """Read a published configuration; keys that do not shape the network are ignored.

        ``num_labels`` is taken from ``id2label`` where it is not stated; sizes may be one number or two.

        >>> ViTConfig.from_dict({"image_size": 32, "patch_size": 8, "id2label": {"0": "a", "1": "b"}}).grid_hw
        (4, 4)
        """
        values = {field.name: config[field.name] for field in fields(cls) if config.get(field.name) is not None}
        for name in ("image_size", "patch_size"):
            if name in values:
                size = values[name]
                values[name] = (size, size) if isinstance(size, int) else tuple(size)
        if "num_labels" not in values and config.get("id2label"):
            values["num_labels"] = len(config["id2label"])
        return cls(**values)


class _PatchEmbeddings(nn.Module):
    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.projection = nn.Conv2d(config.num_channels, config.hidden_size, config.patch_size, config.patch_size)

    def forward(self, image: Tensor) -> Tensor:
        return self.projection(image)


class Embeddings(nn.Module):
    """Patches to tokens, the class token first, positions added: [B,C,H,W] -> [B,1+h*w,D]."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.grid_hw = config.grid_hw
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.position_embeddings = nn.Parameter(
            torch.zeros(1, 1 + self.grid_hw[0] * self.grid_hw[1], config.hidden_size)
        )
        self.patch_embeddings = _PatchEmbeddings(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        # Filled only in the copy made for inference, whose weights no longer change.
        self.tables: dict[tuple[int, int], Tensor] | None = None

    def positions(self, height: int, width: int) -> Tensor:
        """Return the position table [1,1+h*w,D] for a grid, interpolated where it is not the learned one."""
        # A traced graph must hold the interpolation, or it would serve one input size only.
        if not torch.jit.is_tracing():
            if (height, width) == self.grid_hw:
                return self.position_embeddings
            if self.tables is not None:
                if (height, width) not in self.tables:
                    self.tables[height, width] = self._interpolate(height, width)
                return self.tables[height, width]
        return self._interpolate(height, width)

    def _interpolate(self, height: int, width: int) -> Tensor:
        table = self.position_embeddings
        grid = table[:, 1:].reshape(1, *self.grid_hw, -1).permute(0, 3, 1, 2)  # [1,D,h,w]
        # Bicubic in single precision, as the published models' own code does it.
        grid = F.interpolate(grid.float(), size=(height, width), mode="bicubic", align_corners=False).to(table.dtype)
        return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)

    def forward(self, image: Tensor) -> Tensor:
        grid = self.patch_embeddings(image)
        tokens = grid.flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.to(tokens.dtype).expand(tokens.shape[0], -1, -1), tokens], dim=1)
        return self.dropout(tokens + self.positions(grid.shape[2], grid.shape[3]).to(tokens.dtype))


class _SelfAttention(nn.Module):
    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.num_attention_heads, config.attention_probs_dropout_prob
        self.query = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.key = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.value = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, count, width = tokens.shape
        size = width // self.heads
        query, key, value = (
            projection(tokens).reshape(batch, -1, self.heads, size).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        dropout = self.dropout if self.training else 0.0
        if query.device.type == "cpu" and query.dtype == torch.bfloat16:
            # PyTorch's fused kernel is 3 to 5 times slower than plain products here, forward and backward.
            shares = (query * size**-0.5 @ key.transpose(2, 3)).softmax(dim=-1)
            mixed = F.dropout(shares, dropout, self.training) @ value
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=size**-0.5)
        return mixed.transpose(1, 2).reshape(batch, count, width)


class _Dense(nn.Module):
    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width_in, width_out)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.dense(tokens)


class Attention(nn.Module):
    """Self-attention and its output projection."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.attention = _SelfAttention(config)
        self.output = _Dense(config.hidden_size, config.hidden_size)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.output(self.attention(tokens))


class Layer(nn.Module):
    """One pre-normalised encoder block; in training each branch is dropped per image with ``drop_path``."""

    def __init__(self, config: ViTConfig, drop_path: float) -> None:
        super().__init__()
        self.drop_path, self.activation = drop_path, config.hidden_act
        self.layernorm_before = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = Attention(config)
        self.layernorm_after = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.intermediate = _Dense(config.hidden_size, config.intermediate_size)
        self.output = _Dense(config.intermediate_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def _activate(self, hidden: Tensor) -> Tensor:
        if self.activation == "relu":
            return F.relu(hidden)
        return F.gelu(hidden, approximate="none" if self.activation == "gelu" else "tanh")

    def _drop(self, branch: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0:
            return branch
        keep = 1 - self.drop_path
        mask = (torch.rand(branch.shape[0], 1, 1, device=branch.device) < keep).to(branch.dtype)
        return branch * (mask / keep)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self._drop(self.dropout(self.attention(self.layernorm_before(tokens))))
        hidden = self._activate(self.intermediate(self.layernorm_after(tokens)))
        return tokens + self._drop(self.dropout(self.output(hidden)))


class _Encoder(nn.Module):
    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        last = max(config.num_hidden_layers - 1, 1)
        self.layer = nn.ModuleList(
            Layer(config, config.drop_path_rate * index / last) for index in range(config.num_hidden_layers)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        for layer in self.layer:
            tokens = layer(tokens)
        return tokens


class _Backbone(nn.Module):
    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = _Encoder(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, image: Tensor) -> Tensor:
        return self.layernorm(self.encoder(self.embeddings(image)))


class ViT(nn.Module):
    """ViT for image classification: ``pixel_values`` [B,3,H,W] -> ``{"logits": [B,C]}``, read off the class token.

    Height and width may differ from ``image_size``: whole patches are used, the position table is interpolated.

    >>> tiny = {"image_size": 32, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 1,
    ...         "num_attention_heads": 2, "intermediate_size": 32, "num_labels": 3}
    >>> ViT.from_config(tiny).eval()(torch.zeros(2, 3, 32, 48))["logits"].shape
    torch.Size([2, 3])
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        self.vit = _Backbone(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self._initialise()

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ViT:
        """Build the module (random weights) from a published configuration."""
        return cls(ViTConfig.from_dict(config))

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        return {"logits": self.classifier(self.vit(pixel_values)[:, 0])}

    def for_inference(self) -> ViT:
        """Return a frozen copy that shares these weights and keeps every interpolated position table it makes."""
        shared = {id(tensor): nn.Parameter(tensor.detach(), requires_grad=False) for tensor in self.parameters()}
        frozen = copy.deepcopy(self, shared).eval()
        frozen.vit.embeddings.tables = {}
        return frozen

    def _initialise(self) -> None:
        """Initialise as the paper's code does: truncated normal weights, zero biases."""
        if self.vit.embeddings.cls_token.is_meta:
            return  # nothing to fill; on meta tensors the truncated normal would load torch's compiler, a second's work
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.vit.embeddings.cls_token, std=0.02)
        nn.init.trunc_normal_(self.vit.embeddings.position_embeddings, std=0.02)

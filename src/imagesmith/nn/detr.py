"""DETR: detection as a set prediction with a transformer (Carion et al., 2020, arXiv 2005.12872).

A ResNet makes a feature map, a post-norm encoder relates its cells, a post-norm decoder turns learned queries into
(class, box) pairs. Weights published in any of the three layouts load through `imagesmith.models.keymap_detr`.
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imagesmith.nn.resnet import ResNet, ResNetConfig

LEARNED_POSITIONS = 50
POSITION_CACHE_SIZE = 16
ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu}


@dataclass(frozen=True)
class DetrConfig:
    """Describe a DETR; defaults are those of the published ResNet-50 model.

    `num_labels` counts the classes without "no object". `query_groups` above 1 adds groups of queries that exist in
    training only (Chen et al., 2022, arXiv 2207.13085): each group is matched by itself, inference uses the first.
    """

    num_labels: int = 91
    num_queries: int = 100
    d_model: int = 256
    encoder_layers: int = 6
    encoder_attention_heads: int = 8
    encoder_ffn_dim: int = 2048
    decoder_layers: int = 6
    decoder_attention_heads: int = 8
    decoder_ffn_dim: int = 2048
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    activation_function: str = "relu"
    position_embedding_type: str = "sine"
    query_groups: int = 1
    backbone: ResNetConfig = field(default_factory=ResNetConfig)

    def __post_init__(self) -> None:
        heads = (self.encoder_attention_heads, self.decoder_attention_heads)
        if self.d_model % 4 or any(self.d_model % count for count in heads):
            raise ValueError(f"d_model must be divisible by 4 and by the heads {heads}, got {self.d_model}.")
        if self.activation_function not in ACTIVATIONS:
            raise ValueError(f"activation_function must be relu or gelu, got {self.activation_function!r}.")
        if self.position_embedding_type not in ("sine", "learned"):
            raise ValueError(f"position_embedding_type must be sine or learned, got {self.position_embedding_type!r}.")
        if min(self.num_labels, self.num_queries, self.query_groups) < 1:
            raise ValueError("num_labels, num_queries and query_groups must be at least 1; correct the config.")

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "DetrConfig":
        """Read a published `config.json`: the oldest form, the timm form, and the form with a backbone record.

        Keys this model does not use are ignored; null means the default. The number of labels is that of `id2label`.

        >>> DetrConfig.from_dict({"model_type": "detr", "backbone": "resnet50", "dilation": None}).backbone.depths
        (3, 4, 6, 3)
        """
        given = {name: config[name] for name in _PLAIN_FIELDS if config.get(name) is not None}
        if "num_labels" not in given and config.get("id2label"):
            given["num_labels"] = len(config["id2label"])
        return cls(backbone=_backbone_from_dict(config), **given)


_PLAIN_FIELDS = tuple(name for name in DetrConfig.__dataclass_fields__ if name != "backbone")


def _backbone_from_dict(config: Mapping[str, Any]) -> ResNetConfig:
    dilation = bool(config.get("dilation") or False)
    backbone = config.get("backbone_config")
    if backbone is not None:
        return ResNetConfig.from_dict(backbone, dilated_last_stage=dilation)
    channels = config.get("num_channels") or 3
    return ResNetConfig.from_name(config.get("backbone") or "resnet50", channels, dilated_last_stage=dilation)


def sine_positions(ones: Tensor, channels: int, temperature: float = 10000.0) -> Tensor:
    """Return the sine encoding [B, H * W, channels] of the cells marked 1 in `ones` [B, H, W] (float).

    The first half of the channels encodes y, the second x, both scaled to 0..2 pi over the unpadded extent.
    """
    y, x = ones.cumsum(1), ones.cumsum(2)
    y = y / (y[:, -1:, :] + 1e-6) * (2 * math.pi)
    x = x / (x[:, :, -1:] + 1e-6) * (2 * math.pi)
    steps = torch.arange(channels // 4, dtype=torch.float32, device=ones.device)
    # Channels 2i and 2i + 1 share a wavelength: sine and cosine.
    wavelengths = temperature ** (2 * steps / (channels // 2))
    halves = []
    for coordinate in (y, x):
        angles = coordinate[..., None] / wavelengths
        halves.append(torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2))
    return torch.cat(halves, dim=-1).flatten(1, 2)


class SinePositions(nn.Module):
    """Sine encoding, remembered by shape where there is no padding."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self._cache: dict[tuple[int, int, torch.device], Tensor] = {}

    def forward(self, features: Tensor, mask: Tensor | None) -> Tensor:
        if mask is not None:
            return sine_positions(mask.float(), self.channels)
        if torch.jit.is_tracing() or torch.compiler.is_compiling():
            # An export must compute the encoding from the shape it is given, not hold a constant.
            return sine_positions(torch.ones_like(features[:1, 0]).float(), self.channels)
        height, width = features.shape[-2:]
        key = (height, width, features.device)
        if key not in self._cache:
            if len(self._cache) >= POSITION_CACHE_SIZE:
                self._cache.clear()
            self._cache[key] = sine_positions(torch.ones(1, height, width, device=features.device), self.channels)
        return self._cache[key]


class LearnedPositions(nn.Module):
    """Learned row and column encodings, for feature maps of at most 50 x 50 cells."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.row_embeddings = nn.Embedding(LEARNED_POSITIONS, channels // 2)
        self.column_embeddings = nn.Embedding(LEARNED_POSITIONS, channels // 2)

    def forward(self, features: Tensor, mask: Tensor | None) -> Tensor:
        height, width = features.shape[-2:]
        columns = self.column_embeddings.weight[None, :width].expand(height, -1, -1)
        rows = self.row_embeddings.weight[:height, None].expand(-1, width, -1)
        return torch.cat((columns, rows), dim=-1).flatten(0, 1)[None]


class Attention(nn.Module):
    """Multi-head attention whose queries, keys and values come from three inputs."""

    def __init__(self, d_model: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        self.o_proj = nn.Linear(d_model, d_model)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, heads, N, d]

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = self._split(self.q_proj(query)), self._split(self.k_proj(key)), self._split(self.v_proj(value))
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        return self.o_proj(attended.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """The two-layer network of a transformer layer, with its dropouts."""

    def __init__(self, config: DetrConfig, inner: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.d_model, inner)
        self.fc2 = nn.Linear(inner, config.d_model)
        self.activation = ACTIVATIONS[config.activation_function]
        self.activation_dropout = nn.Dropout(config.activation_dropout)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.fc2(self.activation_dropout(self.activation(self.fc1(x)))))


class EncoderLayer(nn.Module):
    """Self-attention over the cells of the feature map, post-norm."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config.d_model, config.encoder_attention_heads, config.attention_dropout)
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.mlp = FeedForward(config, config.encoder_ffn_dim)
        self.final_layer_norm = nn.LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        placed = x + positions
        x = self.self_attn_layer_norm(x + self.dropout(self.self_attn(placed, placed, x, mask)))
        return self.final_layer_norm(x + self.mlp(x))


class DecoderLayer(nn.Module):
    """Self-attention among the queries of a group, then attention to the image, post-norm."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config.d_model, config.decoder_attention_heads, config.attention_dropout)
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.encoder_attn = Attention(config.d_model, config.decoder_attention_heads, config.attention_dropout)
        self.encoder_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.mlp = FeedForward(config, config.decoder_ffn_dim)
        self.final_layer_norm = nn.LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, queries: Tensor, memory: Tensor, placed_memory: Tensor, mask: Tensor | None, groups: int
    ) -> Tensor:
        batch = x.shape[0]
        placed, values = x + queries, x
        if groups > 1:  # [B, G * Q, D] -> [B * G, Q, D]: groups do not see one another
            placed, values = (t.reshape(batch * groups, -1, t.shape[-1]) for t in (placed, values))
        attended = self.self_attn(placed, placed, values)
        if groups > 1:
            attended = attended.reshape(x.shape)
        x = self.self_attn_layer_norm(x + self.dropout(attended))
        x = self.encoder_attn_layer_norm(x + self.dropout(self.encoder_attn(x + queries, placed_memory, memory, mask)))
        return self.final_layer_norm(x + self.mlp(x))


class Decoder(nn.Module):
    """The decoder's layers and the norm that is applied to each layer's output before the heads."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.layernorm = nn.LayerNorm(config.d_model)


class BoxHead(nn.Module):
    """Three linear layers that turn a query's state into a box before its sigmoid."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(d_model, d_model), nn.Linear(d_model, d_model), nn.Linear(d_model, 4)])

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[2](F.relu(self.layers[1](F.relu(self.layers[0](x)))))


class Detr(nn.Module):
    """Detect objects: normalised pixels to class logits and boxes, one pair per query.

    >>> backbone = {"layer_type": "basic", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
    >>> sizes = dict(d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16, decoder_ffn_dim=16)
    >>> detr = Detr.from_config({"num_queries": 5, "num_labels": 3, "backbone_config": backbone, **sizes}).eval()
    >>> {name: tuple(value.shape) for name, value in detr(torch.zeros(2, 3, 32, 64)).items()}
    {'logits': (2, 5, 4), 'pred_boxes': (2, 5, 4)}
    """

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = ResNet(config.backbone)
        self.input_projection = nn.Conv2d(self.backbone.out_channels, config.d_model, 1)
        positions = SinePositions if config.position_embedding_type == "sine" else LearnedPositions
        self.position_embedding = positions(config.d_model)
        self.query_position_embeddings = nn.Embedding(config.num_queries * config.query_groups, config.d_model)
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.decoder = Decoder(config)
        self.class_labels_classifier = nn.Linear(config.d_model, config.num_labels + 1)
        self.bbox_predictor = BoxHead(config.d_model)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1 and name.startswith(("encoder.", "decoder.", "bbox_predictor.")):
                nn.init.xavier_uniform_(parameter)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Detr":
        """Build an untrained model from a published or own `config.json` (see `DetrConfig.from_dict`)."""
        return cls(DetrConfig.from_dict(config))

    def encode(self, pixel_values: Tensor, pixel_mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the encoder's memory [B, H * W, D], its positions [B or 1, H * W, D] and the keys' mask or None."""
        features = self.backbone(pixel_values)
        cells = None
        if pixel_mask is not None and not (not torch.jit.is_tracing() and bool(pixel_mask.all())):
            cells = F.interpolate(pixel_mask[None].float(), size=features.shape[-2:])[0].bool()
        positions = self.position_embedding(features, cells)
        attend = None if cells is None else cells.flatten(1)[:, None, None, :]  # [B, 1, 1, H * W], True = look
        memory = self.input_projection(features).flatten(2).transpose(1, 2)
        memory = F.dropout(memory, self.config.dropout, self.training)
        for layer in self.encoder:
            memory = layer(memory, positions, attend)
        return memory, positions, attend

    def decode(self, memory: Tensor, positions: Tensor, attend: Tensor | None) -> list[Tensor]:
        """Return the query states [B, G * Q, D] after each decoder layer, not yet normed (G = 1 outside training)."""
        groups = self.config.query_groups if self.training else 1
        queries = self.query_position_embeddings.weight[: groups * self.config.num_queries]
        queries = queries[None].expand(memory.shape[0], -1, -1)
        placed_memory = memory + positions
        x = torch.zeros_like(queries)
        states = []
        for layer in self.decoder.layers:
            x = layer(x, queries, memory, placed_memory, attend, groups)
            states.append(x)
        return states

    def forward(
        self, pixel_values: Tensor, pixel_mask: Tensor | None = None, all_levels: bool = False
    ) -> dict[str, Tensor]:
        """Detect in a batch.

        `pixel_values` [B, 3, H, W] are normalised, `pixel_mask` [B, H, W] is 1 on the image and 0 on padding; leave
        it out where nothing is padded. Returns `logits` [B, Q, C + 1], the last class being "no object", and
        `pred_boxes` [B, Q, 4] as centre x, centre y, width, height in 0..1 of the unpadded image. With `all_levels`
        (training) also `level_logits` [L, B, G * Q, C + 1], `level_boxes` [L, B, G * Q, 4] for the L decoder levels
        and G query groups, and `memory` [B, H' * W', D]; `logits` and `pred_boxes` are then the last level's.
        """
        memory, positions, attend = self.encode(pixel_values, pixel_mask)
        states = self.decode(memory, positions, attend)
        if all_levels:
            return {**self.predict(states), "memory": memory}
        return self.answer(states[-1][:, : self.config.num_queries])

    def answer(self, states: Tensor) -> dict[str, Tensor]:
        """Return `logits` [..., C + 1] and `pred_boxes` [..., 4] of query states [..., D] of the decoder."""
        states = self.decoder.layernorm(states)
        return {"logits": self.class_labels_classifier(states), "pred_boxes": self.bbox_predictor(states).sigmoid()}

    def predict(self, states: list[Tensor]) -> dict[str, Tensor]:
        """Return what all decoder levels say, for training: the first four entries `forward` describes."""
        levels = self.answer(torch.stack(states))
        last = {name: value[-1][:, : self.config.num_queries] for name, value in levels.items()}
        return {**last, "level_logits": levels["logits"], "level_boxes": levels["pred_boxes"]}

    def for_inference(self) -> "Detr":
        """Return a frozen copy in evaluation mode whose backbone's norms are folded (its state dict has other keys)."""
        folded = copy.deepcopy(self).eval()
        folded.backbone.fold_norms()
        return folded.requires_grad_(False)

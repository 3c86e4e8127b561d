"""ResNet: the convolutional backbone of DETR (He et al., 2015, arXiv 1512.03385).

The basic block serves small networks trained from scratch, the bottleneck block the published ResNet-50 and -101.
Batch norm is frozen for published weights and live for training from scratch, where frozen statistics stall.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# name -> (layer type, depths, widths of the four stages)
KNOWN_BACKBONES: dict[str, tuple[str, tuple[int, ...], tuple[int, ...]]] = {
    "resnet18": ("basic", (2, 2, 2, 2), (64, 128, 256, 512)),
    "resnet34": ("basic", (3, 4, 6, 3), (64, 128, 256, 512)),
    "resnet50": ("bottleneck", (3, 4, 6, 3), (256, 512, 1024, 2048)),
    "resnet101": ("bottleneck", (3, 4, 23, 3), (256, 512, 1024, 2048)),
}
BOTTLENECK_REDUCTION = 4


@dataclass(frozen=True)
class ResNetConfig:
    """Describe a ResNet backbone.

    `hidden_sizes` and `depths` have one entry per stage; stage i has stride 4 * 2**i. `batch_norm` is "frozen" or
    "live". `dilated_last_stage` keeps the resolution of the last stage and dilates it instead (the DC5 variants).
    """

    num_channels: int = 3
    embedding_size: int = 64
    hidden_sizes: tuple[int, ...] = (256, 512, 1024, 2048)
    depths: tuple[int, ...] = (3, 4, 6, 3)
    layer_type: str = "bottleneck"
    downsample_in_first_stage: bool = False
    downsample_in_bottleneck: bool = False
    dilated_last_stage: bool = False
    batch_norm: str = "frozen"

    def __post_init__(self) -> None:
        if self.layer_type not in ("basic", "bottleneck"):
            raise ValueError(
                f"layer_type must be 'basic' or 'bottleneck', got {self.layer_type!r}; correct the config."
            )
        if self.batch_norm not in ("frozen", "live"):
            raise ValueError(f"batch_norm must be 'frozen' or 'live', got {self.batch_norm!r}; correct the config.")
        if len(self.hidden_sizes) != len(self.depths) or not self.depths:
            raise ValueError(
                f"A ResNet needs one width per stage: got widths {self.hidden_sizes} and depths {self.depths}."
            )

    @classmethod
    def from_name(cls, name: str, num_channels: int = 3, dilated_last_stage: bool = False) -> "ResNetConfig":
        """Return the configuration of a backbone known by name, such as "resnet50".

        >>> ResNetConfig.from_name("resnet101").depths
        (3, 4, 23, 3)
        """
        if name not in KNOWN_BACKBONES:
            known = ", ".join(KNOWN_BACKBONES)
            raise ValueError(f"Backbone {name!r} is not one of {known}; use one of these or transformers for others.")
        layer_type, depths, hidden_sizes = KNOWN_BACKBONES[name]
        return cls(
            num_channels=num_channels,
            hidden_sizes=hidden_sizes,
            depths=depths,
            layer_type=layer_type,
            dilated_last_stage=dilated_last_stage,
        )

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], dilated_last_stage: bool = False) -> "ResNetConfig":
        """Read a `backbone_config` of a published DETR: a ResNet of transformers or one named after timm.

        >>> ResNetConfig.from_dict({"model_type": "timm_backbone", "backbone": "resnet50"}).layer_type
        'bottleneck'
        """
        model_type = config.get("model_type", "resnet")
        if model_type == "timm_backbone":
            return cls.from_name(
                config.get("backbone") or "resnet50",
                num_channels=config.get("num_channels", 3),
                dilated_last_stage=dilated_last_stage or config.get("output_stride") == 16,
            )
        if model_type != "resnet":
            raise ValueError(f"The native DETR has a ResNet backbone, got {model_type!r}; load it with transformers.")
        if config.get("hidden_act", "relu") != "relu":
            raise ValueError(f"The native ResNet uses relu, got {config['hidden_act']!r}; load it with transformers.")
        depths = tuple(config.get("depths", (3, 4, 6, 3)))
        hidden_sizes = tuple(config.get("hidden_sizes", (256, 512, 1024, 2048)))
        # Cut both only where they agree, so that the check of the record sees a disagreement.
        stages = _last_stage(config, len(depths)) if len(depths) == len(hidden_sizes) else None
        return cls(
            num_channels=config.get("num_channels", 3),
            embedding_size=config.get("embedding_size", 64),
            hidden_sizes=hidden_sizes[:stages],
            depths=depths[:stages],
            layer_type=config.get("layer_type", "bottleneck"),
            downsample_in_first_stage=bool(config.get("downsample_in_first_stage", False)),
            downsample_in_bottleneck=bool(config.get("downsample_in_bottleneck", False)),
            dilated_last_stage=dilated_last_stage or bool(config.get("dilated_last_stage", False)),
            batch_norm=config.get("batch_norm", "frozen"),
        )


def _last_stage(config: Mapping[str, Any], stages: int) -> int:
    """Return how many stages are needed for the last feature map the config asks for."""
    features = config.get("out_features")
    if features:
        names = ["stem", *(f"stage{i}" for i in range(1, stages + 1))]
        if features[-1] not in names[1:]:
            raise ValueError(f"out_features must end in one of {names[1:]}, got {features}; correct the config.")
        return names.index(features[-1])
    indices = config.get("out_indices")
    return int(indices[-1]) % (stages + 1) if indices else stages


class FrozenBatchNorm2d(nn.Module):
    """Scale and shift with fixed statistics and fixed affine parameters."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)


def _norm(kind: str, channels: int) -> nn.Module:
    return FrozenBatchNorm2d(channels) if kind == "frozen" else nn.BatchNorm2d(channels)


class Block(nn.Module):
    """A residual block: a chain of convolutions, each with its norm, beside a shortcut."""

    def __init__(self, specs: list[tuple[int, int, int, int, int]], norm: str) -> None:
        """Build from one (in channels, out channels, kernel, stride, dilation) per convolution."""
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2 * dilation, dilation, bias=False)
            for c_in, c_out, kernel, stride, dilation in specs
        )
        self.norms = nn.ModuleList(_norm(norm, spec[1]) for spec in specs)
        stride = max(spec[3] for spec in specs)
        c_in, c_out = specs[0][0], specs[-1][1]
        projects = stride != 1 or c_in != c_out
        self.shortcut_conv = nn.Conv2d(c_in, c_out, 1, stride, bias=False) if projects else None
        self.shortcut_norm = _norm(norm, c_out) if projects else None

    def forward(self, x: Tensor) -> Tensor:
        residual = x
        if self.shortcut_conv is not None and self.shortcut_norm is not None:
            residual = self.shortcut_norm(self.shortcut_conv(x))
        last = len(self.convs) - 1
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = norm(conv(x))
            if i < last:
                x = F.relu(x)
        return F.relu(x + residual)


def _block(config: ResNetConfig, c_in: int, c_out: int, stride: int, dilation: int) -> Block:
    if config.layer_type == "basic":
        return Block([(c_in, c_out, 3, stride, dilation), (c_out, c_out, 3, 1, dilation)], config.batch_norm)
    inner = c_out // BOTTLENECK_REDUCTION
    first, second = (stride, 1) if config.downsample_in_bottleneck else (1, stride)
    specs = [(c_in, inner, 1, first, 1), (inner, inner, 3, second, dilation), (inner, c_out, 1, 1, 1)]
    return Block(specs, config.batch_norm)


class ResNet(nn.Module):
    """A ResNet without its classifier: pixels [B, C, H, W] to the last stage's features [B, D, H / stride, W / stride].

    >>> config = ResNetConfig(embedding_size=8, hidden_sizes=(8, 16), depths=(1, 1), layer_type="basic")
    >>> ResNet(config)(torch.zeros(1, 3, 32, 48)).shape
    torch.Size([1, 16, 4, 6])
    """

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        self.out_channels = config.hidden_sizes[-1]
        self.stride = 4
        self.stem_conv = nn.Conv2d(config.num_channels, config.embedding_size, 7, 2, 3, bias=False)
        self.stem_norm = _norm(config.batch_norm, config.embedding_size)
        self.stages = nn.ModuleList()
        c_in = config.embedding_size
        for i, (c_out, depth) in enumerate(zip(config.hidden_sizes, config.depths, strict=True)):
            stride = 2 if i > 0 or config.downsample_in_first_stage else 1
            dilated = config.dilated_last_stage and i == len(config.depths) - 1 and stride == 2
            self.stride *= 1 if dilated else stride
            # As published: the first block of a dilated stage still has dilation 1, so that its weights fit.
            blocks = [_block(config, c_in, c_out, 1 if dilated else stride, 1)]
            blocks += [_block(config, c_out, c_out, 1, 2 if dilated else 1) for _ in range(depth - 1)]
            self.stages.append(nn.Sequential(*blocks))
            c_in = c_out
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, pixel_values: Tensor) -> Tensor:
        x = F.relu(self.stem_norm(self.stem_conv(pixel_values)))
        x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
        for stage in self.stages:
            x = stage(x)
        return x

    @torch.no_grad()
    def fold_norms(self) -> None:
        """Fold every norm's running statistics into the convolution before it, in place: the same answers as in
        evaluation mode, one pass over the features less per norm. There is no training afterwards.
        """
        self.stem_conv, self.stem_norm = _folded(self.stem_conv, self.stem_norm), nn.Identity()
        for block in self.modules():
            if isinstance(block, Block):
                block.convs = nn.ModuleList(map(_folded, block.convs, block.norms))
                block.norms = nn.ModuleList(nn.Identity() for _ in block.norms)
                if block.shortcut_conv is not None and block.shortcut_norm is not None:
                    block.shortcut_conv = _folded(block.shortcut_conv, block.shortcut_norm)
                    block.shortcut_norm = nn.Identity()


def _folded(conv: nn.Conv2d, norm: nn.Module) -> nn.Conv2d:
    """Return the convolution that does what `conv` and then `norm` do: scale its filters, shift its output."""
    if isinstance(norm, nn.Identity):
        return conv
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    folded = copy.deepcopy(conv)
    folded.weight.copy_(conv.weight * scale[:, None, None, None])
    folded.bias = nn.Parameter(norm.bias - norm.running_mean * scale)
    return folded

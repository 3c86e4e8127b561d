"""What a model is: the `ModelSpec` record and the preprocessing that belongs to its weights."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Task = Literal["segment", "classify", "detect"]
Resample = Literal["nearest", "bilinear", "bicubic", "lanczos"]


class Record(BaseModel):
    """Freeze a record and refuse fields it does not have; the docstring under a field is its help text."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Preprocessing(Record):
    """How a photograph becomes the network's input; belongs to the weights.

    Exactly one way of sizing is used: `height` and `width` (stretched to exactly that, as published SegFormer and
    ViT models expect), or `shortest_edge` with `longest_edge` as its limit (DETR), or `longest_edge` alone (the
    aspect ratio is kept and both sides are rounded to `multiple_of`). Mean and standard deviation are in units of
    the rescaled image (0 to 1).
    """

    height: int | None = None
    width: int | None = None
    shortest_edge: int | None = None
    longest_edge: int | None = None
    multiple_of: int = 1
    resample: Resample = "bilinear"
    rescale_factor: float = 1 / 255
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


class ModelFile(Record):
    """One file of a model: where it lies inside its source, and what it must hash to."""

    path: str
    """Relative path inside the model's folder or repository."""
    sha256: str | None = None
    size: int | None = None
    """Bytes."""


class ModelSpec(Record):
    """What a model is: name, task, architecture, source, formats, labels, preprocessing and licence."""

    name: str
    """What a person types: "starter/clothes", "mattmdjaga/segformer_b2_clothes", or a folder's path."""
    task: Task
    architecture: Literal["segformer", "vit", "detr", "transformers"]
    """"transformers" is the general path: any other network that library can load, with the extra [torch]."""
    source: str
    """Where the files are: "starter:clothes", "hub:owner/name", or "folder:/path"."""
    revision: str | None = None
    """Pinned commit of a hub repository."""
    weights: ModelFile | None = None
    """The safetensors file."""
    onnx: ModelFile | None = None
    """The ONNX file, where the source has one: what runs without torch."""
    config: dict[str, Any] = Field(default_factory=dict)
    """The network's own configuration, as its config.json says it."""
    preprocessing: Preprocessing = Preprocessing()
    labels: tuple[str, ...] = ()
    """Name of every output class by index; "" for an index that means nothing (COCO's gaps)."""
    mirrored: tuple[tuple[int, int], ...] = ()
    """Pairs of labels that trade places when a photograph is mirrored (left and right shoe)."""
    multi_label: bool = False
    """Classification by sigmoid per class instead of softmax."""
    license: str = "unknown"
    commercial: bool | None = None
    """Whether the licence allows commercial use; None where it does not say."""
    description: str = ""
    not_for: str = ""
    """What the model must not be used for."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """Published or measured figures, by name."""

    @property
    def is_starter(self) -> bool:
        """Tell whether the weights come with the imagesmith-starters package."""
        return self.source.startswith("starter:")


BUILDERS: dict[str, str] = {
    "segformer": "imagesmith.nn.segformer:SegFormer",
    "vit": "imagesmith.nn.vit:ViT",
    "detr": "imagesmith.nn.detr:Detr",
}
"""Dotted name of the torch module of each native architecture, so that engines need not import `nn`."""

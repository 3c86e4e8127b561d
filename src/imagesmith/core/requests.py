"""The request records: the only place where defaults live.

Python arguments, command line options, JSON bodies and web forms are all made from these fields; the docstring
under a field is its help text.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from imagesmith.core.errors import BadInput, did_you_mean
from imagesmith.core.specs import Record

R = TypeVar("R", bound=Record)

EngineName = Literal["auto", "torch", "onnx", "openvino"]
Provider = Literal["cpu", "cuda", "tensorrt", "coreml", "directml", "openvino"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]


class EngineOptions(Record):
    """Where and how a model runs."""

    engine: EngineName = "auto"
    """Library that runs the model; auto takes the fastest that is installed and has the model's format."""
    device: str = "auto"
    """Device: auto, cpu, cuda, cuda:1, mps, xpu, directml. One that is named and missing is an error."""
    provider: Provider | None = None
    """Execution provider of ONNX Runtime."""
    precision: Precision = "auto"
    """Arithmetic; auto is fp32 for understanding, whose labels stay exact."""
    threads: int | None = Field(default=None, ge=1, le=1024)
    """Processor threads; unset lets the library take all cores."""


class SeeRequest(EngineOptions):
    """What every request that looks at photographs shares."""

    schema_version: Literal[1] = 1
    model: str | None = None
    """Model by catalogue name, hub id or folder; unset takes the starter of the task."""
    allow_pickle: bool = False
    """Load weights that exist only as a pickle, restricted to plain tensors."""
    batch_size: int | Literal["auto"] = "auto"
    """Photographs per network call; auto goes by free memory."""
    resolution: int | None = Field(default=None, ge=32, le=4096)
    """Longest side the network sees, in pixels; unset is what the model was trained for."""
    max_megapixels: float = Field(default=25.0, gt=0)
    """Refuse larger photographs before decoding them."""

    @model_validator(mode="after")
    def _check_batch(self) -> SeeRequest:
        if self.batch_size != "auto" and self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1 or auto, not {self.batch_size}")
        return self


class SegmentRequest(SeeRequest):
    """Cut photographs into labelled regions, pixel by pixel."""

    threshold: float | None = Field(default=None, ge=0, le=1)
    """Confidence below which a pixel is "unsure"; unset labels every pixel."""
    probabilities: bool = False
    """Keep the probability of every class at every pixel (large)."""
    confidence: bool = False
    """Keep the probability of the winning class at every pixel."""
    entropy: bool = False
    """Keep the entropy (in nats) at every pixel."""
    crop: Literal["auto", "none"] = "auto"
    """auto looks at the head only where the model reads faces and the photograph shows more than a face."""


class ClassifyRequest(SeeRequest):
    """Name what a whole photograph shows."""

    top_k: int = Field(default=5, ge=1)
    """How many labels to return, most probable first."""
    crop: Literal["auto", "none"] = "auto"
    """auto looks at the head only where the model reads faces and the photograph shows more than a face."""


class DetectRequest(SeeRequest):
    """Find objects and draw a box around each."""

    threshold: float = Field(default=0.5, ge=0, le=1)
    """Least score a detection must have."""
    top_n: int | None = Field(default=None, ge=1)
    """Keep at most this many detections per photograph, best first."""
    nms: Literal["none", "hard", "soft"] = "none"
    """Suppress overlapping boxes of one label; DETR rarely needs it."""
    nms_iou: float = Field(default=0.7, ge=0, le=1)
    """Overlap (intersection over union) above which boxes count as the same."""


class EditRequest(SeeRequest):
    """Change a named region of a photograph; outside the feather every pixel stays as it was."""

    region: str
    """What to change: a label ("dress"), a word ("clothes", "upper body", "person 2", "left shoe"),
    "box:x0,y0,x1,y1", "point:x,y"; join with + (and), - (without) and &
    (where both are), as in "person - hair"."""
    recolor: str | None = None
    """New colour, by name or #rrggbb; shading and texture stay."""
    cut_out: bool = False
    """Keep only the region, on transparency."""
    blur: float | None = Field(default=None, gt=0)
    """Blur the region; the radius in pixels."""
    pixelate: int | None = Field(default=None, ge=2)
    """Replace the region by squares of this many pixels."""
    background: str | None = None
    """Replace everything but the region: a colour, or the path of a picture."""
    brightness: float | None = Field(default=None, ge=-1, le=1)
    """Lighten (up to 1) or darken (down to -1) the region."""
    contrast: float | None = Field(default=None, ge=-1, le=1)
    """Raise or lower contrast inside the region."""
    saturation: float | None = Field(default=None, ge=-1, le=1)
    """Raise or lower the colourfulness of the region."""
    temperature: float | None = Field(default=None, ge=-1, le=1)
    """Warm (up to 1) or cool (down to -1) the region."""
    strength: float = Field(default=1.0, ge=0, le=1)
    """How much of the change is applied; 1 is all of it."""
    grow: int = Field(default=0, ge=-512, le=512)
    """Grow the region by this many pixels, or shrink it where negative."""
    feather: float = Field(default=2.0, ge=0, le=256)
    """Width in pixels of the soft edge; blur puts it outside the region, pixelate has none."""
    person: int | None = Field(default=None, ge=1)
    """Take the region of this person only, counted from the left."""


def make_request(kind: type[R], values: dict[str, Any]) -> R:
    """Validate `values` into a request record, or raise one `BadInput` sentence.

    >>> make_request(DetectRequest, {"threshold": 0.7}).threshold
    0.7
    """
    unknown = [name for name in values if name not in kind.model_fields]
    if unknown:
        name = unknown[0]
        near = did_you_mean(name, kind.model_fields)
        raise BadInput(f'{kind.__name__} has no option "{name}".{near} It has: {", ".join(kind.model_fields)}.')
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise BadInput(validation_sentence(error)) from None


def validation_sentence(error: ValidationError) -> str:
    """Turn pydantic's first complaint into one sentence with field, value and expectation."""
    first = error.errors()[0]
    parts = [str(part) for part in first["loc"] if not str(part).startswith(("literal", "constrained"))]
    field = ".".join(parts) or "value"
    message = first["msg"].removeprefix("Value error, ")
    return f"{field}: {message[0].lower()}{message[1:]}, but got {first.get('input')!r}."

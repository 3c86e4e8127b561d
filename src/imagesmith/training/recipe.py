"""The recipe: everything a training needs to know, one validated record that is also one YAML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args

import yaml
from pydantic import BaseModel, Field, TypeAdapter, ValidationError, model_validator

from imagesmith.core.errors import BadInput, did_you_mean
from imagesmith.core.requests import validation_sentence
from imagesmith.core.specs import Preprocessing, Record

Probability = Annotated[float, Field(ge=0, le=1)]
SizeHW = tuple[Annotated[int, Field(ge=8)], Annotated[int, Field(ge=8)]]


class Augmentation(Record):
    """How training photographs are varied; every probability is per photograph."""

    scale: tuple[float, float] = (0.5, 2.0)
    """Smallest and largest magnification; 1 shows the whole photograph."""
    aspect: float = Field(default=0.15, ge=0, le=1)
    """Largest change of the aspect ratio, as a logarithm."""
    upper_body: Probability = 0.0
    """Show only the upper part of what is labelled: people photograph themselves half-length."""
    flip: Probability = 0.5
    """Mirror; labels that have a side trade places."""
    rotate: float = Field(default=10.0, ge=0, le=180)
    """Largest rotation in degrees."""
    rotate_probability: Probability = 0.25
    color: float = Field(default=0.3, ge=0, le=1)
    """Strength of changes of brightness, contrast, saturation, white balance and gamma."""
    degrade: Probability = 0.1
    """Blur, or add noise."""
    copy_paste: Probability = 0.0
    """Paste what is labelled in another photograph on top."""
    recolor: Probability = 0.0
    """Per class that may be recoloured: give it another colour and keep its shading."""
    recolor_labels: tuple[str, ...] | None = None
    """Labels that may be recoloured; unset is every label but the background."""
    erase: Probability = 0.0
    """Grey out a random rectangle (classification)."""

    @model_validator(mode="after")
    def _check_scale(self) -> Augmentation:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must rise from above 0, such as [0.5, 2], not {list(self.scale)}")
        return self


class Stage(Record):
    """A part of the training with its own size: small pictures first are several times cheaper."""

    until: float = Field(default=1.0, gt=0, le=1)
    """Share of all steps at which the stage ends."""
    size_hw: SizeHW
    """Height and width of the training pictures."""
    batch_size: int | None = Field(default=None, ge=1)
    """Unset takes train.batch_size."""
    loss_stride: int = Field(default=4, ge=1)
    """Segmentation: the loss looks at every n-th pixel a side (the network answers at every fourth)."""


class TrainSettings(Record):
    """How long and how fast to learn."""

    steps: int = Field(ge=1)
    """Optimizer steps."""
    batch_size: int = Field(default=16, ge=1)
    stages: tuple[Stage, ...] = Field(min_length=1)
    seed: int = Field(default=0, ge=0)
    learning_rate: float = Field(default=6e-5, gt=0)
    learning_rates: dict[str, float] = Field(default_factory=dict)
    """Factor of the learning rate by part of the network, such as {head: 10}."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Not applied to biases and normalisation."""
    schedule: Literal["poly", "cosine", "constant"] = "poly"
    power: float = Field(default=1.0, gt=0)
    """Exponent of the poly schedule."""
    warmup_steps: int = Field(default=0, ge=0)
    clip_norm: float | None = Field(default=1.0, gt=0)
    """Largest norm of all gradients together."""
    accumulate: int = Field(default=1, ge=1)
    """Batches per optimizer step."""
    ema: float | None = Field(default=0.999, gt=0, lt=1)
    """Decay of the moving average of the weights, which is what is measured and kept; unset is none."""
    freeze: tuple[str, ...] = ()
    """Parts that do not learn: encoder, head, backbone, stage0 ..., or a pattern over parameter names."""
    precision: Literal["fp32", "bf16"] = "fp32"
    device: str = "auto"
    threads: int | None = Field(default=None, ge=1)
    """Processor threads; unset leaves PyTorch's choice."""
    log_every: int = Field(default=50, ge=1)
    validate_every: int = Field(default=500, ge=1)
    """Steps between measurements; the best weights so far are kept."""
    save_every: int = Field(default=500, ge=1)
    """Steps between checkpoints to resume from."""
    keep_last: int = Field(default=2, ge=1)
    """How many checkpoints stay."""

    @model_validator(mode="after")
    def _check_stages(self) -> TrainSettings:
        ends = [stage.until for stage in self.stages]
        if ends != sorted(set(ends)) or ends[-1] != 1:
            raise ValueError(f"the stages' until must rise and end at 1, not {ends}")
        if self.warmup_steps > self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} exceeds the {self.steps} steps")
        return self

    def stage_at(self, step: int) -> Stage:
        """Return the stage a step (from 0) belongs to."""
        return next((stage for stage in self.stages if step < round(stage.until * self.steps)), self.stages[-1])

    def batch_size_at(self, step: int) -> int:
        """Return how many examples a step (from 0) sees, over all accumulated batches."""
        return (self.stage_at(step).batch_size or self.batch_size) * self.accumulate


class RecipeBase(Record):
    """What every recipe of the understanding half has."""

    schema_version: Literal[1] = 1
    name: str = "model"
    description: str = ""
    license: str = "unknown"
    """Licence of the weights, which the data decides."""
    init: str | None = None
    """Model to start from: a catalogue name, a hub id or a folder; unset starts from random weights."""
    model: dict[str, Any] = Field(default_factory=dict)
    """The network's configuration, in the words of published config.json files; added to that of `init`."""
    preprocessing: Preprocessing = Preprocessing(longest_edge=512, multiple_of=32)
    """How the finished model will see photographs; also how it is measured."""
    augment: Augmentation = Augmentation()
    train: TrainSettings
    weights_dtype: Literal["float32", "float16"] = "float32"
    """How the finished weights are stored; they are always computed in float32."""


class SegmentData(Record):
    """A folder of photographs and a folder of masks with the same names."""

    path: str
    images: str = "images"
    masks: str = "masks"
    labels: str = "labels.json"
    """JSON object from class id to name."""
    workers: int = Field(default=1, ge=0)
    cache: bool = True
    """Keep decoded photographs in memory."""
    repeat_below: Probability = 0.0
    """Show photographs with a class that occurs in fewer than this share of photographs more often."""
    repeat_power: float = Field(default=0.5, ge=0)


class SegmentLoss(Record):
    """Cross-entropy per pixel, and intersection over union per class."""

    cross_entropy: float = Field(default=1.0, ge=0)
    jaccard: float = Field(default=1.0, ge=0)
    class_weight_power: float = Field(default=0.0, ge=0, le=1)
    """Weigh classes by frequency to minus this power: 0 all alike, 1 inverse frequency."""
    class_weight_max: float = Field(default=10.0, gt=0)


class SegmentRecipe(RecipeBase):
    """Teach a SegFormer to name every pixel."""

    task: Literal["segment"]
    architecture: Literal["segformer"] = "segformer"
    data: SegmentData
    loss: SegmentLoss = SegmentLoss()


class ClassifyData(Record):
    """A folder with one folder of photographs per class."""

    path: str
    group: Literal["file", "person"] = "file"
    """What stays together in the split: single files, or all photographs of a person (name minus last number)."""
    workers: int = Field(default=1, ge=0)
    cache: bool = True


class ClassifyLoss(Record):
    """Cross-entropy over the classes."""

    label_smoothing: Probability = 0.0
    class_weight_power: float = Field(default=0.0, ge=0, le=1)
    class_weight_max: float = Field(default=10.0, gt=0)
    mixup: float = Field(default=0.0, ge=0)
    """Parameter of the beta distribution that mixes pairs of photographs; 0 is none."""


class ClassifyRecipe(RecipeBase):
    """Teach a ViT to name a whole photograph."""

    task: Literal["classify"]
    architecture: Literal["vit"] = "vit"
    data: ClassifyData
    loss: ClassifyLoss = ClassifyLoss()


class DetectData(Record):
    """Photographs with boxes in one COCO JSON file, and optionally a pack of masks to compose scenes from."""

    path: str
    images: str = "images"
    annotations: str = "annotations.json"
    masks_path: str | None = None
    """Image and mask folders (as for segmentation) whose people and garments give boxes and composed scenes."""
    labels: tuple[str, ...] | None = None
    """Classes to learn, in order; unset takes the annotations' categories."""
    workers: int = Field(default=1, ge=0)
    cache: bool = True


class DetectLoss(Record):
    """DETR's criterion; the defaults are the published weights."""

    classes: float = Field(default=1.0, ge=0)
    bbox: float = Field(default=5.0, ge=0)
    giou: float = Field(default=2.0, ge=0)
    eos: float = Field(default=0.1, ge=0)
    """Weight of "no object" inside the cross-entropy."""


class DetectRecipe(RecipeBase):
    """Teach a DETR to find objects; the number of queries is model.num_queries."""

    task: Literal["detect"]
    architecture: Literal["detr"] = "detr"
    data: DetectData
    loss: DetectLoss = DetectLoss()


VisionRecipe: TypeAlias = SegmentRecipe | ClassifyRecipe | DetectRecipe
_TASKS: dict[str, type[RecipeBase]] = {
    get_args(kind.model_fields["task"].annotation)[0]: kind for kind in (SegmentRecipe, ClassifyRecipe, DetectRecipe)
}
RECIPES: TypeAdapter[VisionRecipe] = TypeAdapter(Annotated[VisionRecipe, Field(discriminator="task")])
"""Validates any recipe; its `json_schema()` serves editors."""


def load_recipe(paths: Sequence[str | Path], overrides: Sequence[str] = ()) -> VisionRecipe:
    """Read YAML files, merged left to right, and apply overrides such as ``train.steps=100``.

    Raises `BadInput` for a file that is missing or no YAML mapping, and for a key no recipe has.
    """
    values: dict[str, Any] = {}
    for path in paths:
        values = merge(values, _read_yaml(Path(path)))
    return make_recipe(values, overrides)


def make_recipe(values: Mapping[str, Any], overrides: Sequence[str] = ()) -> VisionRecipe:
    """Validate a mapping (with dotted overrides applied) into a recipe, or raise one `BadInput` sentence.

    >>> make_recipe({"task": "segment", "data": {"path": "p"}, "train": {"stpes": 3}})
    Traceback (most recent call last):
    imagesmith.core.errors.BadInput: The recipe has no "train.stpes". Did you mean "steps"?
    """
    merged: dict[str, Any] = dict(values)
    for override in overrides:
        merged = merge(merged, parse_override(override))
    task = merged.get("task")
    if task not in _TASKS:
        known = ", ".join(_TASKS)
        said = "it names none" if task is None else f"it says {task!r}"
        raise BadInput(f"A recipe's task is one of {known}, but {said}.{did_you_mean(str(task), _TASKS)}")
    try:
        return RECIPES.validate_python(merged)
    except ValidationError as error:
        raise BadInput(_sentence(error, _TASKS[task])) from None


def dump_recipe(recipe: VisionRecipe) -> str:
    """Return the recipe as YAML, complete with every default."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def merge(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``first`` with ``second`` on top; mappings are merged key by key, all else is replaced.

    >>> merge({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}})
    {'a': {'b': 3, 'c': 2}}
    """
    result = dict(first)
    for key, value in second.items():
        below = result.get(key)
        result[key] = merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return result


def parse_override(text: str) -> dict[str, Any]:
    """Read ``a.b=value`` (the value is YAML) into nested mappings.

    >>> parse_override("train.steps=100")
    {'train': {'steps': 100}}
    """
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise BadInput(f'An override looks like train.steps=100, but got "{text}".')
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        raise BadInput(f'The value of the override "{text}" is not valid YAML.') from None
    for part in reversed(key.strip().split(".")):
        parsed = {part: parsed}
    return dict(parsed)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f'The recipe "{path}" cannot be read: {error.strerror}.') from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f'The recipe "{path}" is not valid YAML: {" ".join(str(error).split())}.') from None
    if not isinstance(values, dict):
        raise BadInput(f'The recipe "{path}" must be a YAML mapping of settings, not {type(values).__name__}.')
    return values


def _sentence(error: ValidationError, model: type[BaseModel]) -> str:
    """Explain the first complaint; for an unknown key, name the nearest known one."""
    complaints = error.errors()
    # A misspelt key also leaves the right one missing: the misspelling is what helps.
    first = next((one for one in complaints if one["type"] == "extra_forbidden"), complaints[0])
    location = [str(part) for part in first["loc"][1:]]
    if first["type"] != "extra_forbidden":
        return f"The recipe does not fit: {validation_sentence(error).removeprefix(str(first['loc'][0]) + '.')}"
    fields = _fields_at(model, location[:-1])
    near = did_you_mean(location[-1], fields) or f" Known here: {', '.join(fields)}."
    return f'The recipe has no "{".".join(location)}".{near}'


def _fields_at(model: type[BaseModel], location: Sequence[str]) -> list[str]:
    """Return the field names of the record at a place inside another."""
    for part in location:
        field = model.model_fields.get(part)
        if field is None:
            continue
        kinds = [field.annotation, *get_args(field.annotation)]
        model = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), model)
    return list(model.model_fields)

"""The recipe: everything a training needs to know, one validated record that is also one YAML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args

import yaml
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from imagesmith.core.errors import BadInput, did_you_mean
from imagesmith.core.requests import validation_sentence
from imagesmith.core.specs import Preprocessing, Record
from imagesmith.training.detect_settings import DetectData, DetectLoss, SceneSettings
from imagesmith.training.settings import Augmentation, Probability, TrainSettings


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


class DetectRecipe(RecipeBase):
    """Teach a DETR to find objects; the number of queries is model.num_queries."""

    task: Literal["detect"]
    architecture: Literal["detr"] = "detr"
    data: DetectData
    scenes: SceneSettings = SceneSettings()
    """How examples are drawn; `augment` is for the other tasks."""
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
    imagesmith.core.errors.BadInput: The recipe has no "train.stpes". Did you mean "steps" or "stages"?
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

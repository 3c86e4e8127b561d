"""Labelled photographs as people keep them: image and mask folders, class folders, COCO annotations.

Nothing is decoded here but masks, one at a time; a data set is a list of paths.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from imagesmith.core.errors import BadImage, BadInput, did_you_mean
from imagesmith.core.specs import Task
from imagesmith.evaluation.splits import Group, Split, natural_group, select
from imagesmith.image.records import plain_name

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"})
GroupChoice = Literal["auto", "file", "person"]


@dataclass(frozen=True)
class Segmented:
    """Photographs with a mask of class ids each; `labels` are the ids' names, empty where the data does not say."""

    photos: tuple[Path, ...]
    masks: tuple[Path, ...]
    labels: tuple[str, ...]
    group: Group


@dataclass(frozen=True)
class Classified:
    """Photographs with one class each; `truth` indexes `labels`, `people` names who is shown where that matters."""

    photos: tuple[Path, ...]
    truth: tuple[int, ...]
    labels: tuple[str, ...]
    group: Group


@dataclass(frozen=True)
class Boxed:
    """Photographs with COCO annotations; `image_ids` are theirs, `truth` is the part of the file about them."""

    photos: tuple[Path, ...]
    image_ids: tuple[int, ...]
    truth: dict[str, Any]
    group: Group


DataSet = Segmented | Classified | Boxed


def open_dataset(task: Task, data: Path, split: Split = "val", group: GroupChoice = "auto") -> DataSet:
    """List the labelled photographs of one split.

    Segmentation wants `images/`, `masks/` of the same stems and, to map labels by name, `labels.json`; classification
    a folder per class; detection `annotations.json` (COCO) with `images/`, or the path of such a file. Raises
    `BadInput` where that is not what lies there, or where the split is empty.
    """
    readers: dict[Task, Callable[[Path, Split, GroupChoice], DataSet]] = {
        "segment": _read_segmented,
        "classify": _read_classified,
        "detect": _read_boxed,
    }
    if not data.exists():
        raise BadInput(f'The data folder "{data}" does not exist; give the folder of a pack.')
    found = readers[task](data, split, group)
    if not found.photos:
        raise BadInput(f'The split "{split}" of "{data}" has no labelled photograph; try --split all.')
    return found


def _read_segmented(data: Path, split: Split, group: GroupChoice) -> Segmented:
    masks = {path.stem: path for path in _images_in(data / "masks", data, "images/ and masks/")}
    photos = {path.stem: path for path in _images_in(data / "images", data, "images/ and masks/")}
    both = sorted(photos.keys() & masks.keys())
    chosen, kind = _choose(both, split, group)
    names = data / "labels.json"
    labels = read_labels(names) if names.exists() else ()
    return Segmented(tuple(photos[stem] for stem in chosen), tuple(masks[stem] for stem in chosen), labels, kind)


def _read_classified(data: Path, split: Split, group: GroupChoice) -> Classified:
    folders = sorted(path for path in data.iterdir() if path.is_dir() and not path.name.startswith("."))
    listed = [(path, index) for index, folder in enumerate(folders) for path in _images_in(folder, data, "a class")]
    if len(folders) < 2 or not listed:
        raise BadInput(
            f'"{data}" should hold one folder of photographs per class, at least two; it has {len(folders)}.'
        )
    by_name = {f"{path.parent.name}/{path.name}": (path, index) for path, index in listed}
    chosen, kind = _choose(list(by_name), split, group)
    return Classified(
        tuple(by_name[name][0] for name in chosen),
        tuple(by_name[name][1] for name in chosen),
        tuple(folder.name for folder in folders),
        kind,
    )


def _read_boxed(data: Path, split: Split, group: GroupChoice) -> Boxed:
    path = data if data.is_file() else data / "annotations.json"
    truth = read_coco(path)
    by_name: dict[str, dict[str, Any]] = {}
    for image in truth["images"]:
        if image["file_name"] in by_name:
            raise BadInput(f'"{path}" lists the image {image["file_name"]} twice; keep one of the entries.')
        by_name[image["file_name"]] = image
    chosen, kind = _choose(sorted(by_name), split, group)
    images = [by_name[name] for name in chosen]
    identities = {image["id"] for image in images}
    part = {
        "images": images,
        "categories": truth["categories"],
        "annotations": [item for item in truth["annotations"] if item["image_id"] in identities],
    }
    photos = tuple(_find_photo(path.parent, name) for name in chosen)
    return Boxed(photos, tuple(image["id"] for image in images), part, kind)


def read_coco(path: Path) -> dict[str, Any]:
    """Read a COCO annotation file, or say in one sentence what it lacks."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        lists = {key: list(content[key]) for key in ("images", "annotations", "categories")}
        for image in lists["images"]:
            image["id"], image["file_name"]
        for category in lists["categories"]:
            category["id"], category["name"]
        for item in lists["annotations"]:
            item["image_id"], item["category_id"], item["bbox"][3]
    except OSError as error:
        raise BadInput(f'"{path}" cannot be read ({error.strerror}); give a folder with annotations.json.') from None
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise BadInput(
            f'"{path}" is no COCO file for detection ({type(error).__name__}: {error}); it needs images with id and '
            "file_name, categories with id and name, annotations with image_id, category_id and bbox."
        ) from None
    return lists


def read_labels(path: Path) -> tuple[str, ...]:
    """Read label names from a JSON list, or from a JSON object of numbers (0, 1, 2 ...) to names."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        pairs = content.items() if isinstance(content, dict) else enumerate(content)
        names = {int(number): str(name) for number, name in pairs}
        return tuple(names[number] for number in range(len(names)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f'"{path}" should be a JSON object of class numbers (0, 1, ...) to names; {type(error).__name__}: {error}.'
        ) from None


def read_mask(path: Path) -> NDArray[np.uint8]:
    """Read class ids (H, W) from an 8-bit gray or palette image; a colour image is refused: colours name no class."""
    try:
        with PillowImage.open(path) as image:
            if image.mode not in ("L", "P"):
                raise BadImage(f'The mask "{path}" has mode {image.mode}; class ids are 8-bit gray or palette indices.')
            return np.asarray(image, dtype=np.uint8)
    except (OSError, SyntaxError, ValueError, PillowImage.DecompressionBombError) as error:
        raise BadImage(f'The mask "{path}" cannot be read: {error}.') from None


def map_labels(data_labels: Sequence[str], model_labels: Sequence[str], model: str) -> tuple[int, ...]:
    """Return for every label of the data the number of the model's label of that name.

    Names are compared without regard to case, hyphens and underscores. Raises `BadInput` for a label that the model
    does not know: it could only ever be wrong about it.

    >>> map_labels(["Hair", "left_shoe"], ["background", "left-shoe", "hair"], "m")
    (2, 1)
    """
    known: dict[str, int] = {}
    for number, name in enumerate(model_labels):
        known.setdefault(plain_name(name), number)
    known.pop("", None)
    unknown = [name for name in data_labels if plain_name(name) not in known]
    if unknown:
        near = did_you_mean(plain_name(unknown[0]), known)
        raise BadInput(
            f'The data has {len(unknown)} label(s) that {model} does not know, such as "{unknown[0]}".{near} Measure '
            "on data with the model's labels, or rename them in the data."
        )
    return tuple(known[plain_name(name)] for name in data_labels)


def _choose(names: Sequence[str], split: Split, group: GroupChoice) -> tuple[list[str], Group]:
    kind: Group = natural_group(names) if group == "auto" else group
    return select(names, split, kind), kind


def _images_in(folder: Path, data: Path, wanted: str) -> list[Path]:
    if not folder.is_dir():
        raise BadInput(f'"{data}" should hold {wanted}, but there is no folder "{folder.name}" in it.')
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def _find_photo(folder: Path, name: str) -> Path:
    inside = folder / "images" / name
    return inside if inside.exists() else folder / name

"""What a detector learns from: photographs with boxes (COCO) and people with a map of their garments (masks).

Both become records in memory, decoded once; `imagesmith.training.scenes` makes training examples of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from imagesmith.core.errors import BadInput
from imagesmith.evaluation.splits import Split, select

PERSON = "person"
# A part smaller than this share of its class (or of the person) is a speck of the annotation, not an object.
SPECK_SHARE = 0.06

GARMENT_GROUPS: dict[str, tuple[str, ...]] = {
    "hair": ("hair",),
    "hat": ("hat",),
    "top": ("blouse", "bodysuit", "hoodie", "jumper", "shirt", "sweater", "sweatshirt", "t-shirt", "top", "vest"),
    "outerwear": ("blazer", "cape", "cardigan", "coat", "jacket"),
    "dress": ("dress", "romper"),
    "pants": ("jeans", "leggings", "pants"),
    "skirt": ("skirt",),
    "shorts": ("shorts",),
    "shoes": (
        "boots", "clogs", "flats", "heels", "loafers", "pumps", "sandals", "shoes", "sneakers", "wedges",
    ),
    "bag": ("bag", "purse"),
}  # fmt: skip
"""Our garment classes, each with the labels of the clothes pack it stands for."""

UNCLEAR_GROUPS: dict[str, tuple[str, ...]] = {"suit": ("outerwear", "pants")}
"""Labels that are several of our classes in one: where one occurs, those classes count as not annotated."""

DETECT_LABELS: tuple[str, ...] = (PERSON, *GARMENT_GROUPS)
"""The classes of the clothes detector, in the order of their ids."""


@dataclass(frozen=True)
class BoxPhoto:
    """A photograph with boxes: `image` uint8 [H, W, 3], `boxes_xyxy` float32 [N, 4] pixels, `labels` [N] ids from 0.

    `labelled` [C] bool marks the classes that were annotated at all.
    """

    name: str
    image: NDArray[np.uint8]
    boxes_xyxy: NDArray[np.float32]
    labels: NDArray[np.int64]
    labelled: NDArray[np.bool_]


@dataclass(frozen=True)
class DressedPerson:
    """A photograph of one person: `image` uint8 [H, W, 3], `parts` uint8 [H, W], `labelled` [C] bool.

    In `parts` 0 is background and 1 + c is class c; 1 (the class "person") is whatever of the person is no garment.
    """

    name: str
    image: NDArray[np.uint8]
    parts: NDArray[np.uint8]
    labelled: NDArray[np.bool_]


def read_image(path: Path) -> NDArray[np.uint8]:
    """Decode a photograph of a pack to uint8 [H, W, 3]."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise BadInput(f"{path} cannot be read as an image ({error}); replace or remove the file.") from error


def load_coco(
    folder: Path,
    labels: Sequence[str],
    split: Split = "all",
    images: str = "images",
    annotations: str = "annotations.json",
) -> list[BoxPhoto]:
    """Read a COCO folder (a file of annotations and a folder of images in it) for a list of class names.

    Category ids may have gaps and any order: they are mapped by name; categories of other names are left out. A class
    counts as annotated where the file has a category for it. Crowd boxes are left out, and a class with a crowd in an
    image counts as not annotated there. Images come in the order of their file names.
    """
    source = read_annotations(folder / annotations)
    ids = {name: index for index, name in enumerate(labels)}
    names = {category["id"]: category["name"] for category in source["categories"]}
    known = np.array([name in names.values() for name in labels])
    if not known.any():
        raise BadInput(f"{folder} has none of the classes {', '.join(labels)}; it has {sorted(names.values())}.")
    by_image: dict[int, list[dict[str, Any]]] = {}
    for annotation in source["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    files = {image["file_name"]: image["id"] for image in source["images"]}
    photos = []
    for name in select(sorted(files), split):
        wanted = [a for a in by_image.get(files[name], []) if names.get(a["category_id"]) in ids]
        labelled = known.copy()
        labelled[[ids[names[a["category_id"]]] for a in wanted if a.get("iscrowd")]] = False
        objects = [a for a in wanted if not a.get("iscrowd")]
        image = read_image(folder / images / name)
        boxes, kept = clean_boxes([a["bbox"] for a in objects], image.shape[:2])
        found = np.array([ids[names[a["category_id"]]] for a in objects], dtype=np.int64)[kept]
        photos.append(BoxPhoto(name, image, boxes, found, labelled))
    return photos


def category_names(path: Path) -> tuple[str, ...]:
    """Return the names of a COCO file's categories, in the order of their ids."""
    categories = read_annotations(path)["categories"]
    return tuple(category["name"] for category in sorted(categories, key=lambda category: category["id"]))


def read_annotations(path: Path) -> dict[str, Any]:
    """Read a COCO file of boxes; raises BadInput where it is none."""
    try:
        source = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read as COCO annotations ({error}); give another folder.") from error
    missing = {"images", "annotations", "categories"} - set(source if isinstance(source, dict) else ())
    if missing:
        raise BadInput(f"{path} lacks {', '.join(sorted(missing))}; a COCO file has images, annotations, categories.")
    return dict(source)


def clean_boxes(
    boxes_xywh: Iterable[Sequence[float]], size_hw: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Turn COCO boxes into corners clipped to the image; returns those of at least one pixel and which they were.

    >>> clean_boxes([[-5, 0, 15, 10], [3, 3, 0, 4]], (20, 20))[0].tolist()
    [[0.0, 0.0, 10.0, 10.0]]
    """
    boxes = np.array(list(boxes_xywh), dtype=np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    height, width = size_hw[:2]
    clipped = np.clip(boxes, 0, np.array([width, height, width, height], dtype=np.float32))
    kept = ((clipped[:, 2:] - clipped[:, :2]) >= 1).all(axis=1)
    return clipped[kept], kept


def load_people(
    folder: Path, split: Split = "all", groups: Mapping[str, Sequence[str]] = GARMENT_GROUPS
) -> list[DressedPerson]:
    """Read a mask folder (`images/`, `masks/`, `labels.json`) as people with our garment classes."""
    path = folder / "labels.json"
    try:
        names = {int(key): name for key, name in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError) as error:
        raise BadInput(f"{path} cannot be read as a table of labels ({error}); give a folder with masks.") from error
    table, unclear = part_table(names, groups)
    stems = sorted(image.stem for image in (folder / "images").glob("*.jpg"))
    if not stems:
        raise BadInput(f"{folder} has no images/*.jpg; give a folder with images and masks.")
    return [_load_person(folder, stem, table, unclear, tuple(groups)) for stem in select(stems, split)]


def part_table(
    names: Mapping[int, str], groups: Mapping[str, Sequence[str]]
) -> tuple[NDArray[np.uint8], dict[int, tuple[int, ...]]]:
    """Return the lookup table [256] from pack ids to parts, and which of our ids each unclear pack id hides."""
    part_of = {name: 2 + index for index, members in enumerate(groups.values()) for name in members}
    ours = {name: 1 + index for index, name in enumerate(groups)}
    table = np.zeros(256, dtype=np.uint8)
    for index, name in names.items():
        table[index] = 0 if name == "background" else part_of.get(name, 1)
    unclear = {
        index: tuple(ours[g] for g in UNCLEAR_GROUPS[name] if g in ours)
        for index, name in names.items()
        if name in UNCLEAR_GROUPS
    }
    return table, unclear


def _load_person(
    folder: Path,
    stem: str,
    table: NDArray[np.uint8],
    unclear: Mapping[int, tuple[int, ...]],
    garments: Sequence[str],
) -> DressedPerson:
    image = read_image(folder / "images" / f"{stem}.jpg")
    try:
        with Image.open(folder / "masks" / f"{stem}.png") as opened:
            mask = np.asarray(opened)
    except OSError as error:
        raise BadInput(f"The mask of {stem} in {folder} cannot be read ({error}); replace the file.") from error
    if mask.shape != image.shape[:2]:
        raise BadInput(f"The mask of {stem} in {folder} is {mask.shape}, its image {image.shape[:2]}; make them equal.")
    labelled = np.ones(1 + len(garments), dtype=bool)
    for index in np.unique(mask):
        labelled[list(unclear.get(int(index), ()))] = False
    return DressedPerson(stem, image, without_specks(table[mask]), labelled)


def without_specks(parts: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give specks of a garment to the person and specks of the person to the background.

    >>> parts = np.zeros((9, 9), np.uint8); parts[1:6, 1:6] = 3; parts[8, 8] = 3
    >>> int(without_specks(parts)[8, 8])
    0
    """
    cleaned = parts.copy()
    for part in np.unique(parts):
        if part > 1:
            cleaned[_specks(parts == part)] = 1
    cleaned[_specks(parts > 0)] = 0
    return cleaned


def _specks(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    components, count = ndimage.label(mask, structure=np.ones((3, 3)))
    if count < 2:
        return np.zeros_like(mask)
    sizes = np.bincount(components.ravel())
    small = sizes < SPECK_SHARE * mask.sum()
    small[0] = False
    return np.asarray(small[components])


def extent(mask: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """Return the box (left, top, right, bottom) of the true pixels, or None where there are none."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def photo_of(person: DressedPerson) -> BoxPhoto:
    """Derive the boxes of a person and of the garments from the map of parts."""
    labels, boxes = part_boxes(person.parts, len(person.labelled))
    return BoxPhoto(person.name, person.image, boxes, labels, person.labelled)


def part_boxes(parts: NDArray[np.uint8], classes: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return labels [N] and boxes [N, 4] (pixels) of the classes in a map of parts; the person is the union.

    >>> part_boxes(np.array([[0, 1, 3]], np.uint8), 3)[0].tolist()
    [0, 2]
    """
    labels, boxes = [], []
    present = np.bincount(parts.ravel(), minlength=classes + 1)
    for label in range(classes):
        if label and not present[label + 1]:
            continue
        box = extent(parts > 0 if label == 0 else parts == label + 1)
        if box is not None:
            labels.append(label)
            boxes.append(box)
    return np.array(labels, dtype=np.int64), np.array(boxes, dtype=np.float32).reshape(-1, 4)

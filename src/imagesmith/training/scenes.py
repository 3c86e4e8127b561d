"""Training examples for a detector: crops of real photographs and scenes composed of people on other backgrounds.

Pure functions of records and a random generator, NumPy and Pillow only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imagesmith.training.augment import Example, Window, cut, degrade, jitter_colour, recolour
from imagesmith.training.detect_settings import SceneSettings
from imagesmith.training.detection import BoxPhoto, DressedPerson, extent, part_boxes

# An object of which less than this share can be seen is not asked for.
VISIBLE_SHARE = 0.35
RECOLOUR_PROBABILITY = 0.3


class DetectionExample(NamedTuple):
    """An image uint8 [H, W, 3], class ids [N], boxes [N, 4] (centre form, 0..1), which classes were annotated [C]."""

    image: NDArray[np.uint8]
    labels: NDArray[np.int64]
    boxes_cxcywh: NDArray[np.float32]
    labelled: NDArray[np.bool_]


@dataclass(frozen=True)
class ScenePool:
    """Hold what scenes are made of: photographs with boxes, cut-out people, and pictures without people."""

    photos: Sequence[BoxPhoto]
    people: Sequence[DressedPerson]
    backgrounds: Sequence[NDArray[np.uint8]]
    classes: int


@dataclass
class _Canvas:
    image: NDArray[np.uint8]
    labelled: NDArray[np.bool_]
    # Which pasted person owns a pixel: 0 is nobody.
    owner: NDArray[np.int16]
    labels: list[int] = field(default_factory=list)
    boxes: list[NDArray[np.float32]] = field(default_factory=list)
    # For each object its owner (0 for a photograph's own) and, for pasted ones, its pixels.
    owners: list[int] = field(default_factory=list)
    pixels: list[NDArray[np.bool_] | None] = field(default_factory=list)


def draw_example(
    pool: ScenePool, size_hw: tuple[int, int], settings: SceneSettings, rng: np.random.Generator
) -> DetectionExample:
    """Draw one example of ``size_hw``: a photograph's crop, a person's own photograph, or a composed scene."""
    kind = rng.random()
    if pool.photos and (kind < settings.share_photos or not pool.people):
        canvas = _crop_photo(pool.photos[rng.integers(len(pool.photos))], size_hw, settings.zoom, rng)
        if rng.random() < settings.paste_on_photo and pool.people:
            _paste_people(canvas, pool, int(rng.integers(1, 3)), settings, rng)
    elif kind < settings.share_photos + settings.share_people and pool.people:
        canvas = _crop_person(pool.people[rng.integers(len(pool.people))], size_hw, settings, rng)
    else:
        canvas = _crop_background(pool, size_hw, rng)
        empty = rng.random() < settings.share_empty / max(1 - settings.share_photos - settings.share_people, 1e-6)
        if not empty and pool.people:
            count = 1 + int(rng.integers(settings.most_people) * rng.random() + 0.5)
            _paste_people(canvas, pool, count, settings, rng)
    example = _finish(canvas)
    if rng.random() < settings.flip:
        example = mirror(example)
    image = jitter_colour(example.image, settings.color, rng) if settings.color > 0 else example.image
    if rng.random() < settings.degrade:
        image = degrade(image, rng)
    return example._replace(image=image)


def mirror(example: DetectionExample) -> DetectionExample:
    """Flip an example left to right; no class has a side."""
    boxes = example.boxes_cxcywh.copy()
    boxes[:, 0] = 1 - boxes[:, 0]
    return example._replace(image=np.ascontiguousarray(example.image[:, ::-1]), boxes_cxcywh=boxes)


def crop_boxes(
    boxes_xyxy: NDArray[np.float32], window: Window, size_hw: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Move boxes [N, 4] into a window resampled to ``size_hw``; returns them clipped, and each one's visible share."""
    height, width = size_hw
    scale = np.array([width / window.width, height / window.height] * 2, dtype=np.float32)
    moved = (boxes_xyxy - np.array([window.left, window.top] * 2, dtype=np.float32)) * scale
    clipped = np.clip(moved, 0, np.array([width, height, width, height], dtype=np.float32))
    return clipped, _areas(clipped) / np.maximum(_areas(moved), 1e-6)


def _areas(boxes_xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
    return (boxes_xyxy[:, 2] - boxes_xyxy[:, 0]) * (boxes_xyxy[:, 3] - boxes_xyxy[:, 1])


def _crop_photo(
    photo: BoxPhoto, size_hw: tuple[int, int], zoom: tuple[float, float], rng: np.random.Generator
) -> _Canvas:
    source_h, source_w = photo.image.shape[:2]
    aspect = size_hw[1] / size_hw[0] * math.exp(rng.uniform(-0.2, 0.2))
    scale = math.exp(rng.uniform(math.log(zoom[0]), math.log(zoom[1])))
    height = max(source_h, source_w / aspect) / scale
    width = height * aspect
    left, top = rng.uniform(*sorted((0.0, source_w - width))), rng.uniform(*sorted((0.0, source_h - height)))
    window = Window(left, top, width, height)
    image = cut(Example(photo.image, np.zeros((source_h, source_w), np.uint8)), window, size_hw).image
    canvas = _Canvas(image, photo.labelled.copy(), np.zeros(size_hw, np.int16))
    boxes, shares = crop_boxes(photo.boxes_xyxy, window, size_hw)
    for box, share, label in zip(boxes, shares, photo.labels, strict=True):
        if share >= VISIBLE_SHARE:
            _add(canvas, int(label), box, 0, None)
    return canvas


def _add(canvas: _Canvas, label: int, box: NDArray[np.float32], owner: int, pixels: NDArray[np.bool_] | None) -> None:
    canvas.labels.append(label)
    canvas.boxes.append(box)
    canvas.owners.append(owner)
    canvas.pixels.append(pixels)


def _crop_person(
    person: DressedPerson, size_hw: tuple[int, int], settings: SceneSettings, rng: np.random.Generator
) -> _Canvas:
    """Crop a person's own photograph: its real background and real edges."""
    window = _person_window(person, size_hw, rng, half_length=rng.random() < settings.half_length, keep_inside=True)
    example = _recoloured(cut(Example(person.image, person.parts), window, size_hw), rng)
    canvas = _Canvas(example.image, person.labelled.copy(), np.zeros(size_hw, np.int16))
    parts = np.where(example.mask == 255, 0, example.mask).astype(np.uint8)
    for label, box in zip(*part_boxes(parts, len(person.labelled)), strict=True):
        _add(canvas, int(label), box, 0, None)
    return canvas


def _recoloured(example: Example, rng: np.random.Generator) -> Example:
    """Give some garments another colour."""
    for part in np.flatnonzero(np.bincount(example.mask.ravel(), minlength=256)[:255]):
        if part > 1 and rng.random() < RECOLOUR_PROBABILITY:
            example = recolour(example, example.mask == part, rng)
    return example


def _person_window(
    person: DressedPerson,
    size_hw: tuple[int, int],
    rng: np.random.Generator,
    half_length: bool,
    keep_inside: bool = False,
) -> Window:
    """Choose the window of a person's photograph that puts the person somewhere on a canvas of ``size_hw``."""
    left, top, right, bottom = extent(person.parts > 0) or (0, 0, *person.parts.shape[::-1])
    share = rng.uniform(1.15, 3.2) if half_length else math.exp(rng.uniform(math.log(0.3), math.log(1.02)))
    if keep_inside:
        share = max(share, 0.7)
    height = (bottom - top) / share
    width = height * size_hw[1] / size_hw[0] * math.exp(rng.uniform(-0.15, 0.15))
    # Where the head's top, or the feet, come to lie on the canvas, as a share of its height.
    if half_length:
        window_top = top - rng.uniform(-0.02, 0.3) * height
    else:
        window_top = bottom - min(rng.uniform(max(share, 0.6) - 0.03, 1.06), 1.06) * height
    reach = 0.25 if keep_inside or half_length else 0.5
    window_left = (left + right) / 2 - (0.5 + rng.uniform(-reach, reach)) * width
    return Window(window_left, window_top, width, height)


def _crop_background(pool: ScenePool, size_hw: tuple[int, int], rng: np.random.Generator) -> _Canvas:
    if not pool.backgrounds:
        image = np.full((*size_hw, 3), rng.integers(0, 256, 3), dtype=np.uint8)
    else:
        source = pool.backgrounds[rng.integers(len(pool.backgrounds))]
        source_h, source_w = source.shape[:2]
        aspect = size_hw[1] / size_hw[0] * math.exp(rng.uniform(-0.25, 0.25))
        height = min(source_h, source_w / aspect) * rng.uniform(0.45, 1.0)
        width = height * aspect
        left, top = rng.uniform(0, max(source_w - width, 0)), rng.uniform(0, max(source_h - height, 0))
        box = (left, top, min(left + width, source_w), min(top + height, source_h))
        resized = Image.fromarray(source).resize(size_hw[::-1], Image.Resampling.BILINEAR, box=box)
        image = np.array(resized)
    return _Canvas(image, np.ones(pool.classes, dtype=bool), np.zeros(size_hw, np.int16))


def _paste_people(
    canvas: _Canvas, pool: ScenePool, count: int, settings: SceneSettings, rng: np.random.Generator
) -> None:
    height, width = canvas.owner.shape
    half_length = rng.random() < settings.half_length
    for _ in range(count):
        person = pool.people[rng.integers(len(pool.people))]
        window = _person_window(person, (height, width), rng, half_length)
        if half_length and count > 1:  # side by side, not all in the middle
            window = window._replace(left=window.left + rng.uniform(-0.4, 0.4) * window.width)
        example = _recoloured(cut(Example(person.image, person.parts), window, (height, width)), rng)
        parts = np.where(example.mask == 255, 0, example.mask).astype(np.uint8)
        if rng.random() < 0.5:
            example, parts = Example(example.image[:, ::-1], example.mask[:, ::-1]), parts[:, ::-1]
        shape = parts > 0
        if shape.sum() < 60:
            continue
        # Edges are softened, or the network learns to find the scissors.
        soft = Image.fromarray(shape.astype(np.uint8) * np.uint8(255)).reduce(2).resize((width, height), 2)
        alpha = (np.asarray(soft, dtype=np.float32) / 255 * shape)[..., None]
        tone = np.float32(math.exp(rng.uniform(-0.35, 0.35)))
        pasted = np.clip(example.image * tone, 0, 255)
        canvas.image = (canvas.image * (1 - alpha) + pasted * alpha).astype(np.uint8)
        owner = int(canvas.owner.max()) + 1
        canvas.owner[shape] = owner
        canvas.labelled &= person.labelled
        for label, box in zip(*part_boxes(parts, len(person.labelled)), strict=True):
            _add(canvas, int(label), box, owner, shape if label == 0 else parts == label + 1)


def _finish(canvas: _Canvas) -> DetectionExample:
    """Leave out what is hidden by somebody pasted later, and scale the boxes to 0..1."""
    height, width = canvas.owner.shape
    kept = [i for i in range(len(canvas.labels)) if _visible_share(canvas, i) >= VISIBLE_SHARE]
    boxes = np.array([canvas.boxes[i] for i in kept], dtype=np.float32).reshape(-1, 4)
    boxes /= np.array([width, height, width, height], dtype=np.float32)
    sides = boxes[:, 2:] - boxes[:, :2]
    large = (sides * np.array([width, height])).min(axis=1, initial=np.inf) >= 3 if len(boxes) else np.zeros(0, bool)
    centred = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, sides], axis=1)
    labels = np.array([canvas.labels[i] for i in kept], dtype=np.int64)
    return DetectionExample(canvas.image, labels[large], centred[large].astype(np.float32), canvas.labelled)


def _visible_share(canvas: _Canvas, index: int) -> float:
    pixels, owner = canvas.pixels[index], canvas.owners[index]
    if pixels is not None:
        return float((canvas.owner[pixels] == owner).mean())
    left, top, right, bottom = (round(float(value)) for value in canvas.boxes[index])
    covered = canvas.owner[top : max(bottom, top + 1), left : max(right, left + 1)]
    return float((covered == 0).mean()) if covered.size else 0.0


def person_free_windows(
    photos: Sequence[BoxPhoto], rng: np.random.Generator, tries: int = 12, smallest_share: float = 0.35
) -> list[NDArray[np.uint8]]:
    """Cut windows without any box out of photographs, as backgrounds for composed scenes."""
    found = []
    for photo in photos:
        height, width = photo.image.shape[:2]
        for _ in range(tries):
            h, w = (round(side * rng.uniform(smallest_share, 1.0)) for side in (height, width))
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            window = Window(left, top, w, h)
            if not len(photo.boxes_xyxy) or crop_boxes(photo.boxes_xyxy, window, (h, w))[1].max() < 0.03:
                found.append(photo.image[top : top + h, left : left + w])
    return found

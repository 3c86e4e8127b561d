"""Which detection met which object, by COCO's rules, in numpy alone.

The matching is done once, for all areas and thresholds at a time, and kept: an interval needs to know which
detection met an object, and a resample is then a weighted sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagesmith.core.errors import BadInput
from imagesmith.core.protocols import Array
from imagesmith.evaluation.metrics import Figures

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
AREAS = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]], dtype=np.float64)
"""All, small, medium, large: least and largest area in pixels."""
LIMITS = (1, 10, 100)
"""How many detections per image and class count for recall; precision takes the last."""

Truth = Mapping[str, Any]
"""A COCO annotation file as read from JSON: `images`, `annotations`, `categories`."""
Found = Sequence[Mapping[str, Any]]
"""Detections as COCO results: `image_id`, `category_id`, `bbox` (x, y, width, height in pixels), `score`."""


@dataclass(frozen=True, eq=False)
class Matches:
    """Which detection met an object, for N detections and G objects; sorted by class, image, falling score.

    `hit` and `ignored` are (areas, thresholds, N): the detection met a counted object; it counts neither way.
    `counted` (areas, G) tells which objects count. `image` and `object_image` index `image_ids`, `label` and
    `object_label` index `categories`. `rank` is a detection's place among those of its image and class.
    """

    image_ids: tuple[int, ...]
    categories: tuple[int, ...]
    image: NDArray[np.int64]
    label: NDArray[np.int64]
    score: Figures
    rank: NDArray[np.int64]
    hit: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    object_image: NDArray[np.int64]
    object_label: NDArray[np.int64]
    counted: NDArray[np.bool_]


def match(truth: Truth, found: Found) -> Matches:
    """Match detections with objects as COCO does: by class and image, the best score first.

    An annotation without `area` gets that of its box, one without `iscrowd` is a single object. Raises `BadInput`
    where a detection or annotation names an image or a category that the truth does not list.
    """
    image_ids = tuple(sorted(image["id"] for image in truth["images"]))
    categories = tuple(sorted(category["id"] for category in truth["categories"]))
    label, image, boxes = _table(found, image_ids, categories, "detection")
    score = np.array([row["score"] for row in found], dtype=np.float64)
    order = np.lexsort((-score, image, label))
    label, image, boxes, score = label[order], image[order], boxes[order], score[order]
    keys, starts, counts = np.unique(label * len(image_ids) + image, return_index=True, return_counts=True)
    rank = np.arange(len(label)) - np.repeat(starts, counts)
    size = boxes[:, 2] * boxes[:, 3]
    outside = (size < AREAS[:, :1]) | (size > AREAS[:, 1:])
    ignored = np.repeat(outside[:, None], len(IOU_THRESHOLDS), axis=1)
    hit = np.zeros_like(ignored)

    annotations = truth.get("annotations", ())
    object_label, object_image, targets = _table(annotations, image_ids, categories, "annotation")
    crowd = np.array([bool(item.get("iscrowd", 0)) for item in annotations], dtype=bool)
    area = np.array([item.get("area", item["bbox"][2] * item["bbox"][3]) for item in annotations], dtype=np.float64)
    skip = crowd | (area < AREAS[:, :1]) | (area > AREAS[:, 1:])
    object_keys = object_label * len(image_ids) + object_image
    by_key = np.argsort(object_keys, kind="stable")
    _, mine, theirs = np.intersect1d(keys, object_keys[by_key], return_indices=True)
    ends = np.searchsorted(object_keys[by_key], object_keys[by_key][theirs], side="right")
    for pair, first, end in zip(mine.tolist(), theirs.tolist(), ends.tolist(), strict=True):
        guesses = slice(starts[pair], starts[pair] + min(counts[pair], LIMITS[-1]))
        objects = by_key[first:end]
        overlap = iou_xywh(boxes[guesses], targets[objects], crowd[objects])
        met, met_skipped = assign(overlap, skip[:, objects], crowd[objects])
        hit[..., guesses] = met & ~met_skipped
        ignored[..., guesses] = np.where(met, met_skipped, ignored[..., guesses])
    kept = rank < LIMITS[-1]
    return Matches(
        image_ids=image_ids,
        categories=categories,
        image=image[kept],
        label=label[kept],
        score=score[kept],
        rank=rank[kept],
        hit=hit[..., kept],
        ignored=ignored[..., kept],
        object_image=object_image,
        object_label=object_label,
        counted=~skip,
    )


def _table(rows: Found, image_ids: Sequence[int], categories: Sequence[int], what: str) -> tuple[Array, Array, Figures]:
    """Return class index (n,), image index (n,) and boxes (n, 4) of annotations or detections."""
    place = {identity: index for index, identity in enumerate(image_ids)}
    kind = {identity: index for index, identity in enumerate(categories)}
    try:
        label = np.array([kind[row["category_id"]] for row in rows], dtype=np.int64)
        image = np.array([place[row["image_id"]] for row in rows], dtype=np.int64)
    except KeyError as error:
        raise BadInput(f"A {what} names image or category {error}, which the annotations do not list.") from None
    boxes = np.array([row["bbox"] for row in rows], dtype=np.float64).reshape(-1, 4)
    return label, image, boxes


def iou_xywh(boxes: Figures, targets: Figures, crowd: Array) -> Figures:
    """Return overlaps (N, G) of boxes given as x, y, width, height; against a crowd the share inside it."""
    ends, target_ends = boxes[:, :2] + boxes[:, 2:], targets[:, :2] + targets[:, 2:]
    sides = np.minimum(ends[:, None], target_ends) - np.maximum(boxes[:, None, :2], targets[:, :2])
    inside = np.where((sides > 0).all(axis=-1), sides[..., 0] * sides[..., 1], 0.0)
    size, target_size = boxes[:, 2] * boxes[:, 3], targets[:, 2] * targets[:, 3]
    union = np.where(crowd, size[:, None], size[:, None] + target_size - inside)
    return np.divide(inside, union, out=np.zeros_like(inside), where=inside > 0)


def assign(overlap: Figures, skip: NDArray[np.bool_], crowd: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Give each detection, best first, the free object it overlaps most; counted objects go before skipped ones.

    `overlap` (N, G), `skip` (areas, G), `crowd` (G,): a crowd stays free. Returns two bool arrays (areas,
    thresholds, N): met an object; that object is a skipped one. Of equal overlaps the later object wins.
    """
    shape = (len(skip), len(IOU_THRESHOLDS))
    met = np.zeros((*shape, len(overlap)), dtype=bool)
    met_skipped = np.zeros_like(met)
    free = np.ones((*shape, overlap.shape[1]), dtype=bool)
    enough = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)[:, None]
    places = np.arange(overlap.shape[1])
    for guess in np.flatnonzero(overlap.max(axis=1) >= IOU_THRESHOLDS[0]):
        usable = (free | crowd) & (overlap[guess] >= enough)
        regular = usable & ~skip[:, None]
        has_regular = regular.any(axis=-1)
        allowed = np.where(has_regular[..., None], regular, usable)
        # The last of equal overlaps wins in COCO's own code, so look from behind.
        best = places[-1] - np.where(allowed, overlap[guess], -1.0)[..., ::-1].argmax(axis=-1)
        has = allowed.any(axis=-1)
        met[..., guess] = has
        met_skipped[..., guess] = has & ~has_regular
        free &= ~((places == best[..., None]) & has[..., None])
    return met, met_skipped

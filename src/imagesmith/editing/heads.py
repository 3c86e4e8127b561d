"""Where the heads and the persons of a photograph are: what the face model looks at, and who "person 2" is."""

from __future__ import annotations

import numpy as np

from imagesmith.core.protocols import Array
from imagesmith.image.boxes import nms
from imagesmith.image.masks import components, grow, mask_box
from imagesmith.image.results import Detections, plain_name

Box = tuple[int, int, int, int]

_PERSON_NAMES = frozenset({"person", "people", "pedestrian", "human", "woman", "man"})
_SAME_PERSON = 0.7  # intersection over union
_CROP = 1.5  # how much larger than the head the face model's crop is
_SMALLEST = 0.05  # of the largest head's hair; less is a stray
_FACE = 0.1  # share of a head's box that is skin where it shows a face


def head_boxes(hair: Array, skin: Array) -> list[Box]:
    """Return a box (left, top, right, bottom) around every head, from left to right.

    A head is a connected patch of `hair` (H, W) bool (hair and hats) with the `skin` below and beside it, no farther
    down than a head is long: skin also means arms and legs. Where one head shows a face, patches without skin are not
    heads but something dark: a bag, a helmet.
    """
    reach = max(1, round(0.01 * max(hair.shape)))
    joined = components(grow(hair, reach))  # a parting or a hatband must not make two heads of one
    found = (mask_box(hair & joined.mask(index)) for index in range(len(joined)))
    boxes = [_with_face(box, hair, skin) for box in found if box is not None]
    sizes = [int(hair[top:bottom, left:right].sum()) for left, top, right, bottom in boxes]
    boxes = [box for box, size in zip(boxes, sizes, strict=True) if size >= _SMALLEST * max(sizes)]
    with_faces = [box for box in boxes if skin[box[1] : box[3], box[0] : box[2]].mean() >= _FACE]
    return sorted(with_faces or boxes)


def _with_face(box: Box, hair: Array, skin: Array) -> Box:
    """Extend the box of some hair by the face under it, and cut long hair off at the chin."""
    left, top, right, _ = box
    width = right - left
    rows = slice(top, min(hair.shape[0], top + round(1.6 * width) + 1))
    columns = slice(max(0, left - width // 4), min(hair.shape[1], right + width // 4))
    own = np.zeros_like(hair[rows, columns])
    own[:, left - columns.start : right - columns.start] = True
    inside = mask_box((hair[rows, columns] & own) | skin[rows, columns])
    assert inside is not None  # the hair itself is there
    return (inside[0] + columns.start, inside[1] + top, inside[2] + columns.start, inside[3] + top)


def upper_part(box_xyxy: Array) -> Box:
    """Return where the head is in a person's box (4,), standing or cut off at the waist.

    >>> upper_part(np.array([100.0, 0.0, 200.0, 300.0]))
    (125, 0, 175, 50)
    """
    left, top, right, bottom = (float(value) for value in box_xyxy)
    side = float(np.clip((right - left) / 2, (bottom - top) / 6, (bottom - top) / 2))
    middle = (left + right) / 2
    return round(middle - side / 2), round(top), round(middle + side / 2), round(top + side)


def crop_around(box: Box, size_hw: tuple[int, int]) -> Box | None:
    """Return the square of 1.5 times the box's longer side around its centre, cut at the borders; None if empty.

    >>> crop_around((40, 40, 60, 60), (100, 55))
    (35, 35, 55, 65)
    """
    height, width = size_hw
    half = _CROP * max(box[2] - box[0], box[3] - box[1]) / 2
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    left, top = max(0, round(x - half)), max(0, round(y - half))
    right, bottom = min(width, round(x + half)), min(height, round(y + half))
    return (left, top, right, bottom) if left < right and top < bottom else None


def person_boxes(found: Detections, person_mask: Array) -> Array:
    """Return the boxes (n, 4) of the detected persons that meet the mask (H, W), counted from the left.

    Boxes that overlap nearly wholly are one person, detected twice.
    """
    people = found.take(np.array([plain_name(label) in _PERSON_NAMES for label in found.labels], np.bool_))
    boxes = [people.boxes_xyxy[index] for index in nms(people.boxes_xyxy, people.scores, _SAME_PERSON)]
    boxes = [box for box in boxes if _meets(box, person_mask)]
    return np.array(sorted(boxes, key=lambda box: (float(box[0] + box[2]), float(box[1])))).reshape(-1, 4)


def _meets(box: Array, mask: Array) -> bool:
    left, top = np.floor(box[:2].clip(0)).astype(int)
    right, bottom = np.ceil(box[2:].clip(0)).astype(int)
    return bool(mask[top:bottom, left:right].any())


def zone_of(boxes_xyxy: Array, index: int, size_hw: tuple[int, int]) -> Array:
    """Return the pixels (H, W) bool that belong to one of several persons.

    A pixel belongs to the person whose box centre is nearest, measured in that box's own width and height, and to
    nobody beyond a tenth outside the box.
    """
    height, width = size_hw
    centers = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
    sides = np.maximum(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 1)
    x = np.abs(np.arange(width, dtype=np.float32)[None] + 0.5 - centers[:, :1]) / sides[:, :1]  # (n, W)
    y = np.abs(np.arange(height, dtype=np.float32)[None] + 0.5 - centers[:, 1:]) / sides[:, 1:]  # (n, H)
    own = np.maximum(y[index][:, None], x[index][None])
    zone = own <= 0.6
    for other in range(len(boxes_xyxy)):
        if other != index:
            distance = np.maximum(y[other][:, None], x[other][None])
            zone &= (own < distance) | ((own == distance) & (index < other))
    return zone

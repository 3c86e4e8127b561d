"""Boxes as arrays: conversions named by both ends, overlap, and suppression of duplicates.

Corner boxes are (x0, y0, x1, y1) with x1 and y1 outside the box, so that a width is x1 - x0.
"""

from __future__ import annotations

import numpy as np

from imagesmith.core.errors import BadInput
from imagesmith.core.protocols import Array


def xyxy_to_cxcywh(boxes_xyxy: Array) -> Array:
    """Convert (..., 4) corners to centre, width, height.

    >>> xyxy_to_cxcywh(np.array([0.0, 0.0, 4.0, 2.0])).tolist()
    [2.0, 1.0, 4.0, 2.0]
    """
    first, second = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    return np.concatenate([(first + second) / 2, second - first], axis=-1)


def cxcywh_to_xyxy(boxes_cxcywh: Array) -> Array:
    """Convert (..., 4) centre, width, height to corners.

    >>> cxcywh_to_xyxy(np.array([2.0, 1.0, 4.0, 2.0])).tolist()
    [0.0, 0.0, 4.0, 2.0]
    """
    centre, half = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=-1)


def xyxy_to_xywh(boxes_xyxy: Array) -> Array:
    """Convert (..., 4) corners to COCO's first corner, width, height."""
    return np.concatenate([boxes_xyxy[..., :2], boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]], axis=-1)


def xywh_to_xyxy(boxes_xywh: Array) -> Array:
    """Convert (..., 4) COCO boxes (first corner, width, height) to corners."""
    return np.concatenate([boxes_xywh[..., :2], boxes_xywh[..., :2] + boxes_xywh[..., 2:]], axis=-1)


def area(boxes_xyxy: Array) -> Array:
    """Return the area of (..., 4) boxes; one whose corners are swapped has none."""
    sides = np.clip(boxes_xyxy[..., 2:] - boxes_xyxy[..., :2], 0, None)
    result: Array = sides[..., 0] * sides[..., 1]
    return result


def clip_boxes(boxes_xyxy: Array, size_hw: tuple[int, int]) -> Array:
    """Cut (..., 4) boxes to a picture of this height and width."""
    height, width = size_hw
    limit = np.array([width, height, width, height], boxes_xyxy.dtype)
    return np.clip(boxes_xyxy, 0, limit)


def iou(first_xyxy: Array, second_xyxy: Array) -> Array:
    """Return the (n, m) intersection over union of (n, 4) and (m, 4) boxes; two empty boxes have 0.

    >>> iou(np.array([[0.0, 0, 2, 2]]), np.array([[1.0, 0, 3, 2]])).round(3).tolist()
    [[0.333]]
    """
    inter, union = _overlap(first_xyxy, second_xyxy)
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def generalized_iou(first_xyxy: Array, second_xyxy: Array) -> Array:
    """Return the (n, m) generalised intersection over union, -1 to 1 (Rezatofighi et al., CVPR 2019).

    The share of the smallest enclosing box that neither box fills is taken off the plain overlap.
    """
    inter, union = _overlap(first_xyxy, second_xyxy)
    low = np.minimum(first_xyxy[:, None, :2], second_xyxy[None, :, :2])
    high = np.maximum(first_xyxy[:, None, 2:], second_xyxy[None, :, 2:])
    hull = area(np.concatenate([low, high], axis=-1)).astype(inter.dtype)
    overlap = np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
    waste = np.divide(hull - union, hull, out=np.zeros_like(inter), where=hull > 0)
    return overlap - waste


def nms(boxes_xyxy: Array, scores: Array, threshold: float = 0.7, labels: Array | None = None) -> Array:
    """Return the indices of the boxes to keep, best score first: a box that overlaps a better one is dropped.

    Boxes count as the same above an IoU of `threshold`; with `labels` (n,) only within one label.
    """
    _check(boxes_xyxy, scores, labels)
    order = np.argsort(-scores, kind="stable")
    overlaps = _overlaps_within(boxes_xyxy, labels)
    alive = np.ones(len(scores), bool)
    keep = []
    for index in order:
        if alive[index]:
            keep.append(int(index))
            alive &= overlaps[index] <= threshold
    return np.array(keep, np.int64)


def soft_nms(
    boxes_xyxy: Array, scores: Array, sigma: float = 0.5, least_score: float = 1e-3, labels: Array | None = None
) -> tuple[Array, Array]:
    """Return indices and lowered scores, best first: overlap multiplies a score by exp(-IoU^2 / sigma).

    This is Soft-NMS (Bodla et al., ICCV 2017). Boxes whose score falls below `least_score` are left out; with `labels`
    only boxes of one label compete.
    """
    _check(boxes_xyxy, scores, labels)
    overlaps = _overlaps_within(boxes_xyxy, labels)
    left = scores.astype(np.float64)
    keep, kept_scores = [], []
    for _ in range(len(left)):
        best = int(left.argmax())
        if left[best] < least_score:
            break
        keep.append(best)
        kept_scores.append(left[best])
        left *= np.exp(-(overlaps[best] ** 2) / sigma)
        left[best] = -np.inf
    return np.array(keep, np.int64), np.array(kept_scores, scores.dtype)


def _overlap(first: Array, second: Array) -> tuple[Array, Array]:
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    inter = area(np.concatenate([low, high], axis=-1))
    inter = inter.astype(np.result_type(inter.dtype, np.float32))
    return inter, area(first)[:, None] + area(second)[None, :] - inter


def _overlaps_within(boxes_xyxy: Array, labels: Array | None) -> Array:
    overlaps = iou(boxes_xyxy, boxes_xyxy)
    return overlaps if labels is None else np.where(labels[:, None] == labels[None, :], overlaps, 0)


def _check(boxes_xyxy: Array, scores: Array, labels: Array | None) -> None:
    if boxes_xyxy.ndim != 2 or boxes_xyxy.shape[1] != 4 or scores.shape != boxes_xyxy.shape[:1]:
        raise BadInput(f"expected boxes (n, 4) and scores (n,), but got {boxes_xyxy.shape} and {scores.shape}.")
    if labels is not None and labels.shape != scores.shape:
        raise BadInput(f"expected one label per box ({len(scores)}), but got {labels.shape}.")

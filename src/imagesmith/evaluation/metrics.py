"""Figures of merit from counts and scores: pure numpy, no state, no files.

Segmentation is measured from **one** confusion matrix over the pixels whose true label is not ignored. A prediction
outside the labels (255, "unsure", or a label the data does not have) goes to one extra column: it is wrong, it never
drops the pixel. Means over classes are over the classes that occur in the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagesmith.core.errors import BadInput
from imagesmith.core.protocols import Array

Counts = NDArray[np.int64]
Figures = NDArray[np.float64]

IGNORE = 255
CALIBRATION_BINS = 15


def confusion(truth: Array, predicted: Array, classes: int, ignore: int = IGNORE) -> Counts:
    """Count pixels (or pictures) by true class (rows) and predicted class (columns).

    `truth` and `predicted` are integer arrays of one shape. Where truth is `ignore` nothing is counted. The result is
    (classes, classes + 1): the last column holds predictions that are no class. A true label that is neither a class
    nor `ignore` raises `BadInput`.

    >>> confusion(np.array([0, 1, 1, 255]), np.array([0, 1, 255, 0]), classes=2).tolist()
    [[1, 0, 0], [0, 1, 1]]
    """
    if truth.shape != predicted.shape:
        raise BadInput(f"Truth and prediction must have one shape, got {truth.shape} and {predicted.shape}.")
    counted = truth != ignore
    rows = truth[counted].astype(np.int64)
    columns = predicted[counted].astype(np.int64)
    if rows.size and (rows.min() < 0 or rows.max() >= classes):
        wrong = int(rows.max() if rows.max() >= classes else rows.min())
        raise BadInput(f"Label {wrong} is outside the {classes} classes (0 to {classes - 1}, {ignore} is ignored).")
    columns = np.where((columns < 0) | (columns >= classes), classes, columns)
    flat = np.bincount(rows * (classes + 1) + columns, minlength=classes * (classes + 1))
    return flat.reshape(classes, classes + 1).astype(np.int64)


def class_counts(matrix: Counts) -> Counts:
    """Reduce a confusion matrix to (classes, 3): hits, false alarms, misses of every class.

    >>> class_counts(np.array([[1, 0, 0], [0, 1, 1]])).tolist()
    [[1, 0, 0], [1, 0, 1]]
    """
    square = matrix[:, : len(matrix)]
    hits = np.diagonal(square)
    return np.stack([hits, square.sum(axis=0) - hits, matrix.sum(axis=1) - hits], axis=-1)


def segmentation_figures(counts: Array, background: int | None = 0) -> dict[str, Figures]:
    """Turn (..., classes, 3) hits, false alarms and misses into figures of shape (...).

    `mean_iou` is the mean over the classes that occur in the truth, `foreground_mean_iou` the same without the class
    `background` (None: no such class), `pixel_accuracy` the share of pixels that are right, `classes` how many
    classes occur. A mean over nothing is NaN.

    >>> figures = segmentation_figures(np.array([[1, 0, 0], [1, 0, 1], [0, 0, 0]]))
    >>> float(figures["mean_iou"]), float(figures["foreground_mean_iou"]), int(figures["classes"])
    (0.75, 0.5, 2)
    """
    counts = np.asarray(counts, dtype=np.float64)
    hits, alarms, misses = counts[..., 0], counts[..., 1], counts[..., 2]
    occurs = hits + misses > 0
    iou = ratio(hits, hits + alarms + misses)
    foreground = occurs.copy()
    if background is not None:
        foreground[..., background] = False
    return {
        "mean_iou": mean_where(iou, occurs),
        "foreground_mean_iou": mean_where(iou, foreground),
        "pixel_accuracy": ratio(hits.sum(axis=-1), (hits + misses).sum(axis=-1)),
        "classes": occurs.sum(axis=-1).astype(np.float64),
    }


def class_table(matrix: Counts, names: Sequence[str]) -> tuple[dict[str, Any], ...]:
    """Return one row per class that occurs or is predicted: IoU, precision, recall, F1 and share of the truth.

    A ratio with nothing below the line is None; classes nobody has seen are left out.
    """
    counts = class_counts(matrix)
    total = max(int(matrix.sum()), 1)
    rows = []
    for name, (hits, alarms, misses) in zip(names, counts.tolist(), strict=True):
        if hits + alarms + misses == 0:
            continue
        rows.append(
            {
                "label": name,
                "iou": _number(hits, hits + alarms + misses),
                "precision": _number(hits, hits + alarms),
                "recall": _number(hits, hits + misses),
                "f1": _number(2 * hits, 2 * hits + alarms + misses),
                "share": (hits + misses) / total,
                "count": hits + misses,
            }
        )
    return tuple(rows)


def auc(scores: Array, positive: Array, weights: Array | None = None) -> Figures:
    """Return the area under the ROC curve: the chance that a positive outranks a negative, ties counting half.

    `scores` (N,), `positive` (N,) bool, `weights` (..., N) how often each picture is counted. Without a positive or a
    negative the answer is NaN. (Mann and Whitney 1947.)

    >>> float(auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])))
    0.75
    """
    scores, positive = np.asarray(scores), np.asarray(positive, dtype=bool)
    weights = np.ones(len(scores)) if weights is None else np.asarray(weights, dtype=np.float64)
    if len(scores) == 0:
        return np.full(weights.shape[:-1], np.nan)
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    ups = np.add.reduceat(np.where(positive, weights, 0.0)[..., order], starts, axis=-1)
    downs = np.add.reduceat(np.where(positive, 0.0, weights)[..., order], starts, axis=-1)
    below = np.cumsum(downs, axis=-1) - downs
    wins = (ups * (below + 0.5 * downs)).sum(axis=-1)
    return ratio(wins, ups.sum(axis=-1) * downs.sum(axis=-1))


def mean_auc(probabilities: Array, truth: Array, weights: Array | None = None) -> Figures:
    """Return the AUC of two classes, or the mean over the classes in `truth` of one against the rest.

    `probabilities` (N, C), `truth` (N,) class numbers, `weights` (..., N).
    """
    if probabilities.shape[1] == 2:
        return auc(probabilities[:, 1], truth == 1, weights)
    each = [auc(probabilities[:, label], truth == label, weights) for label in np.unique(truth)]
    values = np.stack(each, axis=-1)
    return mean_where(np.nan_to_num(values), np.isfinite(values))


@dataclass(frozen=True, eq=False)
class Calibration:
    """How often predictions of each confidence were right.

    All arrays are (bins,): `count` predictions, their mean `confidence`, and the share that were right, `accuracy`
    (NaN where a bin is empty). `error` is the expected calibration error (Naeini et al. 2015): the mean of
    |accuracy - confidence| weighted by count.
    """

    count: Counts
    confidence: Figures
    accuracy: Figures
    error: float


def calibration(confidence: Array, correct: Array, bins: int = CALIBRATION_BINS) -> Calibration:
    """Group predictions by confidence (0 to 1) into `bins` equal widths and compare with how often they were right.

    >>> calibration(np.array([0.9, 0.9, 0.6, 0.6]), np.array([True, True, True, False]), bins=10).error.__round__(3)
    0.1
    """
    sums = _bin_sums(confidence, correct, np.ones(len(confidence)), bins)
    count, right, trust = sums[..., 0], sums[..., 1], sums[..., 2]
    return Calibration(
        count=count.astype(np.int64),
        confidence=ratio(trust, count),
        accuracy=ratio(right, count),
        error=float(_calibration_error(sums)),
    )


def calibration_error(confidence: Array, correct: Array, weights: Array, bins: int = CALIBRATION_BINS) -> Figures:
    """Return the expected calibration error for every row of `weights` (..., N)."""
    return _calibration_error(_bin_sums(confidence, correct, np.asarray(weights, dtype=np.float64), bins))


def _bin_sums(confidence: Array, correct: Array, weights: Figures, bins: int) -> Figures:
    """Sum weights, right ones and confidences per bin: (..., bins, 3)."""
    confidence = np.asarray(confidence, dtype=np.float64)
    # Bins are open below and closed above, so that a certainty of 1 falls into the last one.
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    member = (place[:, None] == np.arange(bins)).astype(np.float64)
    values = np.stack([np.ones_like(confidence), np.asarray(correct, dtype=np.float64), confidence], axis=-1)
    table = (member[:, :, None] * values[:, None, :]).reshape(len(confidence), bins * 3)
    return (weights @ table).reshape(*weights.shape[:-1], bins, 3)


def _calibration_error(sums: Figures) -> Figures:
    gaps = np.abs(sums[..., 1] - sums[..., 2]).sum(axis=-1)
    return ratio(gaps, sums[..., 0].sum(axis=-1))


def ratio(above: Array, below: Array) -> Figures:
    """Divide, giving NaN where there is nothing to divide by."""
    above, below = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    return np.divide(above, below, out=np.full(np.broadcast(above, below).shape, np.nan), where=below != 0)


def mean_where(values: Figures, chosen: NDArray[np.bool_]) -> Figures:
    """Mean over the last axis of the chosen values."""
    return ratio(np.where(chosen, values, 0.0).sum(axis=-1), chosen.sum(axis=-1))


def _number(above: float, below: float) -> float | None:
    return above / below if below else None

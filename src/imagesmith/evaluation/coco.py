"""COCO's twelve figures for boxes, equal to pycocotools to the last bit, and how they move under resampling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imagesmith.core.protocols import Array
from imagesmith.evaluation.matching import AREAS, IOU_THRESHOLDS, LIMITS, Matches
from imagesmith.evaluation.metrics import Figures, mean_where, ratio

NAMES: tuple[str, ...] = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
NAMES += ("AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large")
"""The twelve figures in COCO's order: AP over IoU 0.50 to 0.95, then average recall."""

RECALLS = np.linspace(0.0, 1.0, 101)
CELLS_AT_ONCE = 4_000_000


@dataclass(frozen=True, eq=False)
class CocoFigures:
    """The twelve figures by name (NaN where the data has no such object), and AP, AP50, AR by category id."""

    figures: dict[str, float]
    by_category: dict[int, dict[str, float]]


def coco_figures(matches: Matches) -> CocoFigures:
    """Compute COCO's twelve figures for boxes.

    >>> from imagesmith.evaluation.matching import match
    >>> truth = {"images": [{"id": 7}], "categories": [{"id": 3, "name": "cat"}],
    ...          "annotations": [{"image_id": 7, "category_id": 3, "bbox": [0, 0, 50, 50]}]}
    >>> found = [{"image_id": 7, "category_id": 3, "bbox": [0, 0, 50, 40], "score": 0.9}]
    >>> round(coco_figures(match(truth, found)).figures["AP"], 3)  # IoU 0.8: right at 7 of 10 thresholds
    0.7
    """
    once = np.ones((1, len(matches.image_ids)))
    classes = len(matches.categories)
    precision = np.full((len(AREAS), len(IOU_THRESHOLDS), len(RECALLS), classes), np.nan)
    recall = np.full((len(LIMITS), len(AREAS), len(IOU_THRESHOLDS), classes), np.nan)
    for label in np.unique(matches.object_label):
        part = _of_class(matches, int(label))
        totals = part.totals(once)
        for area in np.flatnonzero(totals[0]).tolist():
            counts = once[:, part.image]
            recall[:, area, :, label] = part.recalls(area, counts, totals[:, area])[..., 0]
            for row in range(len(IOU_THRESHOLDS)):
                fresh, envelope = part.steps(area, row, counts, totals[:, area])
                reached = np.repeat(envelope[0], fresh[0])
                precision[area, row, :, label] = np.pad(reached, (0, len(RECALLS) - len(reached)))
    figures = {name: _mean(values) for name, values in zip(NAMES, _choose(precision, recall), strict=True)}
    by_category = {
        int(category): {
            "AP": _mean(precision[0, ..., place]),
            "AP50": _mean(precision[0, 0, :, place]),
            "AR": _mean(recall[-1, 0, :, place]),
        }
        for place, category in enumerate(matches.categories)
    }
    return CocoFigures(figures, by_category)


def weighted_figures(matches: Matches, weights: Figures) -> dict[str, Figures]:
    """Return the twelve figures, each (B,), for every row of `weights` (B, images): how often an image counts.

    An image drawn k times puts k equal detections side by side. They share one score, so only the end of such a run
    can raise the precision envelope, and the run can stay one entry of weight k: the result is that of the data set
    with the image repeated.
    """
    shape = (len(AREAS), len(IOU_THRESHOLDS), len(matches.categories), len(weights))
    precision = np.full(shape, np.nan)
    recall = np.full((len(LIMITS), *shape), np.nan)
    for label in np.unique(matches.object_label):
        part = _of_class(matches, int(label))
        totals = part.totals(weights)
        step = max(1, CELLS_AT_ONCE // max(len(part.image), 1))
        for start in range(0, len(weights), step):
            rows = slice(start, start + step)
            counts = weights[rows][:, part.image]
            for area in range(len(AREAS)):
                recall[:, area, :, label, rows] = part.recalls(area, counts, totals[rows, area])
                for row in range(len(IOU_THRESHOLDS)):
                    fresh, envelope = part.steps(area, row, counts, totals[rows, area])
                    mean = (fresh * envelope).sum(axis=1) / len(RECALLS)
                    precision[area, row, label, rows] = np.where(totals[rows, area] > 0, mean, np.nan)
    chosen = [values.reshape(-1, len(weights)).T for values in _choose(precision, recall)]
    return {name: mean_where(values, np.isfinite(values)) for name, values in zip(NAMES, chosen, strict=True)}


@dataclass(frozen=True, eq=False)
class _OneClass:
    """The n detections and the objects of one class, all images together, detections by falling score."""

    image: NDArray[np.int64]
    rank: NDArray[np.int64]
    hit: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    object_image: NDArray[np.int64]
    counted: NDArray[np.bool_]

    def totals(self, weights: Figures) -> Figures:
        """Return how many objects there are to find, (B, areas)."""
        return weights[:, self.object_image] @ self.counted.T.astype(np.float64)

    def recalls(self, area: int, counts: Figures, total: Figures) -> Figures:
        """Return the share of objects found, (limits, thresholds, B); `counts` (B, n), `total` (B,)."""
        within = self.rank < np.array(LIMITS)[:, None, None]
        return ratio((self.hit[area] & within).astype(np.float64) @ counts.T, total)

    def steps(self, area: int, row: int, counts: Figures, total: Figures) -> tuple[Array, Figures]:
        """Return for each hit, (B, hits) both, how many of the 101 recalls it is the first to reach, and precision.

        Precision is the envelope: the best at this recall or any higher one.
        """
        kept = np.flatnonzero(~self.ignored[area, row])
        hits = np.flatnonzero(self.hit[area, row, kept])
        kept = kept[: hits[-1] + 1] if len(hits) else kept[:0]
        seen = counts[:, kept]
        right = np.cumsum(seen[:, hits], axis=1)
        precision = right / (np.cumsum(seen, axis=1)[:, hits] + np.spacing(1))
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        reached = np.searchsorted(RECALLS, ratio(right, total[:, None]), side="right")
        return np.diff(reached, axis=1, prepend=0), envelope


def _of_class(matches: Matches, label: int) -> _OneClass:
    mine = np.flatnonzero(matches.label == label)
    mine = mine[np.argsort(-matches.score[mine], kind="stable")]
    objects = matches.object_label == label
    return _OneClass(
        image=matches.image[mine],
        rank=matches.rank[mine],
        hit=matches.hit[..., mine],
        ignored=matches.ignored[..., mine],
        object_image=matches.object_image[objects],
        counted=matches.counted[:, objects],
    )


def _choose(precision: Figures, recall: Figures) -> list[Figures]:
    """Return what each of the twelve figures is the mean of, in COCO's order.

    `precision` starts (areas, thresholds, ...), `recall` (limits, areas, thresholds, ...).
    """
    average = [precision[0], precision[0, :1], precision[0, 5:6], *precision[1:]]
    return [*average, recall[0, 0], recall[1, 0], *recall[2]]


def _mean(values: Figures) -> float:
    """Mean of the finite values, in the order pycocotools adds them; NaN where there is none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")

"""What is kept of every photograph while measuring: just enough to compute each figure for any resample.

A tally answers `figures(weights)`: the figures of the data set in which photograph n counts `weights[:, n]` times.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from imagesmith.core.specs import Task
from imagesmith.evaluation.coco import CocoFigures, coco_figures, weighted_figures
from imagesmith.evaluation.matching import Matches
from imagesmith.evaluation.metrics import (
    Counts,
    Figures,
    calibration,
    calibration_error,
    class_counts,
    class_table,
    confusion,
    mean_auc,
    mean_where,
    ratio,
    segmentation_figures,
)

LARGEST_CONFUSION = 200
"""Classes up to which the confusion matrix is worth writing down."""


class Tally(Protocol):
    """Everything a report and a comparison need from one model on one data set."""

    task: ClassVar[Task]
    lower_is_better: ClassVar[tuple[str, ...]]

    @property
    def count(self) -> int:
        """Number of photographs."""

    def point(self) -> dict[str, float]:
        """Return the figures of the data as it is; NaN where one has no meaning."""

    def figures(self, weights: Figures) -> dict[str, Figures]:
        """Return the figures, each (B,), for every row of weights (B, photographs)."""

    def rows(self) -> tuple[dict[str, Any], ...]:
        """Return one row per class."""

    def details(self) -> dict[str, Any]:
        """Return what else a reader of the JSON may want."""


@dataclass(frozen=True, eq=False)
class SegmentTally:
    """`counts` (photographs, classes, 3) hits, false alarms and misses; `matrix` (classes, classes + 1) pixels."""

    counts: Counts
    matrix: Counts
    names: tuple[str, ...]
    background: int | None
    task: ClassVar[Task] = "segment"
    lower_is_better: ClassVar[tuple[str, ...]] = ()

    @property
    def count(self) -> int:
        return len(self.counts)

    def point(self) -> dict[str, float]:
        figures = segmentation_figures(class_counts(self.matrix), self.background)
        return {name: float(value) for name, value in figures.items() if name != "classes"}

    def figures(self, weights: Figures) -> dict[str, Figures]:
        flat = self.counts.reshape(len(self.counts), -1).astype(np.float64)
        summed = (weights @ flat).reshape(len(weights), *self.counts.shape[1:])
        figures = segmentation_figures(summed, self.background)
        return {name: value for name, value in figures.items() if name != "classes"}

    def rows(self) -> tuple[dict[str, Any], ...]:
        return class_table(self.matrix, self.names)

    def details(self) -> dict[str, Any]:
        occurring = int((self.matrix.sum(axis=1) > 0).sum())
        return {"classes_occurring": occurring, "classes_known": len(self.names), **_confusion(self.matrix, self.names)}


@dataclass(frozen=True, eq=False)
class ClassifyTally:
    """`probabilities` (photographs, classes) and `truth` (photographs,) class numbers."""

    probabilities: NDArray[np.float32]
    truth: NDArray[np.int64]
    names: tuple[str, ...]
    task: ClassVar[Task] = "classify"
    lower_is_better: ClassVar[tuple[str, ...]] = ("calibration_error",)

    @property
    def count(self) -> int:
        return len(self.truth)

    @cached_property
    def _guess(self) -> NDArray[np.int64]:
        return self.probabilities.argmax(axis=1)

    def point(self) -> dict[str, float]:
        return {name: float(value[0]) for name, value in self.figures(np.ones((1, self.count))).items()}

    def figures(self, weights: Figures) -> dict[str, Figures]:
        correct = self._guess == self.truth
        member = (self.truth[:, None] == np.arange(len(self.names))).astype(np.float64)
        seen = weights @ member
        recall = ratio(weights @ (member * correct[:, None]), seen)
        return {
            "accuracy": ratio(weights @ correct.astype(np.float64), weights.sum(axis=1)),
            "balanced_accuracy": mean_where(np.nan_to_num(recall), seen > 0),
            "auc": mean_auc(self.probabilities, self.truth, weights),
            "calibration_error": calibration_error(self.probabilities.max(axis=1), correct, weights),
        }

    def rows(self) -> tuple[dict[str, Any], ...]:
        return class_table(self._matrix, self.names)

    @cached_property
    def _matrix(self) -> Counts:
        return confusion(self.truth, self._guess, len(self.names), ignore=-1)

    def details(self) -> dict[str, Any]:
        bins = calibration(self.probabilities.max(axis=1), self._guess == self.truth)
        rows = zip(bins.count.tolist(), bins.confidence.tolist(), bins.accuracy.tolist(), strict=True)
        return {
            "classes_occurring": len(np.unique(self.truth)),
            "classes_known": len(self.names),
            "calibration": [
                {"count": count, "confidence": confidence, "accuracy": accuracy}
                for count, confidence, accuracy in rows
                if count
            ],
            **_confusion(self._matrix, self.names),
        }


@dataclass(frozen=True, eq=False)
class DetectTally:
    """Matched detections; `names` are the data's categories by id."""

    matches: Matches
    names: dict[int, str]
    task: ClassVar[Task] = "detect"
    lower_is_better: ClassVar[tuple[str, ...]] = ()

    @property
    def count(self) -> int:
        return len(self.matches.image_ids)

    @cached_property
    def _coco(self) -> CocoFigures:
        return coco_figures(self.matches)

    def point(self) -> dict[str, float]:
        return self._coco.figures

    def figures(self, weights: Figures) -> dict[str, Figures]:
        return weighted_figures(self.matches, weights)

    def rows(self) -> tuple[dict[str, Any], ...]:
        counted = self.matches.counted[0]
        objects = np.bincount(self.matches.object_label[counted], minlength=len(self.matches.categories))
        total = max(int(objects.sum()), 1)
        return tuple(
            {
                "label": self.names[category],
                **self._coco.by_category[category],
                "share": number / total,
                "count": number,
            }
            for category, number in zip(self.matches.categories, objects.tolist(), strict=True)
            if number
        )

    def details(self) -> dict[str, Any]:
        occurring = len(np.unique(self.matches.object_label[self.matches.counted[0]]))
        return {
            "classes_occurring": occurring,
            "classes_known": len(self.matches.categories),
            "detections": len(self.matches.score),
        }


def _confusion(matrix: Counts, names: tuple[str, ...]) -> dict[str, Any]:
    if len(names) > LARGEST_CONFUSION:
        return {}
    return {"labels": list(names), "confusion": matrix.tolist()}

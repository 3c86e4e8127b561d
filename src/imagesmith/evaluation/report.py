"""What a measurement says: records ready for JSON, and as text for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from imagesmith.core.specs import Record, Task
from imagesmith.evaluation.splits import Group, Split
from imagesmith.image.metadata import write_json

TITLES = {
    "mean_iou": "mean IoU",
    "foreground_mean_iou": "foreground mean IoU",
    "pixel_accuracy": "pixel accuracy",
    "balanced_accuracy": "balanced accuracy",
    "auc": "AUC",
    "calibration_error": "calibration error",
    "iou": "IoU",
    "f1": "F1",
}


class Figure(Record):
    """One number and its interval; None where the data does not define it."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.value is None:
            return "-"
        if self.low is None or self.high is None:
            return f"{self.value:.4f}"
        return f"{self.value:.4f}  [{self.low:.4f}, {self.high:.4f}]"


class Report(Record):
    """How well one model did on one data set; every figure with its bootstrap interval."""

    schema_version: Literal[1] = 1
    task: Task
    model: str
    data: str
    split: Split
    group: Group
    """Whether the split, and the resampling, keep all photographs of a person together."""
    images: int
    figures: dict[str, Figure]
    classes: tuple[dict[str, Any], ...]
    """One row per class that occurs or is predicted."""
    details: dict[str, Any] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()
    level: float
    """Confidence of the intervals."""
    resamples: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        return _finite(self.model_dump(mode="python"))

    def text(self) -> str:
        """Return a table of the figures and one of the classes."""
        lines = [
            f"{self.model} on {self.data}: {self.images} photographs, split {self.split} (by {self.group})",
            "",
            *_table([[TITLES.get(name, name), str(figure)] for name, figure in self.figures.items()]),
            "",
            f"In brackets: {self.level:.0%} interval from {self.resamples} resamples of the "
            f"{'people' if self.group == 'person' else 'photographs'}.",
        ]
        occurring, known = self.details.get("classes_occurring"), self.details.get("classes_known")
        if occurring is not None:
            lines.append(f"Means are over the {occurring} of {known} classes that occur in the split.")
        lines += list(self.notes)
        if self.classes:
            columns = list(self.classes[0])
            by_share = sorted(self.classes, key=lambda row: -row["share"])
            rows = [[_cell(row[column]) for column in columns] for row in by_share]
            lines += ["", *_table([[TITLES.get(column, column) for column in columns], *rows])]
        return "\n".join(lines)

    def save(self, path: str | Path) -> Path:
        """Write the report as JSON, aside first, so that a file is whole or absent."""
        return write_json(path, self.to_dict())


class Comparison(Record):
    """Two models on the same photographs; `difference` is first minus second, resampled in pairs."""

    schema_version: Literal[1] = 1
    first: Report
    second: Report
    difference: dict[str, Figure]
    better: dict[str, float]
    """Share of the resamples in which the first model is the better one; a tie counts half."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        return _finite(self.model_dump(mode="python"))

    def text(self) -> str:
        """Return one table: both models, the difference with its interval, and how sure the order is."""
        rows = [["", self.first.model, self.second.model, "difference", "first is better"]]
        for name, difference in self.difference.items():
            each = [_cell(report.figures[name].value) for report in (self.first, self.second)]
            rows.append([TITLES.get(name, name), *each, str(difference), f"{self.better[name]:.0%} of resamples"])
        head = f"{self.first.data}: {self.first.images} photographs, split {self.first.split} (by {self.first.group})"
        return "\n".join([head, "", *_table(rows)])

    def save(self, path: str | Path) -> Path:
        """Write the comparison as JSON, aside first, so that a file is whole or absent."""
        return write_json(path, self.to_dict())


def _finite(value: Any) -> Any:
    """Replace NaN and infinity by None: JSON has no words for them."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]

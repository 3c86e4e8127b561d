"""What came out of a look at a photograph: frozen records over NumPy arrays, checked when they are made.

Every record has `to_dict()` (ready for JSON), `save(folder)` (files other tools read) and `draw(photo)` (a picture).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagesmith.core.errors import BadInput
from imagesmith.core.protocols import Array, Image
from imagesmith.image import draw, saving
from imagesmith.image.color import palette
from imagesmith.image.photo import Photo
from imagesmith.image.records import Box, check_scores, color_of, freeze, is_background, pixels_of, plain_name
from imagesmith.image.segmentation import UNSURE, Segmentation

__all__ = ["UNSURE", "Box", "Classification", "Detections", "Segmentation", "is_background", "plain_name"]


@dataclass(frozen=True, eq=False)
class Classification:
    """Name what a photograph shows: labels with their probabilities (k,), most probable first.

    `cropped_xyxy` is the part of the photograph the model looked at, in pixels, where that was not all of it;
    `note` says what a reader must know about the answer.

    >>> Classification(("woman", "man"), np.array([0.8, 0.2], np.float32), "demo", "photo.jpg").to_dict()["best"]
    'woman'
    """

    labels: tuple[str, ...]
    scores: NDArray[np.float32]
    model: str
    image: str
    cropped_xyxy: Box | None = None
    note: str = ""

    def __post_init__(self) -> None:
        check_scores(self.scores, len(self.labels))
        if not self.labels:
            raise BadInput("Expected at least one label, but got none.")
        if (np.diff(self.scores) > 0).any():
            raise BadInput(f"Expected scores from high to low, but got {self.scores.tolist()}.")
        freeze(self, "scores")

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        pairs = zip(self.labels, self.scores.tolist(), strict=True)
        return {
            "task": "classify",
            "image": self.image,
            "model": self.model,
            "best": self.labels[0],
            "labels": [{"label": label, "score": score} for label, score in pairs],
            "cropped_xyxy": None if self.cropped_xyxy is None else list(self.cropped_xyxy),
            "note": self.note,
        }

    def save(self, folder: str | Path, photo: Photo | Image | None = None) -> list[Path]:
        """Write `NAME.classes.json`, and with the photograph `NAME.classes.png`; return the files."""
        target = saving.Target(folder, self.image)
        files = [target.json("classes", self.to_dict())]
        if photo is not None:
            files.append(target.png("classes", self.draw(photo)))
        return files

    def draw(self, photo: Photo | Image) -> Image:
        """Put the labels as bars below the photograph, and a frame around the part that was looked at."""
        pixels = pixels_of(photo, None)
        factor = draw.enlargement(*pixels.shape[:2])
        picture = draw.enlarge(pixels, factor)
        if self.cropped_xyxy is not None:
            box = np.array([self.cropped_xyxy]) * factor
            picture = draw.draw_boxes(picture, box, ["looked at"], [draw.BAR])
        return draw.add_bars(picture, self.labels, self.scores.tolist(), self.note)


@dataclass(frozen=True, eq=False)
class Detections:
    """List the objects found in one photograph, best first.

    `boxes_xyxy` (n, 4) float32: left, top, right, bottom in pixels of the photograph; `scores` (n,) float32 in 0 to
    1; `label_ids` (n,) int64; `labels`, one name per detection; `size_hw`, the photograph's height and width.
    """

    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    label_ids: NDArray[np.int64]
    labels: tuple[str, ...]
    model: str
    image: str
    size_hw: tuple[int, int]

    def __post_init__(self) -> None:
        count = len(self.labels)
        if self.boxes_xyxy.shape != (count, 4) or self.label_ids.shape != (count,):
            raise BadInput(
                f"Expected {count} boxes of 4 numbers and {count} label ids, one per label, "
                f"but got {self.boxes_xyxy.shape} and {self.label_ids.shape}."
            )
        if not np.isfinite(self.boxes_xyxy).all():
            raise BadInput("Expected finite boxes, but some are NaN or infinite.")
        if (self.boxes_xyxy[:, 2:] < self.boxes_xyxy[:, :2]).any():
            raise BadInput("Expected boxes as left, top, right, bottom, but some end before they begin.")
        check_scores(self.scores, count)
        freeze(self, "boxes_xyxy", "scores", "label_ids")

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, which: Array) -> Detections:
        """Return some of the detections, by index or by mask, in that order."""
        chosen = np.arange(len(self))[which]
        return replace(
            self,
            boxes_xyxy=self.boxes_xyxy[chosen],
            scores=self.scores[chosen],
            label_ids=self.label_ids[chosen],
            labels=tuple(self.labels[index] for index in chosen),
        )

    def named(self, label: str) -> Detections:
        """Return the detections with this label, however it is spelt."""
        return self.take(np.array([plain_name(known) == plain_name(label) for known in self.labels], np.bool_))

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        rows = zip(self.labels, self.label_ids.tolist(), self.scores.tolist(), self.boxes_xyxy.tolist(), strict=True)
        return {
            "task": "detect",
            "image": self.image,
            "model": self.model,
            "height": self.size_hw[0],
            "width": self.size_hw[1],
            "detections": [
                {"label": label, "label_id": index, "score": score, "box_xyxy": box}
                for label, index, score, box in rows
            ],
        }

    def save(self, folder: str | Path, photo: Photo | Image | None = None) -> list[Path]:
        """Write `NAME.boxes.json` and `NAME.boxes.coco.json`, and with the photograph `NAME.boxes.png`."""
        target = saving.Target(folder, self.image)
        record = self.to_dict()
        annotations = [
            {"category_id": row["label_id"], "bbox": saving.xywh(row["box_xyxy"]), "score": row["score"], "iscrowd": 0}
            for row in record["detections"]
        ]
        for row in annotations:
            row["area"] = row["bbox"][2] * row["bbox"][3]
        names = dict(zip(self.label_ids.tolist(), self.labels, strict=True))
        files = [target.json("boxes.coco", saving.coco_document(self.image, self.size_hw, annotations, names))]
        files.append(target.json("boxes", record))
        if photo is not None:
            files.append(target.png("boxes", self.draw(photo)))
        return files

    def draw(self, photo: Photo | Image) -> Image:
        """Draw every box with its label and score; the colour is fixed per label. Small photographs are enlarged."""
        pixels = pixels_of(photo, self.size_hw)
        factor = draw.enlargement(*self.size_hw)
        colors = palette(256)
        texts = [f"{label} {score:.0%}" for label, score in zip(self.labels, self.scores.tolist(), strict=True)]
        chosen = [color_of(colors[index % 256]) for index in self.label_ids.tolist()]
        return draw.draw_boxes(draw.enlarge(pixels, factor), self.boxes_xyxy * factor, texts, chosen)

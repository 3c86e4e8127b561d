"""A photograph labelled pixel by pixel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagesmith.core.errors import BadInput, UnknownRegion, did_you_mean
from imagesmith.core.protocols import Image
from imagesmith.image import draw, saving
from imagesmith.image.color import palette
from imagesmith.image.masks import encode_rle, mask_box
from imagesmith.image.photo import Photo
from imagesmith.image.records import Box, color_of, freeze, is_background, pixels_of, plain_name

UNSURE = 255
"""Label of a pixel whose confidence is below the threshold that was asked for."""
_UNSURE_COLOR = (128, 128, 128)


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Label every pixel of one photograph.

    `labels_hw` (H, W) uint8 indexes `names`, or is 255 where the model was unsure. `confidence` (probability of the
    winning class) and `entropy` (nats) are (H, W) float32, `probabilities` (C, H, W) float32, each only where it was
    asked for. `uncertainty` is the mean entropy divided by log C: 0 sure, 1 a uniform guess.
    `cropped_xyxy` is the part of the photograph the model looked at, in pixels, where that was not all of it.

    >>> import numpy as np
    >>> found = Segmentation(np.array([[0, 1], [1, 1]], np.uint8), ("background", "dress"), "demo", "photo.jpg")
    >>> found.present(), found.box_xyxy("dress")
    ({'dress': 0.75, 'background': 0.25}, (0, 0, 2, 2))
    """

    labels_hw: NDArray[np.uint8]
    names: tuple[str, ...]
    model: str
    image: str
    confidence: NDArray[np.float32] | None = None
    entropy: NDArray[np.float32] | None = None
    probabilities: NDArray[np.float32] | None = None
    uncertainty: float | None = None
    cropped_xyxy: Box | None = None

    def __post_init__(self) -> None:
        labels = self.labels_hw
        if labels.dtype != np.uint8 or labels.ndim != 2 or labels.size == 0:
            raise BadInput(f"Expected labels (H, W) of uint8, but got {labels.shape} of {labels.dtype}.")
        if not 1 <= len(self.names) <= UNSURE:
            raise BadInput(f"Expected 1 to {UNSURE} label names, but got {len(self.names)}.")
        unnamed = np.flatnonzero(self._counts[len(self.names) : UNSURE])
        if len(unnamed):
            wrong = len(self.names) + int(unnamed[0])
            raise BadInput(f"Expected labels below {len(self.names)}, one name each, but found label {wrong}.")
        for field, shape in (
            ("confidence", labels.shape),
            ("entropy", labels.shape),
            ("probabilities", (len(self.names), *labels.shape)),
        ):
            values = getattr(self, field)
            if values is not None and (values.shape != shape or values.dtype != np.float32):
                raise BadInput(f"Expected {field} {shape} of float32, but got {values.shape} of {values.dtype}.")
        freeze(self, "labels_hw", "confidence", "entropy", "probabilities")

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the photograph in pixels."""
        return self.labels_hw.shape[0], self.labels_hw.shape[1]

    @cached_property
    def _counts(self) -> NDArray[np.int64]:
        counts = np.zeros(256, np.int64)
        for start in range(0, len(self.labels_hw), 256):  # bincount widens its input eightfold
            counts += np.bincount(self.labels_hw[start : start + 256].ravel(), minlength=256)
        return counts

    def ids(self, name: str) -> tuple[int, ...]:
        """Return the label ids of a name, however it is spelt ("Left-shoe", "left shoe").

        Raises `UnknownRegion` where the model has no such label; the sentence lists what is in the photograph.
        """
        wanted = plain_name(name)
        found = tuple(index for index, known in enumerate(self.names) if plain_name(known) == wanted)
        if not found or not wanted:
            near = did_you_mean(wanted, [plain_name(known) for known in self.names])
            raise UnknownRegion(
                f'{self.model} knows no "{name}".{near} In this photograph: {", ".join(self.present())}.'
            )
        return found

    def mask(self, name: str) -> NDArray[np.bool_]:
        """Return where a label is, (H, W) bool; all False where the model knows the label but did not see it."""
        first, *others = self.ids(name)
        mask = self.labels_hw == first
        for index in others:
            mask |= self.labels_hw == index
        return mask

    def present(self) -> dict[str, float]:
        """Return the share of the photograph each label covers (0 to 1), largest first; unsure pixels count nowhere."""
        shares: dict[str, float] = {}
        for index in np.flatnonzero(self._counts[: len(self.names)]):
            name = self.names[index]
            shares[name] = shares.get(name, 0.0) + float(self._counts[index] / self.labels_hw.size)
        return dict(sorted(shares.items(), key=lambda item: (-item[1], item[0])))

    @property
    def unsure_share(self) -> float:
        """Share of the photograph (0 to 1) whose confidence is below the threshold that was asked for."""
        return float(self._counts[UNSURE] / self.labels_hw.size)

    def box_xyxy(self, name: str) -> Box | None:
        """Return the box around a label: left, top, right, bottom in pixels, the last two exclusive; None if absent."""
        return mask_box(self.mask(name))

    def regions(self) -> list[dict[str, Any]]:
        """List what is in the photograph, largest first: id, name, area in pixels, share, box, and mask as COCO RLE."""
        rows: list[dict[str, Any]] = []
        by_column = np.ascontiguousarray(self.labels_hw.T)  # run lengths go down columns: reading them in order is fast
        for index in np.argsort(-self._counts[: len(self.names)], kind="stable").tolist():
            area = int(self._counts[index])
            if area:
                mask = (by_column == index).T
                share, box = area / self.labels_hw.size, list(mask_box(mask) or ())
                row = {"id": index, "name": self.names[index], "area": area, "share": share, "box_xyxy": box}
                rows.append(row | {"rle": encode_rle(mask)})
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the full-size float maps, ready for JSON; masks are COCO run lengths."""
        height, width = self.size_hw
        return {
            "task": "segment",
            "image": self.image,
            "model": self.model,
            "height": height,
            "width": width,
            "regions": self.regions(),
            "unsure_share": self.unsure_share,
            "uncertainty": self.uncertainty,
            "cropped_xyxy": None if self.cropped_xyxy is None else list(self.cropped_xyxy),
            "mean_confidence": None if self.confidence is None else float(self.confidence.mean(dtype=np.float64)),
        }

    def save(self, folder: str | Path, photo: Photo | Image | None = None) -> list[Path]:
        """Write the result into a folder (made where it is missing) and return the files.

        `NAME.labels.png` (palette; pixel values are label ids), `NAME.LABEL.png` per label (white where it is),
        `NAME.regions.json`, `NAME.regions.coco.json` (with RLE masks), `NAME.maps.npz` where float maps were asked
        for, and with the photograph `NAME.overlay.png`.
        """
        target = saving.Target(folder, self.image)
        record = self.to_dict()
        colors = self.colors()
        files = [target.indexed_png("labels", self.labels_hw, colors)]
        for region in record["regions"]:
            if not is_background(region["name"]):
                files.append(target.mask_png(self._mask_name(region["id"]), self.labels_hw == region["id"]))
        files += [target.json("regions.coco", self._coco(record)), target.json("regions", record)]
        maps = {"confidence": self.confidence, "entropy": self.entropy, "probabilities": self.probabilities}
        kept = {name: values for name, values in maps.items() if values is not None}
        if kept:
            files.append(target.arrays("maps", kept))
        if photo is not None:
            files.append(target.png("overlay", self.draw(photo)))
        return files

    def _mask_name(self, index: int) -> str:
        """Return a label as part of a file name; the id is added where two labels would share it."""
        words = [saving.slug(name) for name in self.names]
        return words[index] if words.count(words[index]) == 1 and words[index] else f"{words[index]}-{index}"

    def _coco(self, record: dict[str, Any]) -> dict[str, Any]:
        annotations = [
            {
                "category_id": row["id"],
                "segmentation": row["rle"],
                "area": row["area"],
                "bbox": saving.xywh(row["box_xyxy"]),
                "iscrowd": 0,
            }
            for row in record["regions"]
            if not is_background(row["name"])
        ]
        return saving.coco_document(self.image, self.size_hw, annotations, dict(enumerate(self.names)))

    def colors(self) -> NDArray[np.uint8]:
        """Return the colour of every label value, (256, 3): fixed per id, black for background, grey for unsure."""
        colors = palette(256)
        for index, name in enumerate(self.names):
            if is_background(name):
                colors[index] = 0
        colors[UNSURE] = _UNSURE_COLOR
        return colors

    def draw(self, photo: Photo | Image, *, opacity: float = 0.6, legend: bool = True) -> Image:
        """Tint the regions of the photograph; returns (H', W', 3) uint8.

        The legend, largest region first, stands beside or below the photograph. Photographs below 320 pixels are
        enlarged by a whole factor. Without a legend the size is the photograph's times that factor.
        """
        pixels = pixels_of(photo, self.size_hw)
        factor = draw.enlargement(*self.size_hw)
        colors = self.colors()
        shown = np.array([index < len(self.names) and not is_background(self.names[index]) for index in range(256)])
        shown[UNSURE] = True
        labels = draw.enlarge(self.labels_hw, factor)
        picture = draw.tint(draw.enlarge(pixels, factor), labels, colors, shown, opacity)
        if not legend:
            return picture
        order = np.argsort(-self._counts, kind="stable")
        entries = [
            draw.Entry(
                color_of(colors[index]),
                "unsure" if index == UNSURE else self.names[index],
                draw.percent(float(self._counts[index] / self.labels_hw.size)),
            )
            for index in order.tolist()
            if self._counts[index] and shown[index]
        ]
        return draw.add_legend(picture, entries or [draw.Entry(draw.PAPER, "background only")])

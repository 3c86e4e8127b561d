"""From a photograph to a network's input, and from a part of a photograph back to the whole.

Sizes are (height, width), boxes (x0, y0, x1, y1), points (x, y); pixel (0, 0) covers the square from 0 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image as PillowImage

from imagesmith.core.errors import BadInput
from imagesmith.core.protocols import Array
from imagesmith.core.specs import Preprocessing

_FILTERS = {
    "nearest": PillowImage.Resampling.NEAREST,
    "bilinear": PillowImage.Resampling.BILINEAR,
    "bicubic": PillowImage.Resampling.BICUBIC,
    "lanczos": PillowImage.Resampling.LANCZOS,
}


def target_size(
    height: int, width: int, preprocessing: Preprocessing, resolution: int | None = None
) -> tuple[int, int]:
    """Return the (height, width) at which the network sees a photograph of this size, at least 1 x 1.

    `resolution` replaces the longest side the network was made for; the way of sizing stays (stretched to a fixed
    shape, or the photograph's own aspect ratio).

    >>> target_size(480, 640, Preprocessing(shortest_edge=800, longest_edge=1333))
    (800, 1066)
    """
    rule = preprocessing
    if rule.height is not None and rule.width is not None:
        scale = 1.0 if resolution is None else resolution / max(rule.height, rule.width)
        size = round(rule.height * scale), round(rule.width * scale)
    elif rule.shortest_edge is not None:
        shortest, longest = rule.shortest_edge, rule.longest_edge
        if resolution is not None:
            shortest = round(shortest * resolution / longest) if longest else min(shortest, resolution)
            longest = resolution
        size = _within_edges(height, width, max(shortest, 1), longest)
    elif rule.longest_edge is not None:
        scale = (resolution or rule.longest_edge) / max(height, width)
        size = round(height * scale), round(width * scale)
    else:
        raise BadInput("preprocessing must give height and width, shortest_edge, or longest_edge; it gives none.")
    step = rule.multiple_of
    fixed = resolution is None and rule.height is not None  # what the weights were made for is not rounded
    return size if fixed else (max(round(size[0] / step), 1) * step, max(round(size[1] / step), 1) * step)


def _within_edges(height: int, width: int, shortest: int, longest: int | None) -> tuple[int, int]:
    """Scale so that the shorter side is `shortest`, or less where the longer one would pass `longest` (DETR's rule)."""
    low, high = min(height, width), max(height, width)
    exact = float(shortest)
    if longest is not None and high / low * shortest > longest:
        exact = longest * low / high
        shortest = round(exact)
    if low == shortest:
        return height, width
    other = int(exact * high / low)
    return (shortest, other) if height <= width else (other, shortest)


def to_input(pixels: Array, preprocessing: Preprocessing, size_hw: tuple[int, int]) -> Array:
    """Resize (H, W, 3) uint8 pixels and normalise them: (3, h, w) float32, channels first.

    Equal to the last bit to transformers' SegFormer, ViT and DETR processors: resized as uint8 by Pillow, rescaled in
    double precision, normalised in single. Only 256 values can occur per channel, so they are computed once each.
    """
    resized = resize(pixels, size_hw, preprocessing.resample)
    levels = (np.arange(256) * preprocessing.rescale_factor).astype(np.float32)
    out = np.empty((3, *size_hw), np.float32)
    for channel in range(3):
        mean, std = np.float32(preprocessing.mean[channel]), np.float32(preprocessing.std[channel])
        np.take((levels - mean) / std, resized[:, :, channel], out=out[channel], mode="clip")
    return out


def resize(pixels: Array, size_hw: tuple[int, int], resample: str = "bilinear") -> Array:
    """Resize an (H, W) or (H, W, C) array of uint8, or an (H, W) one of float32, with Pillow's antialiased filters."""
    if pixels.shape[:2] == size_hw:
        return pixels
    image = PillowImage.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((size_hw[1], size_hw[0]), _FILTERS[resample]))


@dataclass(frozen=True)
class Crop:
    """Map between a photograph and a rectangle cut out of it, optionally resized: pixels, masks, boxes and points.

    `box_xyxy` lies inside the photograph of `photo_hw`; `size_hw` is the crop's own size (unset: that of the box).

    >>> crop = Crop((10, 20, 30, 60), (100, 200), (80, 40))
    >>> crop.points_to_photo(np.array([[40.0, 80.0]])).tolist()
    [[30.0, 60.0]]
    """

    box_xyxy: tuple[int, int, int, int]
    photo_hw: tuple[int, int]
    size_hw: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        x0, y0, x1, y1 = self.box_xyxy
        height, width = self.photo_hw
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            raise BadInput(
                f"a crop must lie inside the photograph (width {width}, height {height}), not {self.box_xyxy}."
            )

    @classmethod
    def around(
        cls, box_xyxy: Array | tuple[float, float, float, float], photo_hw: tuple[int, int], factor: float = 1.0
    ) -> Crop:
        """Crop around a box enlarged `factor` times about its centre, whole pixels, cut at the photograph's border.

        >>> Crop.around((40, 40, 60, 60), (100, 100), 1.5).box_xyxy
        (35, 35, 65, 65)
        """
        x0, y0, x1, y1 = (float(value) for value in box_xyxy)
        height, width = photo_hw
        middle_x, middle_y = (x0 + x1) / 2, (y0 + y1) / 2
        half_x, half_y = abs(x1 - x0) / 2 * factor, abs(y1 - y0) / 2 * factor
        left = min(max(int(np.floor(middle_x - half_x)), 0), width - 1)
        top = min(max(int(np.floor(middle_y - half_y)), 0), height - 1)
        right = max(min(int(np.ceil(middle_x + half_x)), width), left + 1)
        bottom = max(min(int(np.ceil(middle_y + half_y)), height), top + 1)
        return cls((left, top, right, bottom), photo_hw)

    @property
    def box_hw(self) -> tuple[int, int]:
        """Return the height and width of the box in the photograph."""
        x0, y0, x1, y1 = self.box_xyxy
        return y1 - y0, x1 - x0

    @property
    def crop_hw(self) -> tuple[int, int]:
        """Return the height and width of the crop itself."""
        return self.size_hw or self.box_hw

    def cut(self, pixels: Array, resample: str = "bilinear") -> Array:
        """Cut the crop out of the photograph's (H, W) or (H, W, C) array; a mask wants "nearest".

        Where nothing is resized this is a view.
        """
        self._check(pixels, self.photo_hw, "photograph")
        x0, y0, x1, y1 = self.box_xyxy
        part = pixels[y0:y1, x0:x1]
        if self.crop_hw == self.box_hw:
            return part
        return _resize_any(part, self.crop_hw, resample)

    def place(self, part: Array, fill: float = 0, resample: str = "nearest") -> Array:
        """Lay the crop's (h, w) or (h, w, C) array into an empty one of the photograph's size, `fill` elsewhere."""
        whole = np.full((*self.photo_hw, *part.shape[2:]), fill, part.dtype)
        return self._paste(whole, part, resample)

    def paste(self, pixels: Array, part: Array, resample: str = "bilinear") -> Array:
        """Return a copy of the photograph's array with the crop's array in its place."""
        self._check(pixels, self.photo_hw, "photograph")
        return self._paste(pixels.copy(), part, resample)

    def points_to_photo(self, points_xy: Array) -> Array:
        """Map (..., 2) points of the crop to the photograph."""
        return points_xy / self._scale() + np.array(self.box_xyxy[:2])

    def points_to_crop(self, points_xy: Array) -> Array:
        """Map (..., 2) points of the photograph to the crop."""
        return (points_xy - np.array(self.box_xyxy[:2])) * self._scale()

    def boxes_to_photo(self, boxes_xyxy: Array) -> Array:
        """Map (..., 4) boxes of the crop to the photograph."""
        return self.points_to_photo(boxes_xyxy.reshape(*boxes_xyxy.shape[:-1], 2, 2)).reshape(boxes_xyxy.shape)

    def boxes_to_crop(self, boxes_xyxy: Array) -> Array:
        """Map (..., 4) boxes of the photograph to the crop; they may reach beyond it."""
        return self.points_to_crop(boxes_xyxy.reshape(*boxes_xyxy.shape[:-1], 2, 2)).reshape(boxes_xyxy.shape)

    def _scale(self) -> Array:
        """Return the crop's pixels per pixel of the photograph, (x, y)."""
        return np.array([self.crop_hw[1] / self.box_hw[1], self.crop_hw[0] / self.box_hw[0]])

    def _paste(self, whole: Array, part: Array, resample: str) -> Array:
        self._check(part, self.crop_hw, "crop")
        x0, y0, x1, y1 = self.box_xyxy
        whole[y0:y1, x0:x1] = part if self.crop_hw == self.box_hw else _resize_any(part, self.box_hw, resample)
        return whole

    def _check(self, array: Array, size_hw: tuple[int, int], what: str) -> None:
        if array.shape[:2] != size_hw:
            raise BadInput(f"the {what} of this crop is {size_hw} (height, width), but the array is {array.shape[:2]}.")


def _resize_any(array: Array, size_hw: tuple[int, int], resample: str) -> Array:
    """Resize as `resize` does; any other type only by "nearest", which needs no arithmetic."""
    if resample == "nearest":
        rows = ((np.arange(size_hw[0]) + 0.5) * (array.shape[0] / size_hw[0])).astype(int)
        columns = ((np.arange(size_hw[1]) + 0.5) * (array.shape[1] / size_hw[1])).astype(int)
        picked: Array = array[rows[:, None], columns[None, :]]
        return picked
    if array.dtype == np.bool_:
        return resize(array.astype(np.float32), size_hw, resample) >= 0.5
    if array.dtype not in (np.uint8, np.float32) or (array.dtype == np.float32 and array.ndim == 3):
        raise BadInput(f"an array of {array.dtype} {array.shape} can only be resized by nearest, not by {resample}.")
    return resize(array, size_hw, resample)

"""Operations on the pixels of a region: pure functions of a photograph and an alpha.

Every function takes `pixels` (H, W, 3) uint8 and `alpha` (H, W) float32 in 0 to 1, how much of the change each pixel
receives, and returns new pixels. Where alpha is 0 the result is bit-equal to the photograph. Work is done inside the
bounding box of the alpha only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from PIL import Image as PillowImage

from imagesmith.core.protocols import Array
from imagesmith.core.protocols import Image as Pixels
from imagesmith.editing.color import (
    lightness_of_srgb,
    linear_from_srgb,
    oklab_from_linear,
    srgb_from_oklab,
)
from imagesmith.editing.pyramid import blur_inside, spread_outward
from imagesmith.editing.shading import LEVELS, bend, cloth_table, table_index

Box: TypeAlias = tuple[slice, slice]

_SAMPLES = 65_536
_STRIP = 32  # rows at a time: they stay in the processor's cache


def recolor(pixels: Pixels, alpha: Array, color: tuple[int, int, int]) -> Pixels:
    """Give the region a new colour and keep its shading and texture.

    Works in OKLab. The region's median lightness moves to the colour's own (black and white only as far as cloth goes
    in a photograph); local differences of lightness stay, scaled as the change of reflectance would scale them. Hue
    is the colour's; chroma follows the light: less in shadow, less in highlights, never more than the screen shows.
    """
    box = box_of(alpha)
    if box is None:
        return pixels.copy()
    table = cloth_table(color, _median_lightness(pixels[box], alpha[box]))
    return _apply(pixels, alpha, lambda part: table[table_index(part)])


def tone(
    pixels: Pixels,
    alpha: Array,
    *,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    temperature: float = 0.0,
) -> Pixels:
    """Adjust the light of the region; each amount is from -1 to 1, and 0 changes nothing.

    Temperature scales red against blue in linear light, as a white balance does. Brightness is a gamma on OKLab's
    lightness, black and white stay. Contrast turns about the region's median lightness: -1 is flat. Saturation scales
    chroma: -1 is grey, 1 is twice as colourful, as far as the screen shows it.
    """
    box = box_of(alpha)
    if box is None:
        return pixels.copy()
    power = 2.0**-brightness
    pivot = _median_lightness(pixels[box], alpha[box]) ** power
    slope = 1 + contrast if contrast < 0 else 1 + 2 * contrast
    old = np.linspace(0, 1, LEVELS, dtype=np.float32)
    bright = old**power
    shift = pivot - old + bend(bright - pivot, slope, 1 - pivot, 1 - pivot) - bend(pivot - bright, slope, pivot, pivot)
    gains = np.array([2.0 ** (0.35 * temperature), 1.0, 2.0 ** (-0.35 * temperature)])
    gains = (gains / (gains @ [0.2126, 0.7152, 0.0722])).astype(np.float32)

    def change(part: Pixels) -> Array:
        lab = oklab_from_linear(linear_from_srgb(part) * gains)
        before = lab[..., 0].clip(1e-4, 1)
        after = (before + shift[np.rint(before * (LEVELS - 1)).astype(np.intp)]).clip(0, 1)
        scale = np.minimum(after / before, 1.5) * np.float32(1 + saturation)
        return srgb_from_oklab(np.stack([after, lab[..., 1] * scale, lab[..., 2] * scale], axis=-1))

    return _apply(pixels, alpha, change)


def blur(pixels: Pixels, alpha: Array, radius: float, region: Array) -> Pixels:
    """Blur the region by a Gaussian of standard deviation `radius` pixels.

    Only pixels of `region` (H, W) bool are mixed, so nothing of the surroundings leaks in; beyond its edge, where
    `alpha` is still above 0, the blurred colours are continued outward, so nothing of the region leaks out sharp.
    """
    box = box_of(alpha)
    if box is None:
        return pixels.copy()
    result = pixels.copy()
    blurred = blur_inside(pixels[box].astype(np.float32), region[box].astype(np.float32), radius)
    result[box] = blend(pixels[box], blurred, alpha[box])
    return result


def pixelate(pixels: Pixels, alpha: Array, size: int) -> Pixels:
    """Replace the region by squares of `size` pixels, each the mean of the region's own pixels in it.

    Where alpha is 1 nothing else of the region is left in the result: one colour per square.
    """
    box = box_of(alpha)
    if box is None:
        return pixels.copy()
    part, weight = pixels[box].astype(np.float32), (alpha[box] > 0).astype(np.float32)
    height, width = weight.shape
    starts = (np.arange(0, height, size), np.arange(0, width, size))
    stacked = np.concatenate([part * weight[..., None], weight[..., None]], axis=-1)
    sums = np.add.reduceat(np.add.reduceat(stacked, starts[0], axis=0), starts[1], axis=1)
    means = np.rint(sums[..., :3] / np.maximum(sums[..., 3:], 1))
    squares = means.repeat(size, axis=0).repeat(size, axis=1)[:height, :width]
    result = pixels.copy()
    result[box] = blend(pixels[box], squares, alpha[box])
    return result


def replace_background(pixels: Pixels, alpha: Array, background: Array, strength: float = 1.0) -> Pixels:
    """Put the region in front of `background`, a picture (H, W, 3) or one colour (3,); where alpha is 1 it stays.

    Along the soft edge the old background's colour is taken out of the region first. A `strength` below 1 lets the
    old background show.
    """
    behind = np.broadcast_to(np.asarray(background, np.uint8), pixels.shape)
    replaced = blend(behind, decontaminate(pixels, alpha), alpha)
    return replaced if strength >= 1 else blend(pixels, replaced, np.full(alpha.shape, strength, np.float32))


def cut_out(pixels: Pixels, alpha: Array, strength: float = 1.0) -> tuple[Pixels, Array]:
    """Return the region alone: colours (H, W, 3) uint8 and alpha (H, W) uint8.

    Colours are 0 where the result is transparent, so what was cut away is not hidden in the file; where alpha is 1
    they are untouched, and along the soft edge the old background's colour is taken out. A `strength` below 1 leaves
    the background half transparent.
    """
    opaque = np.rint((1 - strength * (1 - alpha)) * 255).astype(np.uint8)
    colors = decontaminate(pixels, alpha) if strength >= 1 else pixels.copy()
    colors[opaque == 0] = 0
    return colors, opaque


def decontaminate(pixels: Pixels, alpha: Array) -> Pixels:
    """Replace the mixed colours along a soft edge by those of the region's inside, the more the softer."""
    result = pixels.copy()
    box = box_of((alpha > 0) & (alpha < 1))
    if box is None:
        return result
    part, weight = pixels[box], alpha[box]
    sure = weight >= min(1.0, float(weight.max()))
    inside = spread_outward(part.astype(np.float32), sure.astype(np.float32))
    result[box] = blend(part, inside, np.where(weight > 0, np.minimum(1, 2 * (1 - weight)), 0))
    return result


def fit_cover(picture: Pixels, height: int, width: int) -> Pixels:
    """Scale a picture (h, w, 3) until it covers `height` x `width`, and cut the surplus off evenly.

    >>> fit_cover(np.zeros((10, 40, 3), np.uint8), 20, 20).shape
    (20, 20, 3)
    """
    own_height, own_width = picture.shape[:2]
    scale = max(height / own_height, width / own_width)
    cut_width, cut_height = width / scale, height / scale
    left, top = (own_width - cut_width) / 2, (own_height - cut_height) / 2
    image = PillowImage.fromarray(np.ascontiguousarray(picture))
    area = (left, top, left + cut_width, top + cut_height)
    return np.array(image.resize((width, height), PillowImage.Resampling.LANCZOS, box=area))


def blend(below: Array, above: Array, alpha: Array) -> Pixels:
    """Return `above` over `below`, (H, W, 3) each, by alpha (H, W): exactly `below` at 0, exactly `above` at 1."""
    base = below.astype(np.float32)
    mixed = base + (above.astype(np.float32) - base) * alpha[..., None].astype(np.float32)
    return np.rint(mixed).clip(0, 255).astype(np.uint8)


def box_of(alpha: Array) -> Box | None:
    """Return the rows and columns where alpha is not 0, or None where it is 0 everywhere."""
    rows = np.flatnonzero(alpha.any(axis=1))
    columns = np.flatnonzero(alpha.any(axis=0))
    if not len(rows):
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _median_lightness(part: Pixels, alpha: Array) -> float:
    chosen = part[alpha > 0.5] if (alpha > 0.5).any() else part[alpha > 0]  # (n, 3)
    return float(np.median(lightness_of_srgb(chosen[:: max(1, len(chosen) // _SAMPLES)])))


def _apply(pixels: Pixels, alpha: Array, change: Callable[[Pixels], Array]) -> Pixels:
    """Blend `change(part)`, a function of single pixels, into a copy of `pixels` by alpha."""
    result = pixels.copy()
    box = box_of(alpha)
    if box is None:
        return result
    rows, columns = box
    for top in range(rows.start, rows.stop, _STRIP):
        strip = (slice(top, min(top + _STRIP, rows.stop)), columns)
        result[strip] = blend(pixels[strip], change(pixels[strip]), alpha[strip])
    return result

"""How a cloth's lightness and colour follow when its dye changes; the numbers behind `operations.recolor`."""

from __future__ import annotations

import numpy as np

from imagesmith.core.protocols import Array
from imagesmith.editing.color import (
    greatest_chroma,
    lightness_of_srgb,
    linear_from_oklab,
    oklab_from_srgb,
    srgb_from_linear,
)

LEVELS = 4096
_FLARE = 0.002  # linear light; keeps the noise of crushed blacks from being amplified into texture
_DYE = 0.88  # share of the screen's chroma that dyed cloth reaches; at all of it navy looks like a neon sign
_BLACKEST = 0.03


def cloth_table(color: tuple[int, int, int], median_lightness: float) -> Array:
    """Return the new colour (LEVELS, 3) uint8 at each old lightness, 0 to 1 in even steps.

    `median_lightness` is the region's in OKLab; it lands near the colour's own lightness.
    """
    target = oklab_from_srgb(np.array([color], np.uint8))[0]
    aim = _cloth_lightness(float(target[0]))
    middle = float(_detail(median_lightness))
    center = aim - 0.15 * max(0.0, aim - middle)  # dark cloth made fully bright would seem to glow
    levels = np.linspace(0, 1, LEVELS, dtype=np.float32)
    return _ramp(_tone_curve(_detail(levels), middle, center), aim, target[1:])


def table_index(rgb: Array) -> Array:
    """Return the row of a table of `LEVELS` rows that holds each colour's lightness, (...) integers."""
    return np.rint(lightness_of_srgb(rgb) * (LEVELS - 1)).astype(np.intp).clip(0, LEVELS - 1)


def bend(distance: Array, slope: float, room: float, new_room: float) -> Array:
    """Map distances 0 to `room` onto 0 to `new_room`, with `slope` at 0, rising everywhere and never passing the end.

    Where the straight line would stay inside, it is that line.
    """
    share = np.clip(distance / max(room, 1e-3), 0, 1)
    rise = slope * room / max(new_room, 1e-3)
    return new_room * rise * share / (1 + max(0.0, rise - 1) * share)


def _tone_curve(detail: Array, middle: float, center: float) -> Array:
    """Map detail (n,) to lightness: `middle` to `center`, contrast scaled by the change of lightness.

    The slope at `center` is the ratio of the lightnesses to the power 0.75 (at 1 dark cloth turns harsh and light cloth
    flat).
    """
    slope = float(np.clip((center / middle) ** 0.75, 0.5, 2.4))
    darkest = float(_detail(0.0))
    above = bend(detail - middle, slope, 1 - middle, 1 - center)
    below = bend(middle - detail, slope, middle - darkest, center - _BLACKEST)
    return np.clip(center + above - below, 0, 1)


def _ramp(lightness: Array, aim: float, target_ab: Array) -> Array:
    """Return the cloth's colour (n, 3) uint8 at each lightness (n,): shadow to `aim` to highlight."""
    chroma = max(float(np.hypot(*target_ab)), 1e-6)
    share = np.where(lightness <= aim, lightness / aim, (1 - lightness) / (1 - aim))
    allowed = np.minimum(chroma * share, _DYE * greatest_chroma(lightness, target_ab / chroma))
    lab = np.concatenate([lightness[:, None], allowed[:, None] * (target_ab / chroma)], axis=1)
    return srgb_from_linear(linear_from_oklab(lab.astype(np.float32)))


def _detail(lightness: Array | float) -> Array:
    return np.cbrt(np.asarray(lightness, np.float32) ** 3 + np.float32(_FLARE))


def _cloth_lightness(lightness: float) -> float:
    """Return the lightness a cloth of this colour has in a photograph: black cloth is not 0, white cloth not 1."""
    low, high, curve = 0.19, 0.93, 0.12
    if lightness < low + curve:
        return low + max(0.0, lightness - (low - curve)) ** 2 / (4 * curve)
    if lightness > high - curve:
        return high - max(0.0, (high + curve) - lightness) ** 2 / (4 * curve)
    return lightness

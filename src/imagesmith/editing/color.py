"""Colours: names people type, and OKLab, a space whose distances look even.

OKLab is Björn Ottosson's perceptual space (https://bottosson.github.io/posts/oklab/): L is lightness (0 black,
1 white), a runs from green to red, b from blue to yellow; chroma is the length of (a, b), hue its angle. Scaling the
light on a surface scales all three alike, which is what lets a new colour keep a garment's shading.
"""

from __future__ import annotations

import re

import numpy as np
from PIL import ImageColor

from imagesmith.core.errors import BadInput, did_you_mean
from imagesmith.core.protocols import Array
from imagesmith.image.color import CONES_TO_LAB, RGB_TO_CONES

_LAB_TO_CONES = np.linalg.inv(CONES_TO_LAB)
_CONES_TO_RGB = np.linalg.inv(RGB_TO_CONES)
_ENCODED_STEPS = 65535  # fine enough that the table rounds to the same byte as the formula but for 1 step in 40

GARMENT_COLORS = {
    "apricot": "#fbceb1",
    "burgundy": "#800020",
    "camel": "#c19a6b",
    "champagne": "#f7e7ce",
    "charcoal": "#36454f",
    "cream": "#fffdd0",
    "denim": "#3b5b82",
    "emerald": "#046307",
    "mint": "#aaf0d1",
    "mustard": "#e1ad01",
    "navyblue": "#000080",
    "petrol": "#005f6a",
    "rose": "#e8a0a8",
    "rust": "#b7410e",
    "sand": "#c2b280",
    "wine": "#722f37",
}
"""Colours of clothes that CSS has no name for."""


def parse_color(text: str) -> tuple[int, int, int]:
    """Read a colour: a CSS name, a garment colour, #rgb, #rrggbb or rgb(r, g, b); `BadInput` otherwise.

    >>> parse_color("Dark Red"), parse_color("#7a1f2b"), parse_color("rgb(10, 20, 30)")
    ((139, 0, 0), (122, 31, 43), (10, 20, 30))
    """
    word = re.sub(r"\s+", "", text.lower())
    name = re.sub(r"[_-]+", "", word)
    if name in color_names():
        word = GARMENT_COLORS.get(name, name)
    if (
        re.fullmatch(r"#([0-9a-f]{3}|[0-9a-f]{6})|rgb\([0-9]+%?,[0-9]+%?,[0-9]+%?\)", word)
        or word == name in ImageColor.colormap
    ):
        try:
            red, green, blue = ImageColor.getrgb(word)[:3]
        except ValueError:
            red = green = blue = -1
        if min(red, green, blue) >= 0 and max(red, green, blue) <= 255:
            return red, green, blue
    near = did_you_mean(name, color_names())
    raise BadInput(f'"{text}" is no colour.{near} Give a name (crimson), #rgb, #rrggbb or rgb(r, g, b) up to 255.')


def is_color(text: str) -> bool:
    """Tell whether `text` reads as a colour (and so not as the path of a picture).

    >>> is_color("navy"), is_color("beach.jpg")
    (True, False)
    """
    try:
        parse_color(text)
    except BadInput:
        return False
    return True


def color_names() -> list[str]:
    """Return every colour name `parse_color` reads."""
    return [*ImageColor.colormap, *GARMENT_COLORS]


def linear_from_srgb(rgb: Array) -> Array:
    """Return linear light (..., 3) float32 in 0 to 1 of sRGB bytes (..., 3) uint8."""
    encoded = np.arange(256) / 255
    table = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    return table.astype(np.float32)[rgb]


def srgb_from_linear(linear: Array) -> Array:
    """Return sRGB bytes (..., 3) uint8 of linear light (..., 3); values outside 0 to 1 are clipped."""
    light = np.arange(_ENCODED_STEPS + 1) / _ENCODED_STEPS
    table = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    steps = np.clip(linear, 0, 1) * np.float32(_ENCODED_STEPS) + np.float32(0.5)
    return np.rint(table * 255).astype(np.uint8)[steps.astype(np.uint16)]


def oklab_from_srgb(rgb: Array) -> Array:
    """Return OKLab (..., 3) float32 of sRGB bytes (..., 3) uint8.

    >>> oklab_from_srgb(np.array([[255, 255, 255], [0, 0, 0]], np.uint8)).round(3).tolist()[0][0]
    1.0
    """
    return oklab_from_linear(linear_from_srgb(rgb))


def lightness_of_srgb(rgb: Array) -> Array:
    """Return OKLab's lightness (...) float32 alone, in 0 to 1, of sRGB bytes (..., 3) uint8."""
    cones = _matrix(linear_from_srgb(rgb), RGB_TO_CONES)
    return np.cbrt(cones) @ CONES_TO_LAB[0].astype(np.float32)


def oklab_from_linear(linear: Array) -> Array:
    """Return OKLab (..., 3) float32 of linear light (..., 3) float32."""
    cones = _matrix(linear, RGB_TO_CONES)
    return _matrix(np.cbrt(cones), CONES_TO_LAB)


def linear_from_oklab(lab: Array) -> Array:
    """Return linear light (..., 3) float32 of OKLab (..., 3); outside 0 to 1 where the screen cannot show it."""
    cones = _matrix(lab, _LAB_TO_CONES)
    return _matrix(cones * cones * cones, _CONES_TO_RGB)


def srgb_from_oklab(lab: Array) -> Array:
    """Return sRGB bytes (..., 3) uint8 of OKLab (..., 3), colours beyond the screen made paler until they fit.

    Lightness and hue stay; chroma is cut, pixel by pixel, by bisection.
    """
    lab = np.asarray(lab, np.float32)
    linear = linear_from_oklab(lab)
    outside = _outside(linear)
    if outside.any():
        linear[outside] = linear_from_oklab(_reduce_chroma(lab[outside]))
    return srgb_from_linear(linear)


def greatest_chroma(lightness: Array, hue_ab: Array) -> Array:
    """Return the largest chroma a screen shows at each lightness (n,) along one hue, a unit vector (a, b)."""
    full = np.stack([lightness, np.full_like(lightness, hue_ab[0] * 0.4), np.full_like(lightness, hue_ab[1] * 0.4)], -1)
    reduced = _reduce_chroma(full.astype(np.float32))
    return np.hypot(reduced[:, 1], reduced[:, 2])


def _matrix(colors: Array, matrix: Array) -> Array:
    """Multiply every colour (..., 3) by a 3 x 3 matrix, as one product of two flat arrays (several times faster)."""
    return (colors.reshape(-1, 3) @ matrix.T.astype(np.float32)).reshape(colors.shape)


def _outside(linear: Array) -> Array:
    wrong = np.abs(linear - np.float32(0.5)) > np.float32(0.5 + 1e-4)  # the slack is below half a byte everywhere
    return wrong[..., 0] | wrong[..., 1] | wrong[..., 2]  # many times faster than any() over an axis of 3


def _reduce_chroma(lab: Array) -> Array:
    """Return lab (n, 3) with lightness inside 0 to 1 and the largest share of its chroma that fits the screen."""
    lightness = np.clip(lab[:, :1], 0, 1)
    low = np.zeros(len(lab), np.float32)
    high = np.ones(len(lab), np.float32)
    for _ in range(10):
        middle = (low + high) / 2
        fits = ~_outside(linear_from_oklab(np.concatenate([lightness, lab[:, 1:] * middle[:, None]], axis=1)))
        low = np.where(fits, middle, low)
        high = np.where(fits, high, middle)
    return np.concatenate([lightness, lab[:, 1:] * low[:, None]], axis=1)

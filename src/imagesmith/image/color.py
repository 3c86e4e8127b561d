"""OKLab, a space in which equal distances look equal, and the names colours have.

OKLab is Björn Ottosson's (https://bottosson.github.io/posts/oklab/): L is lightness (0 black, 1 white), a runs from
green to red, b from blue to yellow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImageColor

Values = NDArray[np.floating[Any]]
Bytes = NDArray[np.uint8]

RGB_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
CONES_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def oklab_from_rgb(rgb: Bytes) -> Values:
    """Return OKLab (..., 3) float64 of sRGB bytes (..., 3).

    >>> oklab_from_rgb(np.array([255, 255, 255], np.uint8)).round(3).tolist()[0]
    1.0
    """
    encoded = np.asarray(rgb, np.uint8) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    return np.asarray(np.cbrt(linear @ RGB_TO_CONES.T) @ CONES_TO_LAB.T)


def rgb_from_oklab(lab: Values) -> Values:
    """Return sRGB (..., 3) as floats; a value outside 0 to 255 means that no screen shows this colour.

    >>> rgb_from_oklab(np.array([1.0, 0.0, 0.0])).round().tolist()
    [255.0, 255.0, 255.0]
    """
    linear = (np.asarray(lab) @ np.linalg.inv(CONES_TO_LAB).T) ** 3 @ np.linalg.inv(RGB_TO_CONES).T
    root = np.abs(linear) ** (1 / 2.4)
    encoded = np.where(np.abs(linear) <= 0.0031308, linear * 12.92, np.sign(linear) * (1.055 * root - 0.055))
    return np.asarray(encoded * 255)


def hex_of(rgb: Bytes) -> str:
    """Write a colour (3,) as #rrggbb.

    >>> hex_of(np.array([220, 20, 60], np.uint8))
    '#dc143c'
    """
    return "#" + "".join(f"{int(value):02x}" for value in rgb)


def name_of(rgb: Bytes) -> str:
    """Return the CSS name nearest to a colour (3,), by distance in OKLab.

    Lightness counts half: a wrong hue (near-black called midnight blue) misleads more than a wrong lightness.

    >>> name_of(np.array([222, 22, 60], np.uint8))
    'crimson'
    """
    names = sorted(ImageColor.colormap)
    table = np.array([ImageColor.getrgb(name)[:3] for name in names], np.uint8)
    distance = (((oklab_from_rgb(table) - oklab_from_rgb(rgb)) * [0.5, 1, 1]) ** 2).sum(axis=1)
    return names[int(distance.argmin())]


def palette(count: int) -> Bytes:
    """Return `count` colours (count, 3) that are easy to tell apart; colour i never depends on `count`.

    Chosen one after the other, each as far as possible in OKLab from those before it.

    >>> bool((palette(3) == palette(20)[:3]).all())
    True
    """
    lightness, chroma, hue = np.meshgrid(
        np.linspace(0.5, 0.86, 7), [0.07, 0.13, 0.19], np.radians(np.arange(0, 360, 10)), indexing="ij"
    )
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1).reshape(-1, 3)
    rgb = rgb_from_oklab(lab)
    shown = ((rgb >= 0) & (rgb <= 255)).all(axis=1)
    lab, rgb = lab[shown], rgb[shown].round().astype(np.uint8)
    lab = lab * [0.7, 1, 1]  # over a photograph hue tells regions apart better than lightness
    chosen: list[int] = [int(np.abs(lab - [0.45, -0.03, -0.12]).sum(axis=1).argmin())]
    distance = np.full(len(lab), np.inf)
    while len(chosen) < min(count, len(lab)):
        distance = np.minimum(distance, ((lab - lab[chosen[-1]]) ** 2).sum(axis=1))
        chosen.append(int(distance.argmax()))
    return rgb[np.resize(chosen, count)]

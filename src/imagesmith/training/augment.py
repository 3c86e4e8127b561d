"""Augmentation of photographs with masks: pure functions of (example, random generator), NumPy and Pillow only.

Every random decision comes from the generator that is handed in, and that generator is seeded by (seed, epoch,
index): an example looks the same whichever worker makes it and however often training was resumed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from imagesmith.training.settings import Augmentation

IGNORE = 255
"""Mask value of pixels that no loss and no metric looks at."""

_FILL = 124
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


class Example(NamedTuple):
    """A photograph, uint8 [H,W,3], and its class ids, uint8 [H,W]."""

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]


class Window(NamedTuple):
    """A part of the source, in its pixels; it may reach beyond the edges."""

    left: float
    top: float
    width: float
    height: float


def random_generator(*key: int) -> np.random.Generator:
    """Return the generator that belongs to a key such as (seed, stream, epoch, index)."""
    return np.random.default_rng(np.random.SeedSequence(key))


_SIDES = (("left", "right"), ("l", "r"))


def flip_table(labels: Mapping[int, str]) -> NDArray[np.uint8]:
    """Return the lookup table [256] that renames class ids when a picture is mirrored: left becomes right.

    A label is paired when the other side's name exists too: ``l_eye`` with ``r_eye``, ``Left-shoe`` with
    ``Right-shoe``; ``l_lip`` (the lower lip) has no ``r_lip`` and stays.

    >>> flip_table({0: "background", 1: "l_eye", 2: "r_eye", 3: "l_lip"})[:4].tolist()
    [0, 2, 1, 3]
    """
    ids = {name.lower(): index for index, name in labels.items()}
    table = np.arange(256, dtype=np.uint8)
    for index, name in labels.items():
        words = re.split(r"([^a-z0-9]+)", name.lower())
        for left, right in _SIDES:
            if left in words:
                mirrored = ids.get("".join(right if word == left else word for word in words))
                if mirrored is not None:
                    table[index], table[mirrored] = mirrored, index
    return table


def flip(example: Example, table: NDArray[np.uint8]) -> Example:
    """Mirror a photograph and rename the labels that have a side."""
    return Example(np.ascontiguousarray(example.image[:, ::-1]), table[example.mask[:, ::-1]])


def foreground_box(mask: NDArray[np.uint8]) -> tuple[int, int, int, int] | None:
    """Return the box (left, top, right, bottom) of all labelled pixels, or None where there are none."""
    labelled = (mask != 0) & (mask != IGNORE)
    rows, columns = np.flatnonzero(labelled.any(axis=1)), np.flatnonzero(labelled.any(axis=0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def random_window(
    example: Example, size_hw: tuple[int, int], settings: Augmentation, rng: np.random.Generator
) -> Window:
    """Choose the part of a photograph to look at: the whole at a random scale, or the upper body of who is in it."""
    source_height, source_width = example.mask.shape
    aspect = size_hw[1] / size_hw[0] * math.exp(rng.uniform(-settings.aspect, settings.aspect))
    upper_body = rng.random() < settings.upper_body
    box = foreground_box(example.mask) if upper_body else None
    if box is not None:
        left, top, right, bottom = box
        height = max((bottom - top) * rng.uniform(0.2, 0.65), 16.0)
        width = height * aspect
        centre = (left + right) / 2 + rng.uniform(-0.25, 0.25) * width
        return Window(centre - width / 2, top - rng.uniform(0.02, 0.3) * height, width, height)
    low, high = settings.scale
    scale = math.exp(rng.uniform(math.log(low), math.log(high)))
    height = max(source_height, source_width / aspect) / scale
    width = height * aspect
    return Window(
        rng.uniform(*sorted((0.0, source_width - width))), rng.uniform(*sorted((0.0, source_height - height))),
        width, height,
    )  # fmt: skip


def cut(example: Example, window: Window, size_hw: tuple[int, int]) -> Example:
    """Resample a window to ``size_hw``; what lies outside the photograph is grey and ignored."""
    height, width = size_hw
    source_height, source_width = example.mask.shape
    left, top = max(window.left, 0.0), max(window.top, 0.0)
    right = min(window.left + window.width, source_width)
    bottom = min(window.top + window.height, source_height)
    image = np.full((height, width, 3), _FILL, np.uint8)
    mask = np.full((height, width), IGNORE, np.uint8)
    scale_x, scale_y = width / window.width, height / window.height
    out_left, out_right = round((left - window.left) * scale_x), round((right - window.left) * scale_x)
    out_top, out_bottom = round((top - window.top) * scale_y), round((bottom - window.top) * scale_y)
    if out_right > out_left and out_bottom > out_top and right > left and bottom > top:
        size = (out_right - out_left, out_bottom - out_top)
        box = (left, top, right, bottom)
        part = np.s_[out_top:out_bottom, out_left:out_right]
        image[part] = np.asarray(Image.fromarray(example.image).resize(size, Image.Resampling.BILINEAR, box=box))
        mask[part] = np.asarray(Image.fromarray(example.mask).resize(size, Image.Resampling.NEAREST, box=box))
    return Example(image, mask)


def rotate(example: Example, degrees: float) -> Example:
    """Turn a photograph about its middle; the corners that appear are grey and ignored."""
    image = Image.fromarray(example.image).rotate(degrees, Image.Resampling.BILINEAR, fillcolor=(_FILL,) * 3)
    mask = Image.fromarray(example.mask).rotate(degrees, Image.Resampling.NEAREST, fillcolor=IGNORE)
    return Example(np.asarray(image), np.asarray(mask))


def paste(example: Example, donor: Example) -> Example:
    """Put everything labelled in ``donor`` on top of ``example``; both have the same size."""
    labelled = (donor.mask != 0) & (donor.mask != IGNORE)
    return Example(
        np.where(labelled[..., None], donor.image, example.image), np.where(labelled, donor.mask, example.mask)
    )


def recolour(example: Example, chosen: NDArray[np.bool_], rng: np.random.Generator, strength: float = 1.0) -> Example:
    """Give the chosen pixels another colour and keep their shading: luma is scaled, chroma is turned and shifted."""
    pixels = example.image[chosen].astype(np.float32)
    if not len(pixels):
        return example
    luma = pixels @ _LUMA
    chroma = pixels - luma[:, None]
    gain, shift = math.exp(rng.uniform(-0.5, 0.5) * strength), rng.uniform(-40, 40) * strength
    tint = rng.uniform(-1, 1, 3).astype(np.float32)
    tint -= tint @ _LUMA
    turned = chroma[:, rng.permutation(3)] * rng.uniform(0.2, 1.3)
    colour = turned + tint * (90 * strength * rng.random()) * (0.3 + luma[:, None] / 255)
    colour += (luma * gain + shift)[:, None]
    image = example.image.copy()
    image[chosen] = np.clip(colour, 0, 255).astype(np.uint8)
    return Example(image, example.mask)


def jitter_colour(image: NDArray[np.uint8], strength: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Change brightness, contrast, saturation, white balance and gamma of a whole photograph at random."""
    saturation = np.float32(0.0 if rng.random() < 0.04 else 1 + strength * rng.uniform(-1, 1))
    balance = (1 + 0.3 * strength * rng.uniform(-1, 1, 3)).astype(np.float32)
    mixing = saturation * np.eye(3, dtype=np.float32) + (1 - saturation) * _LUMA[:, None]
    contrast = math.exp(strength * rng.uniform(-1, 1))
    gamma = math.exp(strength * rng.uniform(-1, 1))
    brightness = 0.25 * strength * rng.uniform(-1, 1)
    steps = np.linspace(0, 1, 256, dtype=np.float32) ** np.float32(gamma)
    curve = ((steps - 0.5) * np.float32(contrast) + np.float32(0.5 + brightness)) * 255
    mixed = curve[image] @ (mixing * balance)
    return np.clip(mixed, 0, 255).astype(np.uint8)


def degrade(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Blur a photograph, or add sensor noise."""
    if rng.random() < 0.5:
        return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 1.2))))
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(3, 12))
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def recolour_some(
    example: Example, recolourable: Sequence[int], settings: Augmentation, rng: np.random.Generator
) -> Example:
    """Recolour each class that may be recoloured with the recipe's probability, independently."""
    present = [label for label in recolourable if (example.mask == label).any()]
    for label in present:
        if rng.random() < settings.recolor:
            example = recolour(example, example.mask == label, rng)
    return example


def augment(
    example: Example,
    donor: Example | None,
    size_hw: tuple[int, int],
    settings: Augmentation,
    table: NDArray[np.uint8],
    recolourable: Sequence[int],
    rng: np.random.Generator,
) -> Example:
    """Return one training example of ``size_hw``, made from a photograph and perhaps people of a second one."""
    result = cut(example, random_window(example, size_hw, settings, rng), size_hw)
    if donor is not None and rng.random() < settings.copy_paste:
        pasted = cut(donor, random_window(donor, size_hw, settings, rng), size_hw)
        if rng.random() < 0.5:
            pasted = flip(pasted, table)
        result = paste(result, pasted)
    if rng.random() < settings.rotate_probability:
        result = rotate(result, rng.uniform(-settings.rotate, settings.rotate))
    if rng.random() < settings.flip:
        result = flip(result, table)
    result = recolour_some(result, recolourable, settings, rng)
    image = result.image
    if settings.color > 0:
        image = jitter_colour(image, settings.color, rng)
    if rng.random() < settings.degrade:
        image = degrade(image, rng)
    return Example(image, result.mask)

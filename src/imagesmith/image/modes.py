"""Bring a decoded Pillow image of any mode to 8-bit sRGB, with its transparency kept beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageCms

from imagesmith.core.errors import BadImage
from imagesmith.core.protocols import Array

WHITE = (255, 255, 255)
STRIP_BYTES = 1 << 19
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")

Convert = Callable[[PillowImage.Image], PillowImage.Image]


@dataclass(frozen=True)
class Flat:
    """Hold (H, W, 3) pixels flattened on white, their (H, W) alpha (None where opaque), and what had to be let go."""

    pixels: Array
    alpha: Array | None
    warnings: tuple[str, ...]


def flatten(image: PillowImage.Image) -> Flat:
    """Convert any mode to RGB: 16 bits are scaled, CMYK and colour profiles become sRGB, transparency lies on white.

    It goes by strips that fit the processor's cache: a whole converted picture never exists beside the result, and
    a JPEG takes half the time of `np.asarray`, which joins the picture from pieces twice.

    >>> flatten(PillowImage.new("LA", (1, 1), (0, 0))).pixels.tolist()
    [[[255, 255, 255]]]
    """
    warnings: list[str] = []
    profile = image.info.get("icc_profile")
    image = _eight_bit_key(_to_eight_bits(image, warnings))
    see_through = image.has_transparency_data
    mode = ("L" if image.mode in ("L", "LA", "La") else "RGB") if see_through else image.mode
    to_rgb = _converter(mode, profile, warnings)
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    alpha = np.empty((height, width), np.uint8) if see_through else None
    rows = max(1, STRIP_BYTES // (width * 4))
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        if alpha is None:
            pixels[top : top + rows] = np.asarray(to_rgb(strip))
        else:
            pixels[top : top + rows], alpha[top : top + rows] = _on_white(strip, to_rgb)
    if alpha is not None and alpha.min() == 255:
        alpha = None
    return Flat(pixels, alpha, tuple(warnings))


def _on_white(strip: PillowImage.Image, to_rgb: Convert) -> tuple[Array, Array]:
    rgba = (strip.convert("LA") if strip.mode == "La" else strip).convert("RGBA")
    alpha = rgba.getchannel("A")
    white = PillowImage.new("RGB", rgba.size, WHITE)
    white.paste(to_rgb(rgba.convert("RGB")), mask=alpha)
    return np.asarray(white), np.asarray(alpha)


def check_shape(array: Array) -> None:
    """Raise `BadImage` (the reason only) where an array's shape is no image's."""
    shape = array.shape
    expected = "expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
    if array.ndim not in (2, 3) or (array.ndim == 3 and shape[2] not in (1, 3, 4)):
        first = array.ndim == 3 and shape[0] in (1, 3, 4)
        hint = "; put the channels last with .transpose(1, 2, 0)" if first else ""
        raise BadImage(f"an array of shape {shape} is no image, {expected}{hint}")
    if not array.size:
        raise BadImage(f"an array of shape {shape} has no pixels")


def eight_bits(array: Array) -> Array:
    """Bring an array of uint8, uint16, bool, or float in 0..1 to uint8; raise `BadImage` for any other.

    >>> eight_bits(np.array([[0.0, 0.5, 1.0]])).tolist()
    [[0, 128, 255]]
    """
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        return (array >> 8).astype(np.uint8)
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (low >= -1e-3 and high <= 1 + 1e-3):
            raise BadImage(
                f"a float image must lie in 0..1, but this array has values from {low:g} to {high:g}; divide it, or "
                "convert it to uint8"
            )
        return (array.astype(np.float32) * np.float32(255) + np.float32(0.5)).clip(0, 255).astype(np.uint8)
    raise BadImage(f"an array of {array.dtype} is no image; expected uint8, uint16, bool or float in 0..1")


def _to_eight_bits(image: PillowImage.Image, warnings: list[str]) -> PillowImage.Image:
    if image.mode not in (*_SIXTEEN_BITS, "I", "F"):
        return image
    values: Array = np.asarray(image)
    key = image.info.get("transparency")
    if image.mode in _SIXTEEN_BITS:
        gray = (values >> _spare_bits(image)).clip(0, 255).astype(np.uint8)
    else:
        gray = _stretch(values, warnings)
    result = PillowImage.fromarray(gray)
    result.info.update({name: value for name, value in image.info.items() if name != "transparency"})
    if isinstance(key, int):
        result = PillowImage.merge(
            "LA", (result, PillowImage.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
        )
    return result


def _spare_bits(image: PillowImage.Image) -> int:
    """Tell by how many bits to shift 16-bit values; TIFF also stores 12 bits in them."""
    tags: Any = getattr(image, "tag_v2", {})
    bits = tags.get(258, (16,))
    bits = bits[0] if isinstance(bits, tuple) and bits else bits
    return bits - 8 if isinstance(bits, int) and 8 < bits <= 16 else 8


def _stretch(values: Array, warnings: list[str]) -> Array:
    """Map 32-bit integers (0 to 65535 as they are) and floats (0 to 1) to 8 bits; other ranges are stretched."""
    is_float = values.dtype.kind == "f"
    finite = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0) if is_float else values
    low, high = float(finite.min()), float(finite.max())
    top = 1.0 if is_float else 65_535.0
    if low < 0 or high > top:
        warnings.append(f"its values run from {low:g} to {high:g} and were stretched to 0..255")
        span = (high - low) or 1.0
        scaled: Array = (finite.astype(np.float32) - np.float32(low)) * np.float32(255 / span)
        return (scaled + 0.5).clip(0, 255).astype(np.uint8)
    if is_float:
        return (finite * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    return (finite >> 8).astype(np.uint8)


def _eight_bit_key(image: PillowImage.Image) -> PillowImage.Image:
    """Bring the transparent colour of a 16-bit RGB file, whose pixels already have 8 bits, to 8 bits."""
    key = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(key, tuple) and max(key) > 255:
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in key)
    return image


# --- colour -----------------------------------------------------------------------------------------------------------

_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK", "LAB": "Lab"}


def _converter(mode: str, profile: bytes | None, warnings: list[str]) -> Convert:
    """Return what turns strips of this mode into sRGB."""
    known = mode if mode in _SPACES else "RGB"
    if profile and (through := _through_profile(known, profile, warnings)) is not None:
        return through
    if mode == "LAB":
        return _apply(ImageCms.createProfile("LAB"), mode)
    return _plain


def _plain(strip: PillowImage.Image) -> PillowImage.Image:
    return strip if strip.mode == "RGB" else strip.convert("RGB")


def _through_profile(mode: str, profile: bytes, warnings: list[str]) -> Convert | None:
    """Return the conversion by an embedded profile, or None where it needs none or is unusable (with a warning)."""
    try:
        embedded = ImageCms.ImageCmsProfile(BytesIO(profile))
        space = embedded.profile.xcolor_space.strip()
        if space == "RGB" and (embedded.profile.profile_description or "").startswith("sRGB"):
            return None
        if space == "RGB" and mode == "L":
            mode = "RGB"
        if space != _SPACES.get(mode):
            warnings.append(f"its colour profile is for {space} and was ignored")
            return None
        return _apply(embedded, mode)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        warnings.append("its colour profile is damaged and was ignored")
        return None


def _apply(source: Any, mode: str) -> Convert:
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")

    def convert(strip: PillowImage.Image) -> PillowImage.Image:
        out = PillowImage.new("RGB", strip.size)
        transform.apply(strip if strip.mode == mode else strip.convert(mode), out)
        return out

    return convert

"""Bring a decoded Pillow image of any mode to 8-bit sRGB, with its transparency kept beside it."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageCms

from imagesmith.core.errors import BadImage
from imagesmith.core.protocols import Array

WHITE = (255, 255, 255)
STRIP_BYTES = 1 << 18
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")


@dataclass(frozen=True)
class Flat:
    """Hold an RGB image flattened on white, its alpha (mode L; None where opaque), and what had to be let go."""

    rgb: PillowImage.Image
    alpha: PillowImage.Image | None
    warnings: tuple[str, ...]


def flatten(image: PillowImage.Image) -> Flat:
    """Convert any mode to RGB: 16 bits are scaled, CMYK and colour profiles become sRGB, transparency lies on white.

    >>> flatten(PillowImage.new("LA", (1, 1), (0, 0))).rgb.getpixel((0, 0))
    (255, 255, 255)
    """
    warnings: list[str] = []
    profile = image.info.get("icc_profile")
    image, alpha = _split_alpha(_to_eight_bits(image, warnings))
    rgb = _to_srgb(image, profile, warnings)
    if alpha is not None and alpha.getextrema() == (255, 255):
        alpha = None
    if alpha is not None:
        white = PillowImage.new("RGB", rgb.size, WHITE)
        white.paste(rgb, mask=alpha)
        rgb = white
    return Flat(rgb, alpha, tuple(warnings))


def to_array(image: PillowImage.Image) -> Array:
    """Copy an L or RGB image into a new uint8 array, (H, W) or (H, W, 3).

    It goes by strips: `np.asarray` joins the whole picture twice, which doubles the time of a JPEG and the memory.
    """
    width, height = image.size
    bands = len(image.getbands())
    out = np.empty((height, width, bands) if bands > 1 else (height, width), np.uint8)
    rows = max(1, STRIP_BYTES // (width * bands))
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        out[top:bottom] = np.asarray(image.crop((0, top, width, bottom)))
    return out


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


def _split_alpha(image: PillowImage.Image) -> tuple[PillowImage.Image, PillowImage.Image | None]:
    if not image.has_transparency_data:
        return image, None
    key = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(key, tuple) and max(key) > 255:  # the key of a 16-bit file, now 8 bits
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in key)
    rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    return rgba.convert("RGB"), rgba.getchannel("A")


def _to_srgb(image: PillowImage.Image, profile: bytes | None, warnings: list[str]) -> PillowImage.Image:
    if profile and image.mode in ("P", "1", "YCbCr"):
        image = image.convert("RGB")
    if profile and (converted := _through_profile(image, profile, warnings)) is not None:
        return converted
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return _apply(image, lab, srgb)
    return image if image.mode == "RGB" else image.convert("RGB")


_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK", "LAB": "Lab"}


def _through_profile(image: PillowImage.Image, profile: bytes, warnings: list[str]) -> PillowImage.Image | None:
    """Convert with the embedded profile, or return None where it needs none or is unusable (with a warning)."""
    try:
        embedded = ImageCms.ImageCmsProfile(BytesIO(profile))
        space = embedded.profile.xcolor_space.strip()
        described = embedded.profile.profile_description or ""
        if space == "RGB" and described.startswith("sRGB"):
            return None
        if space == "RGB" and image.mode == "L":
            image = image.convert("RGB")
        if space != _SPACES.get(image.mode):
            warnings.append(f"its colour profile is for {space} and was ignored")
            return None
        return _apply(image, embedded, ImageCms.createProfile("sRGB"))
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        warnings.append("its colour profile is damaged and was ignored")
        return None


def _apply(image: PillowImage.Image, source: Any, target: Any) -> PillowImage.Image:
    transform = ImageCms.buildTransform(source, target, image.mode, "RGB")
    converted = PillowImage.new("RGB", image.size)
    transform.apply(image, converted)
    return converted

"""Write pictures and records so that a reader never meets half a file, and read the record back.

Everything is written beside its place under another name and then renamed. A picture carries only its pixels and one
JSON record of what was done: no EXIF, no place, no camera.
"""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags
from PIL import Image as PillowImage
from PIL.PngImagePlugin import PngInfo

from imagesmith.core.errors import BadInput
from imagesmith.core.protocols import Array
from imagesmith.image.decode import open_header
from imagesmith.image.exif import user_comment

RECORD_KEY = "imagesmith"
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
MAX_RECORD = 60_000  # a JPEG segment holds 65,535 bytes
_ASCII = b"ASCII\0\0\0"  # how EXIF marks the text of a user comment


def save_image(
    path: str | os.PathLike[str],
    pixels: Array,
    *,
    alpha: Array | None = None,
    record: Mapping[str, Any] | None = None,
    quality: int = 95,
) -> Path:
    """Write (H, W, 3) RGB or (H, W) gray uint8 pixels as PNG, JPEG or WebP, by suffix, with a JSON record inside.

    `alpha` (H, W) uint8 becomes transparency, which JPEG has not. PNG and WebP keep every pixel bit-equal; `quality`
    (1 to 100) is JPEG's. Folders on the way are made. Raises `BadInput` for another suffix or a place that cannot be
    written.
    """
    target = Path(path)
    kind = format_of(target)
    if alpha is not None and kind == "JPEG":
        raise BadInput(f"{target}: JPEG has no transparency; choose a name that ends in .png or .webp.")
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise BadInput(f"{target}: expected (H, W, 3) or (H, W) uint8 pixels, but got {pixels.shape} {pixels.dtype}.")
    image = PillowImage.fromarray(np.ascontiguousarray(pixels))
    if alpha is not None:
        image = image.convert("RGB")
        image.putalpha(PillowImage.fromarray(np.ascontiguousarray(alpha)))
    buffer = BytesIO()
    image.save(buffer, kind, **_options(kind, _record_text(target, kind, record), quality))
    return write_bytes_aside(target, buffer.getvalue())


def format_of(path: Path) -> str:
    """Return the format that a file name asks for, or raise `BadInput` with the suffixes there are."""
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise BadInput(f"{path}: the name must end in {', '.join(FORMATS)}, which says how to write the picture.")
    return kind


def read_record(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Read the record that `save_image` put into a picture, or None where there is none.

    Only the header is read, no pixel is decoded. Raises `BadImage` where the file is no image.
    """
    image = open_header(path)
    text: object = getattr(image, "text", {}).get(RECORD_KEY) if image.format == "PNG" else _user_comment(image)
    try:
        record = json.loads(text) if isinstance(text, (str, bytes)) else None
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def write_json(path: str | os.PathLike[str], data: Any) -> Path:
    """Write data as indented JSON: NumPy values and paths become plain ones, and what is not finite becomes null."""
    text = json.dumps(to_plain(data), indent=2, ensure_ascii=False, allow_nan=False)
    return write_bytes_aside(path, (text + "\n").encode("utf-8"))


def write_bytes_aside(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write a file so that it is either the old one or the whole new one, even if the power fails half way."""
    target = Path(path)
    aside = target.with_name(f".{target.name[:100]}.{uuid.uuid4().hex}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with aside.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(target)
        finally:
            aside.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        raise BadInput(f"{target} cannot be written: {getattr(error, 'strerror', None) or error}.") from error
    return target


def to_plain(value: Any) -> Any:
    """Turn nested data into what JSON knows.

    >>> to_plain({"share": np.float32(0.5), "size": (1, 2), "bad": float("nan")})
    {'share': 0.5, 'size': [1, 2], 'bad': None}
    """
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return to_plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or isinstance(value, (str, int)):
        return value
    raise BadInput(f"a {type(value).__name__} cannot be written as JSON.")


def _record_text(target: Path, kind: str, record: Mapping[str, Any] | None) -> str | None:
    if record is None:
        return None
    text = json.dumps(to_plain(record), separators=(",", ":"), allow_nan=False)  # ASCII only, as EXIF wants it
    if kind == "JPEG" and len(text) > MAX_RECORD:
        raise BadInput(
            f"{target}: the record has {len(text)} bytes, but JPEG has room for {MAX_RECORD}; choose a .png name."
        )
    return text


def _options(kind: str, text: str | None, quality: int) -> dict[str, Any]:
    if kind == "PNG":
        info = PngInfo()
        if text is not None:
            info.add_itxt(RECORD_KEY, text)
        return {"pnginfo": info, "compress_level": 3}
    exif = PillowImage.Exif()
    if text is not None:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = _ASCII + text.encode("ascii")
    options: dict[str, Any] = {"exif": exif.tobytes()} if text is not None else {}
    if kind == "JPEG":
        return {**options, "quality": quality, "subsampling": 0}
    return {**options, "lossless": True, "exact": True, "quality": 50, "method": 0}


def _user_comment(image: PillowImage.Image) -> bytes | None:
    block = image.info.get("exif")
    comment = user_comment(block) if isinstance(block, bytes) else None
    return comment.removeprefix(_ASCII) if comment is not None and comment.startswith(_ASCII) else None

"""Pillow's readers behind one door: the right one is handed the bytes, and what it raises becomes one plain reason."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

from PIL import Image as PillowImage
from PIL import ImageFile, features
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from imagesmith.core.errors import BadImage, ImageTooLarge, UnsupportedImage
from imagesmith.image.exif import orientation
from imagesmith.image.photo import MEGA, Limits

SEEK_MEGAPIXELS = 1_000  # work allowed to reach a frame of an animation, which is built from all frames before it

READ_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    RuntimeError,
    MemoryError,
    SyntaxError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    Warning,
    struct.error,
    zlib.error,
    PillowImage.DecompressionBombError,
)
"""What Pillow's readers raise on hostile bytes: the twelve kinds seen in 6,000 odd files, and their nearest kin."""

TURNS = {
    2: PillowImage.Transpose.FLIP_LEFT_RIGHT,
    3: PillowImage.Transpose.ROTATE_180,
    4: PillowImage.Transpose.FLIP_TOP_BOTTOM,
    5: PillowImage.Transpose.TRANSPOSE,
    6: PillowImage.Transpose.ROTATE_270,
    7: PillowImage.Transpose.TRANSVERSE,
    8: PillowImage.Transpose.ROTATE_90,
}


class _Jpeg(JpegImageFile):
    def _read_dpi_from_exif(self) -> None:
        """Leave the EXIF block alone: nothing here needs its resolution, and a broken one would fail the picture."""


class _Tiff(TiffImageFile):
    def load_end(self) -> None:
        """Turn the page upright without reading the whole EXIF tree, where a broken one would fail the picture."""
        turn = TURNS.get(self.tag_v2.get(274, 1))
        if turn is not None:
            self.im = self.im.transpose(turn)
        self._size = self.im.size


def open_reader(kind: str, data: bytes) -> ImageFile.ImageFile:
    """Hand the bytes to the one reader they belong to; `PIL.Image.open` would also try its relatives."""
    if kind == "HEIC":
        return _open_heic(data)
    if kind == "AVIF" and not features.check("avif"):
        raise UnsupportedImage("it is an AVIF image, which this build of Pillow cannot read; save it as PNG or JPEG")
    readers: dict[str, type[ImageFile.ImageFile]] = {
        "PNG": PngImageFile,
        "JPEG": _Jpeg,
        "WEBP": WebPImageFile,
        "GIF": GifImageFile,
        "BMP": BmpImageFile,
        "TIFF": _Tiff,
        "AVIF": AvifImageFile,
    }
    return readers[kind](BytesIO(data))


def _open_heic(data: bytes) -> ImageFile.ImageFile:
    try:
        from pillow_heif import HeifImageFile  # type: ignore[import-not-found, unused-ignore]  # the extra [heic]
    except ImportError:
        raise UnsupportedImage(
            'it is a HEIC image, which needs the extra [heic] (pip install "imagesmith[heic]"), or save it as JPEG'
        ) from None
    image: ImageFile.ImageFile = HeifImageFile(BytesIO(data))
    return image


def go_to_frame(image: ImageFile.ImageFile, frame: int, frames: int, limits: Limits) -> None:
    if frame < 0 or (frame and frame >= frames):
        raise BadImage(f"frame {frame} was asked for, but it has {frames} (the first is 0)")
    if not frame:
        return
    stacked = image.format in ("GIF", "PNG", "WEBP")
    if stacked and image.width * image.height * (frame + 1) > SEEK_MEGAPIXELS * MEGA:
        raise ImageTooLarge(
            f"frame {frame} is built from all before it, together more than the limit of {SEEK_MEGAPIXELS} megapixels"
        )
    for number in range(1, frame + 1) if stacked else (frame,):
        image.seek(number)
        limits.check(*image.size)  # a frame may be larger than the first


@contextmanager
def translated(kind: str) -> Iterator[None]:
    """Turn whatever a reader raises on bad bytes into one `BadImage` reason without its jargon."""
    try:
        yield
    except BadImage:
        raise
    except PillowImage.DecompressionBombError as error:
        raise ImageTooLarge("it is larger than its header says") from error
    except MemoryError as error:
        raise BadImage("there is not enough memory to decode it") from error
    except READ_ERRORS as error:
        if isinstance(error, EOFError) or re.search("truncat|end of file|more data", str(error), re.IGNORECASE):
            raise BadImage("the file is cut off before its end") from error
        raise BadImage(f"it is a damaged {kind} file and cannot be decoded") from error


def exif_turn(image: PillowImage.Image) -> tuple[PillowImage.Transpose | None, bool]:
    if isinstance(image, TiffImageFile):
        return None, True  # turned while loading
    block = image.info.get("exif", b"")
    raw = image.info.get("Raw profile type exif")  # how ImageMagick keeps EXIF in a PNG: hexadecimal text
    if not block and isinstance(raw, str):
        try:
            block = bytes.fromhex("".join(raw.split("\n")[3:]))
        except ValueError:
            return None, False
    value, readable = orientation(block) if isinstance(block, bytes) else (1, False)
    return TURNS.get(value), readable

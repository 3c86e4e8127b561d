"""One door for every image that comes in: limits first, then decoding, then an upright 8-bit sRGB `Photo`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageFile

from imagesmith.core.errors import BadImage, UnsupportedImage
from imagesmith.core.protocols import Array
from imagesmith.image.find import find_images, is_url
from imagesmith.image.headers import Header, read_header
from imagesmith.image.modes import check_shape, eight_bits, flatten
from imagesmith.image.photo import Limits, Photo
from imagesmith.image.readers import exif_turn, go_to_frame, open_reader, translated

Source: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | PillowImage.Image | Array | Photo"
)

__all__ = ["Limits", "Photo", "Source", "decode_image", "find_images", "iter_photos", "open_header", "printable"]


def decode_image(source: Source, *, limits: Limits = Limits(), frame: int = 0, name: str | None = None) -> Photo:
    """Decode one image from a path, bytes, a file object, a Pillow image, an array or a `Photo`.

    Arrays are (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA, of uint8, uint16 (divided by 256), bool, or float
    from 0 to 1. Files are recognised by content. `frame` picks a frame of an animation or a page of a TIFF.
    Raises one `BadImage` sentence that begins with the image's name.

    >>> decode_image(np.zeros((2, 3), bool), name="black").pixels.shape
    (2, 3, 3)
    """
    label = printable(name if name is not None else _name_of(source))
    with _named(label):
        if isinstance(source, Photo):
            return source if name is None else replace(source, name=name)
        if isinstance(source, np.ndarray):
            return _from_array(source, limits, label)
        if isinstance(source, PillowImage.Image):
            with translated(source.format or "image"):
                return _from_pillow(source, limits, frame, label)
        return _from_bytes(_read(source, limits), limits, frame, label)


@contextmanager
def _named(label: str) -> Iterator[None]:
    """Put the image's name before a reason, and a full stop after it."""
    try:
        yield
    except BadImage as error:
        reason = str(error)
        raise type(error)(f"{label}: {reason}{'' if reason.endswith('.') else '.'}") from error.__cause__


def printable(name: str) -> str:
    """Escape what would break a line or hide in a terminal.

    >>> printable("a\\nb.jpg")
    'a\\\\nb.jpg'
    """
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in name)


def _name_of(source: object) -> str:
    if isinstance(source, (str, os.PathLike)):
        return str(os.fspath(source))
    if isinstance(source, Photo):
        return source.name
    if isinstance(source, np.ndarray):
        return "array"
    named = getattr(source, "filename", None) or getattr(source, "name", None)
    return named if isinstance(named, str) else "image"


# --- bytes ------------------------------------------------------------------------------------------------------------


def _read(source: Any, limits: Limits) -> bytes:
    if isinstance(source, (bytes, bytearray, memoryview)):
        limits.check_file(memoryview(source).nbytes)
        return bytes(source)
    if isinstance(source, (str, os.PathLike)):
        if is_url(source):
            raise UnsupportedImage("addresses on the web are not opened; download the image and give its path")
        return _read_file(Path(source), limits)
    if not hasattr(source, "read"):
        raise UnsupportedImage(
            f"a {type(source).__name__} is no image; give a path, bytes, a file opened with 'rb', a Pillow image or "
            "a NumPy array"
        )
    try:
        if source.seekable():
            source.seek(0)
        data = source.read(limits.largest_file + 1)
    except (OSError, ValueError, AttributeError) as error:
        raise BadImage("the file object cannot be read") from error
    if not isinstance(data, bytes):
        raise BadImage("the file object gives text; open it with mode 'rb'")
    limits.check_file(len(data))
    return data


def _read_file(path: Path, limits: Limits) -> bytes:
    try:
        if path.is_dir():
            raise BadImage("it is a folder, not an image")
        if path.exists() and not path.is_file():
            raise BadImage("it is no ordinary file")
        limits.check_file(path.stat().st_size)
        return path.read_bytes()
    except FileNotFoundError as error:
        raise BadImage("there is no such file") from error
    except PermissionError as error:
        raise BadImage("reading it is not permitted") from error
    except (OSError, ValueError) as error:
        raise BadImage(f"it cannot be read ({getattr(error, 'strerror', None) or 'its name is not valid'})") from error


def open_header(source: Source, limits: Limits = Limits()) -> ImageFile.ImageFile:
    """Open a file without decoding a pixel, behind the same checks and with the same errors as `decode_image`."""
    label = printable(_name_of(source))
    with _named(label):
        return _open_checked(_read(source, limits), limits)[0]


def _from_bytes(data: bytes, limits: Limits, frame: int, name: str) -> Photo:
    image, header = _open_checked(data, limits)
    with translated(header.format):
        frames = header.frames if header.frames is not None else int(getattr(image, "n_frames", 1))
        go_to_frame(image, frame, frames, limits)
        return _finish(image, name, frames, header.format)


def _open_checked(data: bytes, limits: Limits) -> tuple[ImageFile.ImageFile, Header]:
    if not data:
        raise BadImage("the file is empty (0 bytes)")
    header = read_header(data)
    limits.check(header.width, header.height)
    with translated(header.format):
        image = open_reader(header.format, data)
        limits.check(*image.size)
    return image, header


# --- pixels -----------------------------------------------------------------------------------------------------------


def _from_pillow(image: PillowImage.Image, limits: Limits, frame: int, name: str) -> Photo:
    limits.check(*image.size)
    if not image.width or not image.height:
        raise BadImage(f"it has no pixels ({image.width} x {image.height})")
    frames = int(getattr(image, "n_frames", 1))
    if not frame:
        return _finish(image, name, frames, image.format or "image")
    if not isinstance(image, ImageFile.ImageFile):
        raise BadImage(f"frame {frame} was asked for, but it has 1 (the first is 0)")
    before = image.tell()
    try:
        go_to_frame(image, frame, frames, limits)
        return _finish(image, name, frames, image.format or "image")
    finally:
        image.seek(before)


def _finish(image: PillowImage.Image, name: str, frames: int, kind: str) -> Photo:
    image.load()
    turn, readable = exif_turn(image)
    flat = flatten(image if turn is None else image.transpose(turn))
    warnings = flat.warnings if readable else (*flat.warnings, "its EXIF block is damaged and was ignored")
    return Photo(flat.pixels, name, flat.alpha, max(frames, 1), kind, warnings)


def _from_array(array: Array, limits: Limits, name: str) -> Photo:
    check_shape(array)
    limits.check(array.shape[1], array.shape[0])
    eight = eight_bits(array)
    if eight.ndim == 2 or eight.shape[2] == 1:
        return Photo(np.repeat(eight.reshape(*eight.shape[:2], 1), 3, axis=2), name)
    if eight.shape[2] == 3:
        return Photo(np.array(eight, order="C"), name)  # a copy: the caller may fill the same array again
    flat = flatten(PillowImage.fromarray(np.ascontiguousarray(eight)))
    return Photo(flat.pixels, name, flat.alpha)


def iter_photos(sources: Iterable[Source] | Source, limits: Limits = Limits()) -> Iterator[Photo | BadImage]:
    """Decode images one after another; a bad one comes out as its `BadImage` error, so that a long run goes on.

    Folders and patterns among the sources are expanded as `find_images` does.
    """
    for source in _as_sources(sources):
        items: Iterable[Source] = [source]
        if isinstance(source, (str, os.PathLike)) and not is_url(source):
            items = find_images(source)
        for item in items:
            try:
                yield decode_image(item, limits=limits)
            except BadImage as error:
                yield error


def _as_sources(sources: Any) -> Iterable[Source]:
    one = (str, os.PathLike, bytes, bytearray, memoryview, np.ndarray, PillowImage.Image, Photo)
    return [sources] if isinstance(sources, one) or hasattr(sources, "read") else sources

"""What a file's first bytes say: which format it is, and how large a picture it claims to hold.

Nothing is decoded here and no library is asked: a few reads with `struct` decide whether a decoder may see the file
at all. Every walk is bounded, since a hostile file is free to claim anything.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from imagesmith.core.errors import BadImage, UnsupportedImage
from imagesmith.image.sniff import sniff

MAX_CHUNKS: Final = 100_000  # PNG: the decoder loops over them in Python
MAX_SEGMENTS: Final = 4_096  # JPEG segments before the first scan
MAX_JUNK: Final = 65_536  # JPEG bytes between segments, which the decoder skips one by one
MAX_SCANS: Final = 100  # progressive JPEG: each scan passes over the whole picture, however few bytes it has
MAX_SCANNED: Final = 750_000_000  # pixels over all scans; 20 scans are always allowed
MAX_PAGES: Final = 10_000  # frames or pages counted in one file
MAX_BLOCKS: Final = 2_000_000  # GIF: pieces, of 255 bytes each in any ordinary file
MAX_COMMENT: Final = 65_536  # GIF: the decoder joins comment blocks in quadratic time
MAX_PREFACE: Final = 50_000  # GIF: pieces before the first frame, which the decoder walks in Python
MAX_TILES: Final = 40_000
MAX_RUNS: Final = 2 << 20  # bytes of a run-length coded BMP, which is decoded in Python


@dataclass(frozen=True)
class Header:
    """Hold the format and the claimed size; `frames` is None where only the decoder can count them."""

    format: str
    width: int
    height: int
    frames: int | None = 1


def read_header(data: bytes) -> Header:
    """Read format, claimed size and frame count from a file's bytes, by content alone.

    Raises `UnsupportedImage` for anything outside the allowed formats and `BadImage` for a header that makes no sense;
    the message is the reason only, without the file's name.

    >>> read_header(b"GIF89a" + bytes([3, 0, 2, 0, 0, 0, 0]) + b";")
    Header(format='GIF', width=3, height=2, frames=0)
    """
    kind = sniff(data)
    try:
        header = _READERS[kind](data)
    except (struct.error, IndexError):
        raise BadImage("the file is cut off inside its header") from None
    if header.width <= 0 or header.height <= 0:
        raise BadImage(f"its header claims a size of {header.width} x {header.height} pixels")
    return header


def _read_png(data: bytes) -> Header:
    if data[12:16] != b"IHDR" and len(data) >= 16:
        raise BadImage("it is a damaged PNG file: its header is missing")
    width, height = struct.unpack_from(">II", data, 16)
    position, chunks = 8, 0
    while position + 8 <= len(data):
        position += 12 + struct.unpack_from(">I", data, position)[0]
        chunks += 1
        if chunks > MAX_CHUNKS:
            raise BadImage(f"it is a damaged PNG file: more than {MAX_CHUNKS} pieces")
    return Header("PNG", width, height, None)


_MARKER: Final = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")  # in coded data: not stuffing, restart or fill bytes
_SIZED: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start-of-frame markers


def _read_jpeg(data: bytes) -> Header:
    size, progressive, components, junk = (0, 0), False, 0, 0
    position = 2
    for _ in range(MAX_SEGMENTS):
        start = data.find(b"\xff", position)
        if start < 0:
            raise BadImage("the file is cut off inside its header")
        junk += start - position
        if junk > MAX_JUNK:
            raise BadImage("it is a damaged JPEG file: its header is full of bytes that mean nothing")
        position = start + 1
        while data[position] == 0xFF and junk <= MAX_JUNK:
            position += 1
            junk += 1
        marker = data[position]
        position += 1
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            continue
        if marker == 0xD9:
            raise BadImage("it is a damaged JPEG file: it ends before the picture begins")
        (length,) = struct.unpack_from(">H", data, position)
        if marker in _SIZED:
            height, width, components = struct.unpack_from(">HHB", data, position + 3)
            size, progressive = (width, height), marker in (0xC2, 0xC6, 0xCA, 0xCE)
        if marker == 0xDA:
            if progressive or data[position + 2] < components:
                most = MAX_SCANNED // max(size[0] * size[1], 1)
                _check_scans(data, position + length, max(20, min(most, MAX_SCANS)))
            return Header("JPEG", *size)
        position += length
    raise BadImage(f"it is a damaged JPEG file: more than {MAX_SEGMENTS} segments before the picture")


def _check_scans(data: bytes, position: int, most: int) -> None:
    scans = 1
    while match := _MARKER.search(data, position):
        marker = data[match.start() + 1]
        if marker == 0xD9 or match.end() + 2 > len(data):
            return
        scans += marker == 0xDA
        if scans > most:
            raise BadImage(f"it is a JPEG file of more than {most} scans, which only an attack has")
        position = match.end() + struct.unpack_from(">H", data, match.end())[0]


def _read_gif(data: bytes) -> Header:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
    frames, comment, steps = 0, 0, 0
    while position < len(data) and frames < MAX_PAGES and steps < MAX_BLOCKS:
        block = data[position]
        position += 1
        steps += 1
        if block == 0x2C and position + 9 <= len(data):
            local = data[position + 8]
            position += 10 + (3 << ((local & 7) + 1) if local & 0x80 else 0)
            position, steps = _skip_blocks(data, position, steps)
            frames += 1
        elif block == 0x21 and position < len(data):
            start, is_comment = position, data[position] == 0xFE
            position, steps = _skip_blocks(data, position + 1, steps)
            comment += position - start if is_comment else 0
            if comment > MAX_COMMENT:
                raise BadImage("it is a GIF file with a comment of more than 64 kB, which only an attack has")
        elif block == 0x3B:
            break
        if not frames and steps > MAX_PREFACE:
            raise BadImage(f"it is a damaged GIF file: more than {MAX_PREFACE} pieces before the first frame")
    if not frames and position > len(data):
        raise BadImage("the file is cut off inside its header")
    if steps >= MAX_BLOCKS:
        raise BadImage(f"it is a damaged GIF file: more than {MAX_BLOCKS} pieces")
    return Header("GIF", width, height, frames)


def _skip_blocks(data: bytes, position: int, steps: int) -> tuple[int, int]:
    while position < len(data) and data[position] and steps < MAX_BLOCKS:
        position += data[position] + 1
        steps += 1
    return position + 1, steps


def _read_bmp(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 14)
    if size == 12:
        width, height = struct.unpack_from("<HH", data, 18)
        return Header("BMP", width, height)
    width, height, _, _, compression = struct.unpack_from("<iiHHI", data, 18)
    if compression in (1, 2) and len(data) > MAX_RUNS:
        raise BadImage(f"it is a run-length coded BMP of more than {MAX_RUNS >> 20} MB; save it as PNG")
    return Header("BMP", width, abs(height))


def _read_webp(data: bytes) -> Header:
    if struct.unpack_from("<I", data, 4)[0] + 8 > len(data):
        raise BadImage("the file is cut off before its end")
    chunk = data[12:16]
    if chunk == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif chunk == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif chunk == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    else:
        raise BadImage("it is a damaged WebP file: no picture follows its header")
    return Header("WEBP", width, height, None)


_TYPE_SIZES: Final = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
_Entry = tuple[int, int, int, int]
"""Tag, type, count, and the first value as it would be read from inside the entry."""


def _read_tiff(data: bytes) -> Header:
    if data[8:10] == b"CR":
        raise UnsupportedImage("it is a raw camera file; develop it to JPEG, PNG or TIFF first")
    pages = list(_walk_pages(data))
    if not pages:
        raise BadImage("it is a damaged TIFF file: it has no page")
    tags = {tag: (count, value) for tag, _, count, value in pages[0]}
    preview = bool(tags.get(254, (0, 0))[1] & 1)
    if 50706 in tags or (preview and 330 in tags):  # DNG, or a preview before the sensor's data (NEF, ARW)
        raise UnsupportedImage("it is a raw camera file; develop it to JPEG, PNG or TIFF first")
    for tag in (273, 324):
        if tags.get(tag, (0, 0))[0] > MAX_TILES:
            raise BadImage(f"it is a damaged TIFF file: more than {MAX_TILES} tiles")
    if tags.get(322, (0, 0))[1] * tags.get(323, (0, 0))[1] > 1 << 26:
        raise BadImage("it is a damaged TIFF file: its tiles are larger than any picture")
    width, height = (tags.get(tag, (0, 0))[1] for tag in (256, 257))
    return Header("TIFF", width, height, len(pages))


def _walk_pages(data: bytes, start: int = 0) -> Iterator[list[_Entry]]:
    """Yield the entries of each page of a TIFF structure that begins at `start`; refuse tags that overlap."""
    order = "<" if data[start : start + 2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, start + 2)[0] == 43
    head, entry_format, entry_size, link = ("Q", "HHQ", 20, "Q") if big else ("H", "HHI", 12, "I")
    (offset,) = struct.unpack_from(order + link, data, start + (8 if big else 4))
    seen: set[int] = set()
    while offset and offset not in seen and len(seen) < MAX_PAGES:
        seen.add(offset)
        if offset > len(data) and len(seen) > 1:
            return
        (count,) = struct.unpack_from(order + head, data, start + offset)
        if count > 65_535:
            raise BadImage("it is a damaged TIFF file: a page has more than 65535 tags")
        first = start + offset + struct.calcsize(order + head)
        entries, held = [], 0
        for at in range(first, first + entry_size * count, entry_size):
            tag, kind, number = struct.unpack_from(order + entry_format, data, at)
            inline = at + struct.calcsize(order + entry_format)
            (value,) = struct.unpack_from(order + {1: "B", 3: "H", 16: "Q"}.get(kind, "I"), data, inline)
            held += min(number * _TYPE_SIZES.get(kind, 1), len(data))
            entries.append((tag, kind, number, value))
        if held > 2 * len(data) + (1 << 20):
            raise BadImage("it is a damaged TIFF file: its tags claim more bytes than the file has")
        yield entries
        (offset,) = struct.unpack_from(order + link, data, first + entry_size * count)


_TIFF_INSIDE: Final = re.compile(rb"II\*\0|MM\0\*")


def _read_boxes(kind: str, data: bytes) -> Header:
    position = 0
    while position + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, position + 8)
        if position + length > len(data):
            raise BadImage("the file is cut off before its end")
        position += length if length >= 8 else len(data)
    sizes = [struct.unpack_from(">II", data, match.end() + 4) for match in re.finditer(b"ispe", data[: 1 << 20])]
    inside = list(islice(_TIFF_INSIDE.finditer(data), 17))
    if len(inside) > 16:
        raise BadImage(f"it is a damaged {kind} file: it holds more than 16 EXIF blocks")
    for match in inside:  # the decoder reads the EXIF block before anyone can stop it
        _check_embedded_exif(data, match.start())
    width, height = max(sizes, key=lambda size: size[0] * size[1], default=(0, 0))
    return Header(kind, width, height, None)


def _check_embedded_exif(data: bytes, start: int) -> None:
    try:
        next(_walk_pages(data, start), None)
    except struct.error:
        return


def _read_avif(data: bytes) -> Header:
    return _read_boxes("AVIF", data)


def _read_heic(data: bytes) -> Header:
    return _read_boxes("HEIC", data)


_READERS: Final[dict[str, Callable[[bytes], Header]]] = {
    "PNG": _read_png,
    "JPEG": _read_jpeg,
    "GIF": _read_gif,
    "BMP": _read_bmp,
    "WEBP": _read_webp,
    "TIFF": _read_tiff,
    "AVIF": _read_avif,
    "HEIC": _read_heic,
}

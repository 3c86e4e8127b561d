"""Name a file's format by its content, never by its suffix; what is not allowed gets a name a person knows."""

from __future__ import annotations

import struct
from typing import Final

from imagesmith.core.errors import UnsupportedImage

NAMES: Final = "PNG, JPEG, WebP, GIF, BMP, TIFF or AVIF"

_MAGIC: Final = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)

_FOREIGN: Final = (
    (b"8BPS", "a Photoshop (PSD) file"),
    (b"%!PS", "a PostScript (EPS) file"),
    (b"\xc5\xd0\xd3\xc6", "a PostScript (EPS) file"),
    (b"%PDF", "a PDF document"),
    (b"SIMPLE  =", "a FITS file"),
    (b"icns", "an Apple icon (ICNS)"),
    (b"BLP1", "a BLP texture"),
    (b"BLP2", "a BLP texture"),
    (b"DDS ", "a DDS texture"),
    (b"\x01\xda", "an SGI image"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (b"\0\0\1\0", "a Windows icon (ICO)"),
    (b"gimp xcf", "a GIMP (XCF) file"),
    (b"qoif", "a QOI image"),
    (b"\x76\x2f\x31\x01", "an OpenEXR image"),
    (b"#?RADIANCE", "a Radiance HDR image"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x93NUMPY", "a NumPy array file"),
)


def sniff(data: bytes) -> str:
    """Name the format of some bytes by their content, or raise `UnsupportedImage` with the reason.

    >>> sniff(b"\\x89PNG\\r\\n\\x1a\\n")
    'PNG'
    """
    for magic, kind in _MAGIC:
        if data.startswith(magic):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        return _sniff_boxes(data)
    raise UnsupportedImage(f"{_what_it_is(data)}; expected {NAMES}")


def _what_it_is(data: bytes) -> str:
    for magic, what in _FOREIGN:
        if data.startswith(magic):
            return f"it is {what}"
    if data[4:6] in (b"\x11\xaf", b"\x12\xaf"):
        return "it is a FLI/FLC animation"
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(b"<svg") or (head.startswith(b"<?xml") and b"<svg" in head):
        return "it is an SVG drawing"
    if head.startswith((b"<!doctype html", b"<html")):
        return "it is a web page (HTML), not an image"
    if head[:1] == b"p" and head[1:2] in b"1234567" and head[2:3] in b" \t\r\n#":
        return "it is a Netpbm image"
    try:
        text = data[:1024].decode("utf-8", errors="strict" if len(data) <= 1024 else "ignore")
    except UnicodeDecodeError:
        return "its content is no known image format"
    printable = sum(letter.isprintable() or letter.isspace() for letter in text)
    return "it is text, not an image" if printable == len(text) else "its content is no known image format"


def _sniff_boxes(data: bytes) -> str:
    size = min(struct.unpack_from(">I", data)[0], 256)
    brands = {data[at : at + 4] for at in (8, *range(16, size, 4))}
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    if brands & {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}:
        return "HEIC"
    raise UnsupportedImage(f"it is a video or another media container; expected {NAMES}")

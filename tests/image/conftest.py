"""Makers of odd and hostile images; nothing here comes from a file.

`good_case` and `bad_case` run a test once for every maker below; `images` hands the helpers to a test.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms


@dataclass(frozen=True)
class Good:
    """What a file must decode to: pixels within `tolerance` levels, and the rest exactly."""

    data: bytes
    pixels: np.ndarray | None
    tolerance: int = 0
    alpha: np.ndarray | None = None
    frames: int = 1
    format: str = "PNG"
    warning: str = ""


@dataclass(frozen=True)
class Bad:
    """How a file must be refused: the error's name, and a word of its reason."""

    data: bytes
    error: str = "BadImage"
    word: str = ""


GOOD: dict[str, Callable[[], Good]] = {}
BAD: dict[str, Callable[[], Bad]] = {}


def good(maker: Callable[[], Good]) -> Callable[[], Good]:
    GOOD[maker.__name__] = maker
    return maker


def bad(maker: Callable[[], Bad]) -> Callable[[], Bad]:
    BAD[maker.__name__] = maker
    return maker


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for fixture, makers in (("good_case", GOOD), ("bad_case", BAD)):
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, [pytest.param(maker, id=name) for name, maker in makers.items()])


# --- helpers ----------------------------------------------------------------------------------------------------------


def scene(height: int = 24, width: int = 36) -> np.ndarray:
    """A smooth picture without any symmetry, kind to JPEG."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = 255 * x / max(width - 1, 1), 255 * y / max(height - 1, 1)
    blue = 255 * np.hypot(y, x) / max(np.hypot(height - 1, width - 1), 1)
    return np.stack([red, green, blue], axis=-1).round().astype(np.uint8)


def encode(image: Image.Image | np.ndarray, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, depth: int, color: int, rows: bytes, *extra: bytes, compressed: bytes = b"") -> bytes:
    """A PNG of raw rows (each begins with its filter byte); `extra` chunks go before the pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    body = chunk(b"IDAT", compressed or zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + body + chunk(b"IEND", b"")


def png16(values: np.ndarray, *extra: bytes) -> bytes:
    """A 16-bit PNG of (H, W) gray or (H, W, 2|3|4) values."""
    height, width = values.shape[:2]
    color = {2: 0, 3: {2: 4, 3: 2, 4: 6}.get(values.shape[-1], 0)}[values.ndim]
    rows = values.astype(">u2").reshape(height, -1)
    return png(width, height, 16, color, b"".join(b"\0" + row.tobytes() for row in rows), *extra)


def tiff(tags: list[tuple[int, int, int, int]], tail: bytes = b"", following: int = 0) -> bytes:
    """A little-endian TIFF of one page: (tag, type, count, value) entries, then `tail`."""
    entries = b"".join(struct.pack("<HHII", *entry) for entry in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", following) + tail


def exif(value: int, order: str = ">") -> bytes:
    mark = b"MM\0*" if order == ">" else b"II*\0"
    return b"Exif\0\0" + mark + struct.pack(order + "IHHHIHHI", 8, 1, 0x0112, 3, 1, value, 0, 0)


def on_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return np.round(rgb * share + 255 * (1 - share)).astype(np.uint8)


def icc(space: bytes, kind: bytes, pcs: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A version 2 colour profile of these tags."""
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        table += name + struct.pack(">II", start + len(body), len(value))
        body += value + b"\0" * (-len(value) % 4)
    head = struct.pack(
        ">I4sI4s4s4s12s4s", start + len(body), b"\0" * 4, 0x02400000, kind, space, pcs, b"\0" * 12, b"acsp"
    )
    head = head.ljust(68, b"\0") + struct.pack(">iii", 0xF6D6, 0x10000, 0xD32D)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def describe(text: bytes) -> bytes:
    return b"desc" + struct.pack(">II", 0, len(text) + 1) + text + b"\0" * (1 + 4 + 4 + 2 + 1 + 67)


WHITE_POINT = b"XYZ \0\0\0\0" + struct.pack(">iii", 0xF6D6, 0x10000, 0xD32D)


def gray_profile(gamma: float) -> bytes:
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    tags = {b"desc": describe(b"gray test"), b"wtpt": WHITE_POINT, b"kTRC": curve}
    return icc(b"GRAY", b"mntr", b"XYZ ", tags)


def cmyk_profile(to_rgb: Callable[[np.ndarray], np.ndarray], grid: int = 5) -> bytes:
    """A CMYK profile whose table holds the Lab colour of `to_rgb` at each grid point (inks from 0 to 1)."""
    steps = np.linspace(0, 1, grid)
    inks = np.stack(np.meshgrid(steps, steps, steps, steps, indexing="ij"), axis=-1).reshape(1, -1, 4)
    rgb = Image.fromarray((to_rgb(inks) * 255).round().astype(np.uint8))
    lab = ImageCms.profileToProfile(
        rgb, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    table = np.asarray(lab).reshape(-1, 3) ^ np.array([0, 128, 128], np.uint8)  # Pillow gives a and b signed
    lut = b"mft1\0\0\0\0" + struct.pack(">BBBB", 4, 3, grid, 0) + struct.pack(">9i", *(0x10000, 0, 0, 0) * 2, 0x10000)
    lut += bytes(range(256)) * 4 + table.tobytes() + bytes(range(256)) * 3
    return icc(b"CMYK", b"prtr", b"Lab ", {b"desc": describe(b"ink test"), b"wtpt": WHITE_POINT, b"A2B0": lut})


def swapped_profile() -> bytes:
    """sRGB with the red and blue primaries exchanged, and so a picture with its channels exchanged."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = data.replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")
    return data.replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))


def cmyk_picture(like: np.ndarray) -> tuple[Image.Image, np.ndarray]:
    """Inks for a picture, and the colours that the plain rule (255 - C)(255 - K) / 255 gives them."""
    inks = np.concatenate([255 - like, np.full((*like.shape[:2], 1), 40, np.uint8)], axis=-1)
    plain = (255 - inks[..., :3].astype(int)) * (255 - 40) / 255
    return Image.fromarray(inks, "CMYK"), plain.round().astype(np.uint8)


def bands(count: int = 3) -> list[Image.Image]:
    """Frames of one colour each: frame k is (40 k, 200, 255 - 40 k)."""
    return [Image.new("RGB", (8, 6), (40 * k, 200, 255 - 40 * k)) for k in range(count)]


HELPERS = SimpleNamespace(
    scene=scene, encode=encode, chunk=chunk, png=png, png16=png16, tiff=tiff, exif=exif, on_white=on_white, bands=bands,
    cmyk_picture=cmyk_picture, cmyk_profile=cmyk_profile, good=GOOD, bad=BAD,
)  # fmt: skip


@pytest.fixture(scope="session")
def images() -> SimpleNamespace:
    """The makers above, for tests that need their own odd file."""
    return HELPERS


# --- odd but good -----------------------------------------------------------------------------------------------------


def plain_file(kind: str, tolerance: int, **options: Any) -> Callable[[], Good]:
    return lambda: Good(encode(scene(), kind, **options), scene(), tolerance, format=kind)


GOOD["png"] = plain_file("PNG", 0)
GOOD["jpeg"] = plain_file("JPEG", 12, quality=95, subsampling=0)
GOOD["jpeg_progressive"] = plain_file("JPEG", 12, quality=95, subsampling=0, progressive=True)
GOOD["webp"] = plain_file("WEBP", 0, lossless=True)
GOOD["bmp"] = plain_file("BMP", 0)
GOOD["tiff"] = plain_file("TIFF", 0)
GOOD["tiff_lzw"] = plain_file("TIFF", 0, compression="tiff_lzw")
GOOD["avif"] = plain_file("AVIF", 16, quality=95, subsampling="4:4:4")


@good
def gif_palette() -> Good:
    image = Image.fromarray(scene()).quantize(32)
    return Good(encode(image, "GIF"), np.asarray(image.convert("RGB")), format="GIF")


@good
def one_bit() -> Good:
    bits = scene()[..., 0] > 100
    return Good(encode(Image.fromarray(bits), "PNG"), np.repeat(bits[..., None] * np.uint8(255), 3, axis=2))


@good
def gray_jpeg() -> Good:
    gray = scene()[..., 1]
    return Good(encode(gray, "JPEG", quality=95), np.repeat(gray[..., None], 3, axis=2), 6, format="JPEG")


@good
def gray_alpha() -> Good:
    gray, alpha = scene()[..., 0], scene()[..., 1]
    image = Image.merge("LA", (Image.fromarray(gray), Image.fromarray(alpha)))
    return Good(encode(image, "PNG"), on_white(np.repeat(gray[..., None], 3, axis=2), alpha), 1, alpha)


@good
def rgba_webp() -> Good:
    alpha = scene()[::-1, :, 1]
    image = Image.fromarray(np.dstack([scene(), alpha]))
    return Good(encode(image, "WEBP", lossless=True, exact=True), on_white(scene(), alpha), 1, alpha, format="WEBP")


@good
def rgba_opaque() -> Good:
    return Good(encode(Image.fromarray(scene()).convert("RGBA"), "PNG"), scene())


@good
def palette_with_alpha() -> Good:
    image = Image.fromarray(scene()).quantize(16)
    index = np.asarray(image)
    steps = np.linspace(0, 255, 16).round().astype(np.uint8)
    rgb = np.asarray(image.convert("RGB"))
    return Good(encode(image, "PNG", transparency=steps.tobytes()), on_white(rgb, steps[index]), 1, steps[index])


@good
def gif_transparent_index() -> Good:
    index = np.arange(48, dtype=np.uint8).reshape(6, 8) % 4
    image = Image.fromarray(index)
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    palette = np.array([[0, 0, 0], [255, 0, 0], [255, 255, 255], [0, 0, 255]], np.uint8)
    alpha = np.where(index == 2, 0, 255).astype(np.uint8)
    return Good(encode(image, "GIF", transparency=2), palette[index], 0, alpha, format="GIF")


@good
def color_key() -> Good:
    pixels = scene()
    pixels[3:9, 5:20] = (10, 20, 30)
    alpha = np.full((24, 36), 255, np.uint8)
    alpha[3:9, 5:20] = 0
    return Good(encode(pixels, "PNG", transparency=(10, 20, 30)), on_white(pixels, alpha), 0, alpha)


@good
def ramp_16_bits() -> Good:
    ramp = np.linspace(0, 65535, 512).astype(np.uint16).reshape(2, 256)
    return Good(png16(ramp), np.repeat((ramp >> 8).astype(np.uint8)[..., None], 3, axis=2))


@good
def ramp_16_bits_with_key() -> Good:
    ramp = np.linspace(0, 65535, 512).astype(np.uint16).reshape(2, 256)
    alpha = np.where(ramp == ramp[0, 7], 0, 255).astype(np.uint8)
    pixels = np.repeat((ramp >> 8).astype(np.uint8)[..., None], 3, axis=2)
    return Good(png16(ramp, chunk(b"tRNS", struct.pack(">H", ramp[0, 7]))), on_white(pixels, alpha), 0, alpha)


@good
def rgb_16_bits() -> Good:
    values = scene().astype(np.uint16) * 257
    return Good(png16(values), scene())


@good
def rgb_16_bits_with_key() -> Good:
    values = scene().astype(np.uint16) * 257
    alpha = np.full((24, 36), 255, np.uint8)
    alpha[5, 7] = 0
    return Good(png16(values, chunk(b"tRNS", struct.pack(">HHH", *values[5, 7]))), on_white(scene(), alpha), 0, alpha)


@good
def rgba_16_bits() -> Good:
    alpha = scene()[::-1, :, 1]
    return Good(png16(np.dstack([scene(), alpha]).astype(np.uint16) * 257), on_white(scene(), alpha), 1, alpha)


@good
def tiff_16_bits() -> Good:
    ramp = np.linspace(0, 65535, 512).astype(np.uint16).reshape(2, 256)
    return Good(encode(ramp, "TIFF"), np.repeat((ramp >> 8).astype(np.uint8)[..., None], 3, axis=2), format="TIFF")


@good
def tiff_16_bits_big_endian() -> Good:
    ramp = np.linspace(0, 65535, 512).astype(np.uint16).reshape(2, 256)
    data = encode(Image.frombytes("I;16B", (256, 2), ramp.astype(">u2").tobytes()), "TIFF")
    return Good(data, np.repeat((ramp >> 8).astype(np.uint8)[..., None], 3, axis=2), format="TIFF")


@good
def tiff_float() -> Good:
    values = np.linspace(0, 1, 60, dtype=np.float32).reshape(6, 10)
    pixels = np.floor(values * 255 + 0.5).astype(np.uint8)
    return Good(encode(values, "TIFF"), np.repeat(pixels[..., None], 3, axis=2), format="TIFF")


@good
def tiff_elevation() -> Good:
    values = np.linspace(-50, 900, 60, dtype=np.float32).reshape(6, 10)
    values[0, 1] = np.nan
    return Good(encode(values, "TIFF"), None, format="TIFF", warning="stretched")


@good
def tiff_int32() -> Good:
    values = np.linspace(0, 65535, 60).astype(np.int32).reshape(6, 10)
    pixels = (values >> 8).astype(np.uint8)
    return Good(encode(values, "TIFF"), np.repeat(pixels[..., None], 3, axis=2), format="TIFF")


@good
def tiff_lab() -> Good:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(Image.fromarray(scene()), srgb, lab, outputMode="LAB")
    return Good(encode(image, "TIFF"), scene(), 32, format="TIFF")  # 8-bit Lab is coarse where colours are vivid


@good
def cmyk_tiff() -> Good:
    image, plain = cmyk_picture(scene())
    return Good(encode(image, "TIFF"), plain, 2, format="TIFF")


@good
def cmyk_jpeg() -> Good:
    image, plain = cmyk_picture(scene())
    return Good(encode(image, "JPEG", quality=95, subsampling=0), plain, 12, format="JPEG")


@good
def ycck_jpeg() -> Good:
    """Pillow writes CMYK only, so the planes are converted first and Adobe's marker says so afterwards."""
    image, plain = cmyk_picture(scene())
    inks = np.asarray(image)
    ycc = np.asarray(Image.fromarray(np.ascontiguousarray(inks[..., :3])).convert("YCbCr"))
    data = encode(Image.fromarray(np.dstack([255 - ycc, inks[..., 3]]), "CMYK"), "JPEG", quality=95, subsampling=0)
    place = data.index(b"Adobe") + 11
    return Good(data[:place] + b"\x02" + data[place + 1 :], plain, 14, format="JPEG")


@good
def cmyk_jpeg_with_profile() -> Good:
    """The profile's inks are unlike the plain rule: every colour comes out darker by a quarter."""
    image, _ = cmyk_picture(scene())
    profile = cmyk_profile(lambda inks: 0.75 * (1 - inks[..., :3]) * (1 - inks[..., 3:]))
    expected = 0.75 * scene() * (1 - 40 / 255)
    data = encode(image, "JPEG", quality=95, subsampling=0, icc_profile=profile)
    return Good(data, expected.round().astype(np.uint8), 40, format="JPEG")


@good
def profile_ok() -> Good:
    return Good(encode(scene(), "PNG", icc_profile=swapped_profile()), scene()[..., ::-1], 2)


@good
def profile_with_alpha() -> Good:
    alpha = scene()[::-1, :, 1]
    data = encode(np.dstack([scene(), alpha]), "PNG", icc_profile=swapped_profile())
    return Good(data, on_white(scene()[..., ::-1], alpha), 3, alpha)


@good
def profile_gray() -> Good:
    gray = scene()[..., 0]
    linear = gray / 255
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    pixels = np.repeat((srgb * 255).round().astype(np.uint8)[..., None], 3, axis=2)
    return Good(encode(gray, "PNG", icc_profile=gray_profile(1.0)), pixels, 3)


@good
def profile_gray_with_alpha() -> Good:
    opaque = profile_gray()
    image = Image.open(io.BytesIO(opaque.data)).convert("LA")
    image.putalpha(Image.fromarray(scene()[..., 1]))
    assert opaque.pixels is not None
    alpha = scene()[..., 1]
    return Good(encode(image, "PNG", icc_profile=gray_profile(1.0)), on_white(opaque.pixels, alpha), 3, alpha)


@good
def profile_of_a_palette() -> Good:
    image = Image.fromarray(scene()).quantize(32)
    data = encode(image, "PNG", icc_profile=swapped_profile())
    return Good(data, np.asarray(image.convert("RGB"))[..., ::-1], 2)


@good
def profile_broken() -> Good:
    return Good(encode(scene(), "PNG", icc_profile=b"not a profile at all" * 20), scene(), warning="colour profile")


@good
def profile_of_another_space() -> Good:
    return Good(encode(scene(), "PNG", icc_profile=gray_profile(2.2)), scene(), warning="colour profile")


@good
def animated_gif() -> Good:
    first, *rest = bands()
    data = encode(first, "GIF", save_all=True, append_images=rest)
    return Good(data, np.asarray(first), frames=3, format="GIF")


@good
def animated_webp() -> Good:
    first, *rest = bands()
    data = encode(first, "WEBP", save_all=True, append_images=rest, lossless=True)
    return Good(data, np.asarray(first), frames=3, format="WEBP")


@good
def animated_png() -> Good:
    first, *rest = bands()
    return Good(encode(first, "PNG", save_all=True, append_images=rest), np.asarray(first), frames=3)


@good
def animated_avif() -> Good:
    first, *rest = bands()
    data = encode(first, "AVIF", save_all=True, append_images=rest, quality=100, subsampling="4:4:4")
    return Good(data, np.asarray(first), 4, frames=3, format="AVIF")


@good
def tiff_pages() -> Good:
    first, *rest = bands()
    return Good(encode(first, "TIFF", save_all=True, append_images=rest), np.asarray(first), frames=3, format="TIFF")


@good
def tiff_pages_in_a_ring() -> Good:
    tags = [(256, 3, 1, 2), (257, 3, 1, 2), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 122), (277, 3, 1, 1)]
    data = tiff([*tags, (278, 3, 1, 2), (279, 4, 1, 4), (259, 3, 1, 1)], bytes([0, 50, 100, 150]), following=8)
    pixels = np.repeat(np.array([[0, 50], [100, 150]], np.uint8)[..., None], 3, axis=2)
    return Good(data, pixels, format="TIFF")


@good
def phone_with_second_picture() -> Good:
    data = encode(Image.fromarray(scene()), "MPO", save_all=True, append_images=bands(1), quality=95, subsampling=0)
    return Good(data, scene(), 12, format="JPEG")


@good
def broken_exif() -> Good:
    data = encode(scene(), "JPEG", quality=95, subsampling=0, exif=b"Exif\0\0MM\0*\0\0\xff\xff\0\x01")
    return Good(data, scene(), 12, format="JPEG", warning="EXIF")


@good
def exif_full_of_overlaps() -> Good:
    """5,000 tags of 60 kB each in one block of 64 kB: 300 MB for whoever believes them."""
    entries = b"".join(struct.pack("<HHII", tag, 1, 60_000, 8) for tag in range(1, 5_001) if tag != 0x0112)
    block = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 4_999) + entries + b"\0\0\0\0"
    return Good(encode(scene(), "JPEG", quality=95, subsampling=0, exif=block), scene(), 12, format="JPEG")


@good
def tiff_with_broken_exif_tree() -> Good:
    tags = [(256, 3, 1, 2), (257, 3, 1, 2), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 134), (277, 3, 1, 1)]
    tags += [(278, 3, 1, 2), (279, 4, 1, 4), (259, 3, 1, 1), (0x8769, 4, 1, 4_000_000_000)]
    pixels = np.repeat(np.array([[0, 50], [100, 150]], np.uint8)[..., None], 3, axis=2)
    return Good(tiff(tags, bytes([0, 50, 100, 150])), pixels, format="TIFF")


@good
def one_pixel() -> Good:
    return Good(encode(np.array([[[1, 2, 3]]], np.uint8), "PNG"), np.array([[[1, 2, 3]]], np.uint8))


@good
def one_column() -> Good:
    return Good(encode(scene(10_000, 1), "PNG"), scene(10_000, 1))


@good
def one_row() -> Good:
    return Good(encode(scene(1, 10_000), "PNG"), scene(1, 10_000))


@good
def hundred_thousand_frames() -> Good:
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    data = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + b"\xff\0\0\0\0\xff" + frame * 100_000 + b";"
    return Good(data, np.array([[[255, 0, 0]]], np.uint8), frames=10_000, format="GIF")


@good
def bmp_run_lengths() -> Good:
    head = struct.pack("<IiiHHIIiiII", 40, 4, 2, 1, 8, 1, 10, 0, 0, 2, 0)
    runs = bytes([4, 1, 0, 0, 2, 0, 2, 1, 0, 1])
    data = b"BM" + struct.pack("<IHHI", 14 + 40 + 8 + len(runs), 0, 0, 62) + head + b"\0\0\xff\0\xff\0\0\0" + runs
    red, blue = [255, 0, 0], [0, 0, 255]
    return Good(data, np.array([[red, red, blue, blue], [blue] * 4], np.uint8), format="BMP")


# --- to be refused ----------------------------------------------------------------------------------------------------


def refused(name: str, data: bytes, error: str, word: str) -> None:
    BAD[name] = lambda: Bad(data, error, word)


refused("nothing", b"", "BadImage", "empty")
refused("zeros", bytes(1000), "UnsupportedImage", "no known image format")
refused("noise", np.random.default_rng(5).bytes(4000), "UnsupportedImage", "no known image format")
refused("text", "Grüße, this is a letter.\n".encode() * 100, "UnsupportedImage", "text")
refused("web_page", b"<!DOCTYPE html><html><body>404</body></html>", "UnsupportedImage", "web page")
for _name, _data, _word in (
    ("photoshop", b"8BPS\0\1" + bytes(40), "Photoshop"),
    ("postscript", b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
    ("pdf", b"%PDF-1.7\n", "PDF"),
    ("fits", b"SIMPLE  =                    T", "FITS"),
    ("icns", b"icns\0\0\1\0", "ICNS"),
    ("blp", b"BLP2\1\0\0\0", "BLP"),
    ("dds", b"DDS |\0\0\0", "DDS"),
    ("fli", bytes(4) + b"\x12\xaf" + bytes(100), "FLI"),
    ("sgi", b"\x01\xda\0\1" + bytes(508), "SGI"),
    ("jpeg_2000", b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    ("jpeg_2000_stream", b"\xff\x4f\xff\x51" + bytes(40), "JPEG 2000"),
    ("jpeg_xl", b"\xff\x0a" + bytes(40), "JPEG XL"),
    ("icon", b"\0\0\1\0\1\0", "ICO"),
    ("netpbm", b"P6\n60000 60000\n255\n", "Netpbm"),
    ("svg", b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    ("zip", b"PK\x03\x04" + bytes(40), "ZIP"),
    ("video", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(40), "video"),
    ("raw_camera", tiff([(256, 3, 1, 160), (257, 3, 1, 120), (50706, 1, 4, 0x0401)]), "raw camera"),
):
    refused(_name, _data, "UnsupportedImage", _word)

for _kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"):
    _whole = encode(scene(120, 160), _kind)
    refused(f"cut_{_kind.lower()}", _whole[: len(_whole) * 2 // 3], "BadImage", "cut off")
    refused(f"cut_{_kind.lower()}_header", _whole[:14], "BadImage", "" if _kind == "AVIF" else "cut off")

refused("bomb_png_60000", png(60_000, 60_000, 8, 2, b"\0" * 40), "ImageTooLarge", "60000 x 60000")
refused("bomb_png_13000", png(13_000, 13_000, 8, 2, b"\0" * 40), "ImageTooLarge", "169 megapixels")
refused("bomb_png_one_bit", png(13_000, 13_000, 1, 0, bytes(13_000 * 1626)), "ImageTooLarge", "25 megapixels")
refused("bomb_png_long", png(20_000, 1, 8, 0, bytes(20_001)), "ImageTooLarge", "16384")
refused("bomb_gif", b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + b";", "ImageTooLarge", "65535")
refused("bomb_bmp", b"BM" + bytes(12) + struct.pack("<IiiHHI", 40, 60_000, -60_000, 1, 24, 0), "ImageTooLarge", "60000")
refused("bomb_tiff", tiff([(256, 4, 1, 60_000), (257, 4, 1, 60_000)]), "ImageTooLarge", "60000")
refused(
    "bomb_webp",
    b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<II", 10, 0) + (16_383).to_bytes(3, "little") * 2,
    "ImageTooLarge",
    "16384",
)
refused(
    "bomb_jpeg",
    b"\xff\xd8\xff\xc0\0\x11\x08" + struct.pack(">HHB", 65_000, 65_000, 3) + b"\1\x11\0\2\x11\1\3\x11\1"
    b"\xff\xda\0\x0c\3\1\0\2\x11\3\x11\0\x3f\0" + bytes(20),
    "ImageTooLarge",
    "65000",
)
refused(
    "bomb_avif",
    b"\0\0\0\x14ftypavif\0\0\0\0avif" + struct.pack(">I", 28) + b"meta" + struct.pack(">I", 20) + b"ispe"
    + struct.pack(">III", 0, 60_000, 60_000),
    "ImageTooLarge",
    "60000",
)  # fmt: skip
refused(
    "bomb_png_text",
    png(2, 2, 8, 0, bytes(6), chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(50 << 20)))),
    "BadImage",
    "",
)
refused(
    "bomb_png_profile",
    png(2, 2, 8, 0, bytes(6), chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(50 << 20)))),
    "BadImage",
    "",
)
refused("bomb_png_chunks", png(2, 2, 8, 0, bytes(6), chunk(b"tEXt", b"") * 110_000), "BadImage", "pieces")
refused(
    "bomb_gif_comment",
    b"GIF89a\1\0\1\0\0\0\0\x21\xfe" + (b"\xff" + b"a" * 255) * 20_000 + b"\0;",
    "BadImage",
    "comment",
)
refused("bomb_jpeg_junk", b"\xff\xd8\xff" + bytes(3_000_000), "BadImage", "")
refused("bomb_jpeg_fill", b"\xff\xd8" + b"\xff" * 3_000_000, "BadImage", "")
refused("bomb_jpeg_segments", b"\xff\xd8" + b"\xff\xfe\0\2" * 500_000, "BadImage", "segments")
refused(
    "bomb_tiff_overlaps",
    tiff([(256, 3, 1, 9), (257, 3, 1, 9), *((tag, 4, 200_000, 0) for tag in range(300, 60_000))]),
    "BadImage",
    "claim",
)
refused(
    "bomb_tiff_tile",
    tiff([(256, 3, 1, 9), (257, 3, 1, 9), (322, 4, 1, 65_520), (323, 4, 1, 65_520)]),
    "BadImage",
    "tiles",
)

refused("no_width", png(0, 5, 8, 0, b"\0" * 5), "BadImage", "0 x 5")
refused("no_height", b"BM" + bytes(12) + struct.pack("<IiiHHI", 40, 7, 0, 1, 24, 0), "BadImage", "7 x 0")
refused("negative_width", b"BM" + bytes(12) + struct.pack("<IiiHHI", 40, -7, 5, 1, 24, 0), "BadImage", "-7 x 5")
refused("png_without_header", b"\x89PNG\r\n\x1a\n" + chunk(b"IDAT", zlib.compress(b"\0\0")), "BadImage", "header")
refused("tiff_without_page", b"II*\0\0\0\0\0", "BadImage", "no page")
refused("jpeg_without_picture", b"\xff\xd8\xff\xd9", "BadImage", "before the picture")


@bad
def jpeg_of_a_thousand_scans() -> Bad:
    whole = encode(scene(), "JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    return Bad(whole[:last] + whole[last:-2] * 1000 + b"\xff\xd9", word="scans")


@bad
def png_with_damaged_pixels() -> Bad:
    return Bad(png(20, 20, 8, 2, b"", compressed=b"\x78\x9cnot zlib at all"), word="damaged")

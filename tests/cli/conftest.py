"""Photographs as people have them, and files that only claim to be photographs."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from imagesmith.cli.main import main


class Answer(NamedTuple):
    """What a command printed and how it left."""

    code: int
    out: str
    error: str

    @property
    def json(self) -> object:
        return json.loads(self.out)


Run = Callable[..., Answer]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run one command in this process, in an empty folder and with nobody's settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IMAGESMITH_CONFIG", str(tmp_path / "no-settings.toml"))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def call(*words: object) -> Answer:
        capsys.readouterr()
        code = 0
        try:
            main([str(word) for word in words])
        except SystemExit as leave:
            code = leave.code if isinstance(leave.code, int) else 0
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return Answer(code, printed.out, printed.err)

    return call


@pytest.fixture(scope="session")
def portrait() -> Image.Image:
    """scikit-image's portrait, in the public domain."""
    data = pytest.importorskip("skimage.data", reason="scikit-image brings the photograph")
    return Image.fromarray(data.astronaut())


@pytest.fixture
def photo(portrait: Image.Image, tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    portrait.save(path)
    return path


def phone(portrait: Image.Image, path: Path) -> None:
    """Lay the picture on its side and say so in EXIF, as telephones do."""
    exif = Image.Exif()
    exif[0x0112] = 6
    portrait.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=95)


def sixteen_bits(portrait: Image.Image, path: Path) -> None:
    grey = np.asarray(portrait.convert("L"), np.uint16)
    Image.fromarray(grey * 257).save(path)


ODD: dict[str, Callable[[Image.Image, Path], None]] = {
    "phone.jpg": phone,
    "cmyk.jpg": lambda portrait, path: portrait.convert("CMYK").save(path),
    "palette.png": lambda portrait, path: portrait.quantize(64).save(path, transparency=0),
    "sixteen.png": sixteen_bits,
    "pixel.png": lambda portrait, path: portrait.crop((0, 0, 1, 1)).save(path),
}


@pytest.fixture(params=ODD)
def odd(request: pytest.FixtureRequest, portrait: Image.Image, tmp_path: Path) -> Path:
    """A file that is unusual and good."""
    path = tmp_path / request.param
    ODD[request.param](portrait, path)
    return path


def truncated(portrait: Image.Image, path: Path) -> None:
    portrait.save(path)
    path.write_bytes(path.read_bytes()[:20_000])


def bomb(_: Image.Image, path: Path) -> None:
    """Write a PNG of 57 bytes that claims 60,000 x 60,000 pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(header)) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")))


BAD: dict[str, tuple[Callable[[Image.Image, Path], object], str]] = {
    "cut.jpg": (truncated, "truncated|cut|ends|incomplete"),
    "text.jpg": (lambda _, path: path.write_text("not a photograph"), "text"),
    "bomb.png": (bomb, "60000|megapixel"),
}


@pytest.fixture(params=BAD)
def bad(request: pytest.FixtureRequest, portrait: Image.Image, tmp_path: Path) -> tuple[Path, str]:
    """A file that must be refused, and what the sentence must say."""
    make, says = BAD[request.param]
    path = tmp_path / request.param
    make(portrait, path)
    return path, says

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagesmith.core.errors import BadImage, BadInput
from imagesmith.image import metadata
from imagesmith.image.decode import decode_image
from imagesmith.image.metadata import read_record, save_image, to_plain, write_bytes_aside, write_json

RECORD = {
    "region": "dress",
    "color": "crimson – grün",
    "score": np.float32(0.5),
    "box": np.arange(4),
    "path": Path("a"),
}
PLAIN = {"region": "dress", "color": "crimson – grün", "score": 0.5, "box": [0, 1, 2, 3], "path": "a"}


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".webp"])
def test_pixels_and_record_come_back(images, tmp_path, suffix):
    pixels = images.scene(30, 40)
    path = save_image(tmp_path / "new" / f"out{suffix}", pixels, record=RECORD)
    assert read_record(path) == PLAIN
    photo = decode_image(path)
    lossy = suffix.lower() in (".jpg", ".jpeg")
    assert np.abs(photo.pixels.astype(int) - pixels).max() <= (12 if lossy else 0)
    assert photo.alpha is None
    assert not photo.warnings
    assert os.listdir(path.parent) == [path.name]  # nothing left beside it


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_transparency_is_kept_and_so_are_the_colours_under_it(images, tmp_path, suffix):
    pixels, alpha = images.scene(30, 40), images.scene(30, 40)[::-1, :, 1]
    path = save_image(tmp_path / f"cut{suffix}", pixels, alpha=alpha)
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), np.dstack([pixels, alpha]))
    assert np.array_equal(decode_image(path).alpha, alpha)
    assert read_record(path) is None


def test_gray_masks_can_be_saved(tmp_path):
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    with Image.open(save_image(tmp_path / "mask.png", labels)) as image:
        assert image.mode == "L"
        assert np.array_equal(np.asarray(image), labels)


def test_nothing_of_the_camera_goes_out(images, tmp_path):
    source = images.encode(images.scene(), "JPEG", exif=images.exif(6), comment=b"my address")
    for suffix in (".png", ".jpg", ".webp"):
        path = save_image(tmp_path / f"out{suffix}", decode_image(source).pixels)
        with Image.open(path) as image:
            assert len(image.getexif()) == 0
        assert b"address" not in path.read_bytes()


def test_files_of_others_have_no_record(images, tmp_path):
    for kind, data in (
        ("plain.png", images.encode(images.scene(), "PNG")),
        ("exif.jpg", images.encode(images.scene(), "JPEG", exif=images.exif(6))),
        ("broken.jpg", images.good["broken_exif"]().data),
        ("overlaps.jpg", images.good["exif_full_of_overlaps"]().data),
        ("pages.tif", images.good["tiff_pages"]().data),
    ):
        (tmp_path / kind).write_bytes(data)
        assert read_record(tmp_path / kind) is None
    with pytest.raises(BadImage, match=r"none\.png: there is no such file\."):
        read_record(tmp_path / "none.png")
    with pytest.raises(BadImage, match="text"):
        read_record(b"just a letter to someone")


def test_a_record_that_is_no_json_object_is_none(images, tmp_path):
    from PIL.PngImagePlugin import PngInfo

    for text in ("not json", "[1, 2]", "[" * 5000):
        info = PngInfo()
        info.add_itxt(metadata.RECORD_KEY, text)
        assert read_record(images.encode(images.scene(), "PNG", pnginfo=info)) is None


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("out.gif", {}, r"must end in \.png"),
        ("out", {}, r"must end in \.png"),
        ("out.jpg", {"alpha": np.zeros((4, 4), np.uint8)}, "no transparency"),
        ("out.jpg", {"record": {"text": "x" * 70_000}}, "60000"),
        ("out.png", {"pixels": np.zeros((4, 4, 3))}, "float64"),
        ("out.png", {"record": {"what": object()}}, "object"),
    ],
)
def test_what_cannot_be_saved_is_one_sentence(tmp_path, name, arguments, reason):
    with pytest.raises(BadInput, match=reason):
        save_image(tmp_path / name, **{"pixels": np.zeros((4, 4, 3), np.uint8), **arguments})
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be written"):
        write_bytes_aside(tmp_path / "file" / "below.txt", b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadInput, match="cannot be written"):
        write_bytes_aside(tmp_path / "folder", b"")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = write_bytes_aside(tmp_path / "a.txt", b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(metadata.os, "fsync", full)
    with pytest.raises(BadInput, match=r"a\.txt cannot be written: No space left on device\."):
        write_bytes_aside(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_json_is_plain_and_whole(tmp_path):
    path = write_json(tmp_path / "deep" / "a.json", {**RECORD, "bad": float("nan"), "high": np.array([np.inf, 1])})
    assert json.loads(path.read_text(encoding="utf-8")) == {**PLAIN, "bad": None, "high": [None, 1.0]}
    assert "grün" in path.read_text(encoding="utf-8")
    assert to_plain({1: {2}, "yes": np.True_, "none": None}) == {"1": [2], "yes": True, "none": None}

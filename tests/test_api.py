"""The Python API with the models that ship: one photograph or many, from every kind of source."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import imagesmith
from imagesmith import api
from imagesmith.core.errors import BadImage, BadInput, UnknownModel, UnknownRegion
from imagesmith.core.requests import SegmentRequest


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    data = pytest.importorskip("skimage.data", reason="scikit-image brings the photograph")
    return data.astronaut()


@pytest.fixture
def photo(pixels: np.ndarray, tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


def test_every_kind_of_source_gives_the_same_labels(photo: Path, pixels: np.ndarray) -> None:
    with imagesmith.load("starter/clothes") as model:
        expected = model(photo).labels_hw
        sources = [str(photo), photo.read_bytes(), io.BytesIO(photo.read_bytes()), Image.open(photo), pixels]
        for source in sources:
            np.testing.assert_array_equal(model(source).labels_hw, expected)
        assert [len(model([photo, pixels])), len(model(photo.parent)), len(model(f"{photo.parent}/*.png"))] == [2, 1, 1]


def test_photographs_of_different_sizes_keep_their_sizes(pixels: np.ndarray) -> None:
    results = imagesmith.segment([pixels, pixels[:200, :333], pixels[:7, :9]], batch_size=4)
    assert [result.size_hw for result in results] == [(512, 512), (200, 333), (7, 9)]


def test_company_does_not_change_an_answer(pixels: np.ndarray) -> None:
    alone = imagesmith.segment(pixels)
    together = imagesmith.segment([pixels, pixels[:, ::-1], pixels], batch_size=3)
    assert (together[0].labels_hw == alone.labels_hw).mean() > 0.9999
    assert (together[2].labels_hw == alone.labels_hw).mean() > 0.9999


def test_edit_and_outfit(photo: Path, pixels: np.ndarray) -> None:
    edited = imagesmith.edit(photo, "hair", recolor="crimson")
    assert (edited.pixels[edited.mask == 0] == pixels[edited.mask == 0]).all()
    assert (edited.pixels != pixels).any()
    garments = imagesmith.outfit(photo)
    assert garments.garments
    with pytest.raises(UnknownRegion, match="left shoe"):
        imagesmith.edit(photo, "left shoe", recolor="red")


def test_a_bad_file_is_a_value_in_a_stream_and_an_error_alone(photo: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_text("not a photograph")
    with api.open_pool() as pool:
        items = list(api.stream(SegmentRequest(), [bad, photo, bad], pool))
    assert [isinstance(item, BadImage) for item in items] == [True, False, True]
    with pytest.raises(BadImage, match=r"bad\.jpg"):
        imagesmith.segment(bad)


def test_wrong_wishes_are_sentences(photo: Path) -> None:
    with pytest.raises(UnknownModel, match="starter/clothes"):
        imagesmith.load("starter/cloths")
    with pytest.raises(BadInput, match="threshold"):
        imagesmith.segment(photo, treshold=0.5)
    with pytest.raises(BadInput, match="detect"):
        imagesmith.segment(photo, model="starter/detect")


def test_looking_needs_no_torch(photo: Path) -> None:
    code = (
        "import sys, imagesmith\n"
        f"imagesmith.segment({str(photo)!r}); imagesmith.detect({str(photo)!r}); imagesmith.classify({str(photo)!r})\n"
        f"imagesmith.edit({str(photo)!r}, 'hair', recolor='red')\n"
        "assert 'torch' not in sys.modules and 'scipy' not in sys.modules, sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

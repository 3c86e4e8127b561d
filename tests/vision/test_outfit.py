"""The outfit: shares that are counted, colours that are known, the same answer every time."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import ImageColor

from imagesmith.core.errors import BadInput
from imagesmith.image.color import name_of
from imagesmith.image.photo import Photo
from imagesmith.image.results import UNSURE, Segmentation
from imagesmith.vision.outfit import garment_name, main_colors, outfit

NAMES = ("Background", "Hair", "Dress", "Left-shoe", "Right-shoe", "Face")


def dressed() -> tuple[Segmentation, Photo]:
    labels = np.zeros((100, 100), np.uint8)
    labels[:10, :50], labels[10:20, :50], labels[20:60, :50] = 1, 5, 2
    labels[60:70, :20], labels[60:70, 20:50] = 3, 4
    labels[90:] = UNSURE
    pixels = np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    shade = np.linspace(0.75, 1.0, 50)[None, :, None]
    pixels[20:50, :50] = np.array([220, 20, 60]) * shade
    pixels[50:60, :50] = 250
    pixels[60:70, :50] = [10, 10, 10]
    return Segmentation(labels, NAMES, "fake", "p.png"), Photo(pixels, "p.png")


def test_shares_and_colors() -> None:
    summary = outfit(*dressed())
    assert [garment.name for garment in summary.garments] == ["dress", "shoe"]
    dress, shoe = summary.garments
    assert summary.person_share == pytest.approx(0.35)  # without background and unsure pixels
    assert dress.share == pytest.approx(2000 / 3500)
    assert shoe.share == pytest.approx(500 / 3500)
    assert dress.share_of_photo == pytest.approx(0.2)
    assert [color.share for color in dress.colors] == pytest.approx([0.75, 0.25], abs=0.01)
    assert dress.colors[0].name == "crimson"
    assert dress.colors[1].hex == "#fafafa"
    assert [color.name for color in shoe.colors] == ["black"]


def test_the_same_photograph_gives_the_same_outfit() -> None:
    assert outfit(*dressed()) == outfit(*dressed())


def test_text_and_json() -> None:
    summary = outfit(*dressed())
    assert json.loads(json.dumps(summary.to_dict()))["garments"][0]["name"] == "dress"
    assert summary.text().splitlines()[0].startswith("dress   57.1%  crimson #")
    nobody = outfit(Segmentation(np.zeros((4, 4), np.uint8), NAMES, "m", "i"), Photo(np.zeros((4, 4, 3), np.uint8)))
    assert nobody.garments == ()
    assert nobody.text() == "no garments found"


def test_specks_are_no_garments() -> None:
    segmentation, photo = dressed()
    labels = segmentation.labels_hw.copy()
    labels[0, :6] = 2
    assert [garment.name for garment in outfit(segmentation, photo).garments] == ["dress", "shoe"]
    labels[labels == 2] = 1
    labels[0, :6] = 2
    garments = outfit(Segmentation(labels, NAMES, "fake", "p.png"), photo).garments
    assert [garment.name for garment in garments] == ["shoe"]


def test_one_name_is_one_color() -> None:
    pixels = np.repeat(np.array([[20, 20, 20], [60, 4, 4], [0, 0, 40]], np.uint8), [600, 300, 100], axis=0)
    colors = main_colors(pixels)
    assert len({color.name for color in colors}) == len(colors)
    assert sum(color.share for color in colors) == pytest.approx(1)


def test_another_photograph_is_refused() -> None:
    with pytest.raises(BadInput, match=r"100 x 100 pixels.*10 x 20"):
        outfit(dressed()[0], Photo(np.zeros((20, 10, 3), np.uint8)))


def test_folds_and_a_reflection_are_one_color() -> None:
    random = np.random.default_rng(1)
    folds = np.array([40, 70, 160]) * random.uniform(0.7, 1.1, (5000, 1)) + random.normal(0, 3, (5000, 3))
    folds[:60] = 255  # a reflection
    colors = main_colors(folds.clip(0, 255).astype(np.uint8))
    assert len(colors) == 1
    assert colors[0].share > 0.9


def test_checks_give_both_colors() -> None:
    pixels = np.tile(np.array([[200, 30, 30], [240, 240, 230], [20, 20, 90]], np.uint8), (500, 1))
    assert sorted(color.share for color in main_colors(pixels)) == pytest.approx([1 / 3] * 3, abs=0.01)
    assert main_colors(np.zeros((0, 3), np.uint8)) == ()
    assert len(main_colors(np.random.default_rng(0).integers(0, 256, (9999, 3), dtype=np.uint8))) <= 3


@pytest.mark.parametrize("name", ["crimson", "navy", "olive", "white", "hotpink"])
def test_a_css_color_has_its_own_name(name: str) -> None:
    assert name_of(np.array(ImageColor.getrgb(name), np.uint8)) == name


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("Upper-clothes", "upper clothes"),
        ("Right-leg", None),
        ("skin", None),
        ("null", None),
        ("l_eye", None),
        ("u_lip", None),
        ("neck_l", "necklace"),
        ("t-shirt", "t shirt"),
        ("leggings", "leggings"),
    ],
)
def test_garment_names(label: str, expected: str | None) -> None:
    assert garment_name(label) == expected

"""Drawing: where things stand, and that long and many labels stay inside."""

from __future__ import annotations

import numpy as np
import pytest

from imagesmith.image import draw
from imagesmith.image.color import hex_of, oklab_from_rgb, palette, rgb_from_oklab

GREY = np.full((300, 400, 3), 120, np.uint8)


def test_tint_equals_the_formula_pixel_by_pixel() -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (600, 50, 3), dtype=np.uint8)
    labels = np.repeat(np.repeat(random.integers(0, 4, (12, 1), dtype=np.uint8), 50, 0), 50, 1)
    colors, shown = palette(256), np.arange(256) % 2 == 1
    picture = draw.tint(pixels, labels, colors, shown, 0.5)
    slow = np.where(shown[labels][..., None], (pixels.astype(int) + colors[labels]) // 2, pixels)
    edge = np.zeros(labels.shape, bool)
    edge[:-1] = labels[:-1] != labels[1:]
    np.testing.assert_array_equal(picture[~edge], slow[~edge])
    np.testing.assert_array_equal(picture[edge], (slow[edge] + 3 * 255) // 4)  # also where two bands meet


@pytest.mark.parametrize("opacity", [0.0, 1.0])
def test_tint_at_its_ends(opacity: float) -> None:
    labels = np.ones((300, 400), np.uint8)
    picture = draw.tint(GREY, labels, palette(256), np.ones(256, bool), opacity)
    expected = palette(2)[1] if opacity else GREY[0, 0]
    assert (picture == expected).all()


def test_a_legend_of_many_long_names_is_not_cut() -> None:
    entries = [draw.Entry((200, 0, index), f"a rather long label name number {index}", "12.3 %") for index in range(60)]
    for size_hw in ((300, 200), (200, 300), (700, 1000)):
        picture = draw.add_legend(np.zeros((*size_hw, 3), np.uint8), entries, "Regions")
        codes = np.array([65536, 256, 1])
        assert {int(codes @ entry.color) for entry in entries} <= set(np.unique(picture @ codes).tolist())
        border = np.concatenate([picture[-2:].reshape(-1, 3), picture[:, -2:].reshape(-1, 3)])
        assert set(map(tuple, border.tolist())) <= {draw.PAPER, (0, 0, 0)}


def test_text_grows_with_the_picture() -> None:
    assert draw.text_height(64, 48) == 13
    assert draw.text_height(1080, 1920) == 33
    assert draw.text_height(3000, 4000) == 77


def test_tags_do_not_hide_each_other() -> None:
    boxes = np.array([[50, 100, 200, 250]] * 4 + [[390, 0, 400, 10]], np.float32)
    colors = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250)]
    picture = draw.draw_boxes(GREY, boxes, ["first", "second", "third", "fourth", "in the corner"], colors)
    areas = [int((picture == color).all(axis=2).sum()) for color in colors]
    assert min(areas) > 300


@pytest.mark.parametrize("box", [[-50, -50, 900, 900], [0, 0, 0, 0], [399, 299, 400, 300], [np.nan, 0, 5, 5]])
def test_odd_boxes_are_drawn_at_the_border(box: list[float]) -> None:
    picture = draw.draw_boxes(GREY, np.array([box], np.float32), ["x" * 80], [(9, 9, 9)])
    assert picture.shape == GREY.shape
    assert draw.draw_boxes(GREY, np.zeros((0, 4)), [], []).shape == GREY.shape


def test_bars_are_as_long_as_the_shares() -> None:
    picture = draw.add_bars(np.zeros((300, 400, 3), np.uint8), ["half", "all"], [0.5, 1.0])
    lengths = sorted({int(row.sum()) for row in (picture == draw.BAR).all(axis=2) if row.any()})
    assert lengths[0] == pytest.approx(lengths[-1] / 2, abs=2)


def test_oklab_runs_both_ways_and_matches_known_values() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (500, 3), dtype=np.uint8)
    np.testing.assert_array_equal(rgb_from_oklab(oklab_from_rgb(rgb)).round().astype(int), rgb)
    # Ottosson's own values for the sRGB primaries, to three digits.
    known = {
        (255, 0, 0): (0.628, 0.225, 0.126),
        (0, 255, 0): (0.866, -0.234, 0.179),
        (0, 0, 255): (0.452, -0.032, -0.312),
    }
    for color, lab in known.items():
        np.testing.assert_allclose(oklab_from_rgb(np.array(color, np.uint8)), lab, atol=1e-3)
    assert hex_of(np.array([1, 171, 255], np.uint8)) == "#01abff"

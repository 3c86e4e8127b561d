"""Augmentation keeps pictures and masks together, and labels valid."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagesmith.training.augment import (
    IGNORE,
    Example,
    Window,
    augment,
    cut,
    flip,
    flip_table,
    foreground_box,
    jitter_colour,
    paste,
    random_generator,
    random_window,
    recolour,
    rotate,
)
from imagesmith.training.settings import Augmentation

LABELS = {0: "background", 1: "left-shoe", 2: "right-shoe", 3: "dress", 4: "skin"}


def coloured(mask: np.ndarray) -> np.ndarray:
    """Paint every label in a colour of its own."""
    palette = np.array([[10, 10, 10], [250, 20, 20], [20, 250, 20], [20, 20, 250], [200, 200, 40]], np.uint8)
    return palette[mask]


def example(seed: int = 0, size_hw: tuple[int, int] = (40, 30)) -> Example:
    random = np.random.default_rng(seed)
    mask = np.zeros(size_hw, np.uint8)
    for label in (1, 2, 3, 4):
        top, left = random.integers(0, size_hw[0] - 12), random.integers(0, size_hw[1] - 10)
        mask[top : top + 12, left : left + 9] = label
    return Example(coloured(mask), mask)


def test_flip_swaps_sides_and_moves_pixels() -> None:
    table = flip_table(LABELS)
    start = example()
    mirrored = flip(start, table)
    assert np.array_equal(mirrored.image, start.image[:, ::-1])
    assert np.array_equal(mirrored.mask == 1, (start.mask == 2)[:, ::-1])
    assert np.array_equal(mirrored.mask == 3, (start.mask == 3)[:, ::-1])
    again = flip(mirrored, table)
    assert np.array_equal(again.mask, start.mask)
    assert table[IGNORE] == IGNORE


@pytest.mark.parametrize(
    ("labels", "pairs"),
    [
        (["background", "l_eye", "r_eye", "u_lip", "l_lip", "l_ear", "r_ear", "ear_r", "neck_l"], {(1, 2), (5, 6)}),
        (["Left-shoe", "Right-shoe", "Left-leg", "Right-leg", "Hair"], {(0, 1), (2, 3)}),
        (["left", "leftover", "rightly", "dress"], set()),
    ],
)
def test_flip_table_pairs_only_names_with_a_partner(labels: list[str], pairs: set[tuple[int, int]]) -> None:
    table = flip_table(dict(enumerate(labels)))
    assert {(low, int(table[low])) for low in range(len(labels)) if table[low] > low} == pairs
    assert np.array_equal(table[table], np.arange(256))


def test_cut_of_the_whole_at_its_size_changes_nothing() -> None:
    start = example()
    same = cut(start, Window(0, 0, 30, 40), (40, 30))
    assert np.array_equal(same.image, start.image)
    assert np.array_equal(same.mask, start.mask)


def test_cut_beyond_the_edge_is_ignored_there() -> None:
    start = example()
    wide = cut(start, Window(-30, 0, 60, 40), (40, 60))
    assert (wide.mask[:, :30] == IGNORE).all()
    assert np.array_equal(wide.mask[:, 30:], start.mask)
    outside = cut(start, Window(100, 100, 10, 10), (8, 8))
    assert (outside.mask == IGNORE).all()


def test_picture_and_mask_stay_together() -> None:
    """Without changes of colour, every pixel away from an edge still has its label's colour."""
    plain = Augmentation(upper_body=0.5, rotate=25, rotate_probability=1, color=0, degrade=0, copy_paste=1, flip=0.5)
    labels = {**LABELS, 1: "shoe-one", 2: "shoe-two"}
    for seed in range(12):
        made = augment(
            example(seed), example(seed + 50), (64, 48), plain, flip_table(labels), [], random_generator(seed)
        )
        known = made.mask != IGNORE
        expected = coloured(np.where(known, made.mask, 0))
        off = np.abs(made.image.astype(int) - expected).max(axis=2) > 60
        assert (off & known).sum() < 0.25 * max(known.sum(), 1)
        # Negative control: the same mask moved by some pixels does not fit.
    shifted = np.roll(made.mask, 9, axis=1)
    known = shifted != IGNORE
    off_shifted = np.abs(made.image.astype(int) - coloured(np.where(known, shifted, 0))).max(axis=2) > 60
    assert (off_shifted & known).sum() > (off & (made.mask != IGNORE)).sum()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), height=st.integers(8, 70), width=st.integers(8, 70))
def test_augmented_examples_are_valid_and_repeatable(seed: int, height: int, width: int) -> None:
    strong = Augmentation(
        scale=(0.3, 3), upper_body=0.5, rotate=45, rotate_probability=0.5, degrade=0.5, copy_paste=0.5, recolor=0.5
    )
    first, second = (
        augment(example(1), example(2), (height, width), strong, flip_table(LABELS), [1, 2, 3], random_generator(seed))
        for _ in range(2)
    )
    assert first.image.shape == (height, width, 3)
    assert first.image.dtype == first.mask.dtype == np.uint8
    assert set(np.unique(first.mask)) <= {*LABELS, IGNORE}
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.mask, second.mask)


def test_paste_keeps_labels_valid_and_covers() -> None:
    below, above = example(3), example(4)
    joined = paste(below, above)
    on_top = above.mask > 0
    assert np.array_equal(joined.mask[on_top], above.mask[on_top])
    assert np.array_equal(joined.mask[~on_top], below.mask[~on_top])
    assert np.array_equal(joined.image, coloured(joined.mask))


def test_ignored_pixels_are_not_pasted() -> None:
    below = example(3)
    donor = Example(np.full_like(below.image, 77), np.full_like(below.mask, IGNORE))
    assert np.array_equal(paste(below, donor).image, below.image)


def test_recolour_changes_only_the_chosen_and_keeps_the_order_of_shades() -> None:
    ramp = np.repeat(np.linspace(40, 200, 64).astype(np.uint8)[:, None], 8, axis=1)
    image = np.stack([ramp, ramp // 2, ramp // 3], axis=2)
    chosen = np.zeros(ramp.shape, bool)
    chosen[:, :4] = True
    luma = np.array([0.299, 0.587, 0.114])
    for seed in range(10):
        result = recolour(Example(image, chosen.astype(np.uint8)), chosen, np.random.default_rng(seed))
        assert np.array_equal(result.image[:, 4:], image[:, 4:])
        shades = result.image[:, 0] @ luma
        unclipped = (result.image[:, 0] > 0).all(axis=1) & (result.image[:, 0] < 255).all(axis=1)
        assert (np.diff(shades[unclipped]) > -2).all()
        assert not np.array_equal(result.image[:, :4], image[:, :4])


def test_no_colour_jitter_at_strength_zero_but_for_gray() -> None:
    image = example().image
    same = [np.abs(jitter_colour(image, 0.0, np.random.default_rng(seed)).astype(int) - image).max() <= 1
            for seed in range(30)]  # fmt: skip
    assert sum(same) >= 25


def test_rotation_by_nothing_and_by_a_half_turn() -> None:
    start = example()
    assert np.array_equal(rotate(start, 0).mask, start.mask)
    half = rotate(start, 180)
    assert np.array_equal(half.mask, start.mask[::-1, ::-1])


def test_upper_body_window_starts_at_the_top_of_the_person() -> None:
    mask = np.zeros((100, 60), np.uint8)
    mask[20:90, 20:40] = 3
    person = Example(coloured(mask), mask)
    only_upper = Augmentation(upper_body=1.0, aspect=0.0)
    for seed in range(20):
        window = random_window(person, (48, 32), only_upper, random_generator(seed))
        assert window.top <= 20
        assert window.top + window.height < 80
        assert abs(window.height / window.width - 1.5) < 1e-6
    assert foreground_box(np.zeros((5, 5), np.uint8)) is None
    empty = Example(np.zeros((5, 5, 3), np.uint8), np.zeros((5, 5), np.uint8))
    assert random_window(empty, (4, 4), only_upper, random_generator(0)).height > 0


def test_face_labels_of_the_pack_pair_up() -> None:
    names = json.loads('["background","skin","nose","eye_g","l_eye","r_eye","l_brow","r_brow","l_ear","r_ear"]')
    assert flip_table(dict(enumerate(names)))[:10].tolist() == [0, 1, 2, 3, 5, 4, 7, 6, 9, 8]

import time

import numpy as np
import pytest
from pycocotools import mask as coco
from scipy import ndimage

from imagesmith.core.errors import BadInput
from imagesmith.image import masks


def blobs(height: int, width: int, seed: int, scale: float = 4) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((height, width))
    smooth = ndimage.gaussian_filter(noise, scale)
    return smooth > 0.3 * smooth.std()


def spiral(size: int) -> np.ndarray:
    """One long winding part, the hardest thing to join from its runs."""
    mask = np.zeros((size, size), bool)
    low, high = 0, size - 1
    while low < high:
        mask[low, max(low - 2, 0) : high + 1] = mask[low : high + 1, high] = mask[high, low : high + 1] = True
        mask[low + 2 : high + 1, low] = True
        low, high = low + 2, high - 2
    return mask


def cases() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "blobs": blobs(90, 120, 1),
        "noise": rng.random((37, 51)) > 0.5,
        "sparse": rng.random((61, 40)) > 0.98,
        "row": rng.random((1, 300)) > 0.4,
        "column": rng.random((300, 1)) > 0.4,
        "empty": np.zeros((5, 7), bool),
        "full": np.ones((5, 7), bool),
        "pixel": np.ones((1, 1), bool),
        "corner": np.eye(9, dtype=bool),
        "spiral": spiral(41),
        "long run": np.arange(200_000).reshape(1, -1) > 150_000,
    }


CASES = cases()


@pytest.fixture(params=CASES, ids=list(CASES))
def mask(request: pytest.FixtureRequest) -> np.ndarray:
    return CASES[request.param]


# --- run lengths ------------------------------------------------------------------------------------------------------


def test_run_lengths_equal_pycocotools_both_ways(mask):
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    ours = masks.encode_rle(mask)
    assert ours == {"size": theirs["size"], "counts": theirs["counts"].decode()}
    assert np.array_equal(masks.decode_rle(ours), mask)
    assert np.array_equal(masks.decode_rle(theirs), coco.decode(theirs).astype(bool))


def test_run_lengths_as_a_plain_list():
    assert masks.decode_rle({"size": [2, 3], "counts": [1, 2, 3]}).astype(int).tolist() == [[0, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize(
    "rle",
    [
        {"size": [2, 2], "counts": "9"},
        {"size": [2, 2], "counts": "~~~"},
        {"size": [2, 2], "counts": "oooooooooooooooooo"},
        {"size": [2, 2], "counts": [1, -1, 4]},
        {"size": [2, 2]},
        {"size": 4, "counts": "4"},
        {"size": [10**9, 10**9], "counts": "4"},
        {"size": [2, 2], "counts": "ü"},
    ],
)
def test_damaged_run_lengths_are_refused(rle):
    with pytest.raises(BadInput):
        masks.decode_rle(rle)


# --- parts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("diagonal", [True, False])
def test_components_equal_scipy(mask, diagonal):
    ours = masks.components(mask, diagonal)
    theirs, count = ndimage.label(mask, np.ones((3, 3)) if diagonal else None)
    assert len(ours) == count
    pairs = np.unique(np.stack([ours.labels.ravel(), theirs.ravel()]), axis=1)
    assert pairs.shape[1] == len(np.unique(theirs))  # one name of ours for each of theirs
    assert np.array_equal(ours.labels > 0, mask)
    assert (np.diff(ours.areas) <= 0).all()
    for index in range(min(len(ours), 20)):
        part = ours.mask(index)
        assert part.sum() == ours.areas[index]
        assert tuple(ours.boxes_xyxy[index]) == masks.mask_box(part)


def test_components_of_a_large_mask_are_quick():
    mask = blobs(1080, 1920, 2, scale=15)
    start = time.process_time()
    parts = masks.components(mask)
    assert time.process_time() - start < 1  # about 15 ms alone
    assert len(parts) == ndimage.label(mask, np.ones((3, 3)))[1]


def test_there_is_no_part_beyond_the_last():
    parts = masks.components(CASES["corner"])
    assert len(parts) == 1
    with pytest.raises(IndexError):
        parts.mask(1)


def test_mask_box(mask):
    ys, xs = np.nonzero(mask)
    expected = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) if len(ys) else None
    assert masks.mask_box(mask) == expected


# --- distances --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reach", [0, 0.9, 1, 1.5, 2, 7.3, 30, 400])
def test_distances_equal_scipy(mask, reach):
    if mask.size > 50_000 and reach > 30:
        reach = 60
    exact = ndimage.distance_transform_edt(~mask) if mask.any() else np.full(mask.shape, np.inf)
    assert np.array_equal(masks.grow(mask, reach), exact <= reach)
    expected = np.where(exact <= reach, exact, np.inf).astype(np.float32)
    assert np.array_equal(masks.distance(mask, reach), expected)
    inside = ndimage.distance_transform_edt(mask) if not mask.all() else np.where(mask, np.inf, 0)
    assert np.array_equal(masks.shrink(mask, reach), mask & (inside > reach))
    assert np.array_equal(masks.grow(mask, -reach), masks.shrink(mask, reach))


def test_the_border_of_the_picture_does_not_shrink_a_mask():
    mask = np.ones((9, 9), bool)
    mask[:, 4:] = False
    assert masks.shrink(mask, 2).sum(axis=1).tolist() == [2] * 9


@pytest.mark.parametrize("width", [0.5, 1, 2, 5, 21.5, 300])
def test_feather_is_exactly_zero_outside_and_one_inside(mask, width):
    soft = masks.feather(mask, width)
    assert soft.dtype == np.float32
    assert soft.shape == mask.shape
    if mask.all() or not mask.any():
        assert np.array_equal(soft, mask.astype(np.float32))
        return
    out = ndimage.distance_transform_edt(~mask)
    inside = ndimage.distance_transform_edt(mask)
    signed = np.where(mask, inside - 0.5, 0.5 - out)
    assert np.allclose(soft, np.clip(0.5 + signed / width, 0, 1), atol=1e-6)
    assert (soft[out - 0.5 >= width / 2 + 1e-6] == 0).all()
    assert (soft[inside - 0.5 >= width / 2 + 1e-6] == 1).all()


def test_feather_of_no_width_is_the_mask(mask):
    assert np.array_equal(masks.feather(mask, 0), mask.astype(np.float32))


def test_inputs_are_left_alone_and_any_number_type_is_a_mask(mask):
    numbers = mask.astype(np.uint8) * 7
    before = numbers.copy()
    for function in (masks.encode_rle, masks.mask_box, masks.components):
        function(numbers)
    assert np.array_equal(masks.grow(numbers, 3), masks.grow(mask, 3))
    assert np.array_equal(masks.shrink(numbers, 3), masks.shrink(mask, 3))
    assert np.array_equal(masks.feather(numbers, 3), masks.feather(mask, 3))
    assert np.array_equal(numbers, before)
    result = masks.grow(mask, 0)
    result[:] = True
    assert np.array_equal(mask, CASES[next(name for name in CASES if CASES[name] is mask)])


def test_a_mask_has_two_dimensions():
    with pytest.raises(BadInput, match=r"\(2, 2, 3\)"):
        masks.grow(np.zeros((2, 2, 3)), 1)

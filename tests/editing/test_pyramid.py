import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from imagesmith.editing.pyramid import blur_inside, spread_outward


def picture(seed=0, size=(96, 130)):
    return np.random.default_rng(seed).uniform(0, 255, (*size, 3)).astype(np.float32)


@pytest.mark.parametrize("radius", [0.6, 1.5, 2.0, 3.7, 9.0])
def test_blur_equals_a_gaussian(radius):
    smooth = gaussian_filter(picture(), (3, 3, 0)) * 6 - 600
    expected = gaussian_filter(smooth, (radius, radius, 0), mode="nearest")
    found = blur_inside(smooth, np.ones(smooth.shape[:2], np.float32), radius)
    inner = slice(20, -20)
    assert np.abs(found - expected)[inner, inner].max() < 0.01 * np.ptp(smooth)
    # negative control: a blur a fifth too weak is told apart
    weaker = gaussian_filter(smooth, (0.8 * radius, 0.8 * radius, 0), mode="nearest")
    assert np.abs(found - expected)[inner, inner].max() < np.abs(weaker - expected)[inner, inner].max() / 2


@pytest.mark.parametrize("radius", [1.0, 5.0, 40.0])
def test_nothing_outside_the_weight_leaks_in(radius):
    colors = picture()
    weight = np.zeros(colors.shape[:2], np.float32)
    weight[30:60, 40:90] = 1
    other = colors.copy()
    other[weight == 0] = 255
    assert np.array_equal(blur_inside(colors, weight, radius), blur_inside(other, weight, radius))


def test_a_flat_region_stays_flat_however_wide_the_blur():
    colors = picture()
    weight = np.zeros(colors.shape[:2], np.float32)
    weight[30:60, 40:90] = 1
    colors[weight == 1] = (10, 20, 30)
    np.testing.assert_allclose(
        blur_inside(colors, weight, 25)[30:60, 40:90], np.broadcast_to((10, 20, 30), (30, 50, 3)), rtol=1e-4
    )


def test_spread_keeps_what_is_known_and_stays_within_its_range():
    colors = picture()
    weight = (np.random.default_rng(2).uniform(size=colors.shape[:2]) < 0.02).astype(np.float32)
    found = spread_outward(colors, weight)
    known = weight > 0
    assert np.array_equal(found[known], colors[known])
    assert found.min() >= colors[known].min() - 1e-3
    assert found.max() <= colors[known].max() + 1e-3


def test_spread_continues_the_nearest_side():
    colors = np.zeros((40, 80, 3), np.float32)
    colors[:, -10:] = 200
    weight = np.zeros((40, 80), np.float32)
    weight[:, :10] = weight[:, -10:] = 1
    found = spread_outward(colors, weight)
    assert found[20, 12, 0] < 60
    assert found[20, 67, 0] > 140


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1), (2, 3)])
def test_tiny_pictures(size):
    colors = picture(size=size)
    weight = np.zeros(size, np.float32)
    assert not spread_outward(colors, weight).any()
    weight[0, 0] = 1
    np.testing.assert_allclose(spread_outward(colors, weight)[-1, -1], colors[0, 0], rtol=1e-5)
    np.testing.assert_allclose(blur_inside(colors, weight, 50)[-1, -1], colors[0, 0], rtol=1e-4)

import numpy as np
import pytest

from imagesmith.editing import operations
from imagesmith.editing.color import oklab_from_srgb, parse_color
from imagesmith.image.masks import feather


def noise(seed=0, size=(90, 120)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def region(size=(90, 120)):
    mask = np.zeros(size, np.bool_)
    mask[20:70, 30:95] = True
    return mask


def cloth(base, size=(90, 120)):
    """A folded cloth of one colour: its light varies smoothly, with a fine weave."""
    y, x = np.mgrid[: size[0], : size[1]]
    light = 1 + 0.3 * np.sin(x / 9 + y / 23) + 0.05 * ((x + y) % 3 - 1)
    linear = (np.array(base) / 255) ** 2.2 * light[..., None]
    return np.rint(np.clip(linear, 0, 1) ** (1 / 2.2) * 255).astype(np.uint8)


CHANGES = {
    "recolor": lambda pixels, alpha: operations.recolor(pixels, alpha, (220, 20, 60)),
    "brightness": lambda pixels, alpha: operations.tone(pixels, alpha, brightness=0.5),
    "contrast": lambda pixels, alpha: operations.tone(pixels, alpha, contrast=-0.5),
    "saturation": lambda pixels, alpha: operations.tone(pixels, alpha, saturation=1),
    "temperature": lambda pixels, alpha: operations.tone(pixels, alpha, temperature=-1),
    "blur": lambda pixels, alpha: operations.blur(pixels, alpha, 6, alpha > 0.5),
    "pixelate": lambda pixels, alpha: operations.pixelate(pixels, alpha, 8),
}


@pytest.mark.parametrize("name", CHANGES)
def test_outside_the_feather_every_pixel_is_bit_equal(name):
    pixels = noise()
    before = pixels.copy()
    alpha = feather(region(), 6)
    result = CHANGES[name](pixels, alpha)
    assert result.dtype == np.uint8
    assert result.shape == pixels.shape
    assert np.array_equal(pixels, before), "the photograph itself was changed"
    assert np.array_equal(result[alpha == 0], pixels[alpha == 0])
    assert (result[alpha == 1] != pixels[alpha == 1]).any(axis=-1).mean() > 0.9


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 1)])
def test_tiny_photographs_and_empty_or_full_regions(name, size):
    pixels = noise(size=size)
    for alpha in (np.zeros(size, np.float32), np.ones(size, np.float32), np.full(size, 0.4, np.float32)):
        result = CHANGES[name](pixels, alpha)
        assert result.shape == pixels.shape
        if not alpha.any():
            assert np.array_equal(result, pixels)


@pytest.mark.parametrize("base", [(20, 20, 22), (60, 120, 200), (235, 232, 225), (240, 90, 40)])
@pytest.mark.parametrize("name", ["crimson", "navy", "mustard", "white", "black", "gray"])
def test_recolor_takes_the_hue_near_the_lightness_and_keeps_the_folds(base, name):
    pixels = cloth(base)
    alpha = np.ones(pixels.shape[:2], np.float32)
    target = oklab_from_srgb(np.array([parse_color(name)], np.uint8))[0]
    result = operations.recolor(pixels, alpha, parse_color(name))
    old, new = oklab_from_srgb(pixels), oklab_from_srgb(result)
    assert abs(np.median(new[..., 0]) - target[0]) < 0.2
    chroma = np.hypot(target[1], target[2])
    if chroma > 0.02:
        found = np.median(new[..., 1:].reshape(-1, 2), axis=0)
        turn = np.angle(complex(*found) / complex(*target[1:]))
        assert abs(turn) < 0.06
        assert np.hypot(*found) > 0.7 * chroma
    else:
        assert np.hypot(new[..., 1], new[..., 2]).max() < 0.01
    # shading: lightness keeps its order, so folds and weave are where they were
    assert np.corrcoef(old[..., 0].ravel(), new[..., 0].ravel())[0, 1] > 0.97
    assert new[..., 0].std() > 0.4 * old[..., 0].std()


def test_recolor_to_its_own_color_changes_little_and_flat_painting_is_told_apart():
    pixels = cloth((150, 40, 60))
    alpha = np.ones(pixels.shape[:2], np.float32)
    middle = np.median(pixels.reshape(-1, 3), axis=0).astype(int)
    result = operations.recolor(pixels, alpha, tuple(middle.tolist()))
    distance = np.linalg.norm(oklab_from_srgb(result) - oklab_from_srgb(pixels), axis=-1)
    assert distance.mean() < 0.02
    flat = np.broadcast_to(middle.astype(np.uint8), pixels.shape)
    assert np.linalg.norm(oklab_from_srgb(flat) - oklab_from_srgb(pixels), axis=-1).mean() > 2 * distance.mean()


def test_recolor_golden_numbers():
    gray = np.array([[[40, 40, 40], [128, 128, 128], [230, 230, 230]]], np.uint8)
    result = operations.recolor(gray, np.ones((1, 3), np.float32), (0, 0, 128))
    assert np.abs(result.astype(int)[0] - GOLDEN).max() <= 1


GOLDEN = [[0, 1, 28], [2, 25, 109], [44, 80, 164]]


def test_strength_scales_the_change():
    pixels = cloth((60, 120, 200))
    full = operations.recolor(pixels, np.ones(pixels.shape[:2], np.float32), (220, 20, 60))
    half = operations.recolor(pixels, np.full(pixels.shape[:2], 0.5, np.float32), (220, 20, 60))
    np.testing.assert_allclose(half, (pixels.astype(float) + full) / 2, atol=1)


def test_tone_of_nothing_changes_nothing():
    pixels = noise()
    result = operations.tone(pixels, np.ones(pixels.shape[:2], np.float32))
    assert np.abs(result.astype(int) - pixels).max() <= 1


def test_tones_do_what_they_say():
    pixels = cloth((90, 120, 150))
    ones = np.ones(pixels.shape[:2], np.float32)
    old = oklab_from_srgb(pixels)

    def lab(**amounts):
        return oklab_from_srgb(operations.tone(pixels, ones, **amounts))

    assert lab(brightness=0.5)[..., 0].mean() > old[..., 0].mean() + 0.05
    assert lab(brightness=-0.5)[..., 0].mean() < old[..., 0].mean() - 0.05
    assert lab(contrast=0.5)[..., 0].std() > 1.3 * old[..., 0].std()
    assert lab(contrast=-1)[..., 0].std() < 0.01
    assert np.hypot(*np.moveaxis(lab(saturation=-1)[..., 1:], -1, 0)).max() < 0.01
    chroma = np.hypot(old[..., 1], old[..., 2])
    more = lab(saturation=0.5)
    np.testing.assert_allclose(np.hypot(more[..., 1], more[..., 2]), 1.5 * chroma, atol=0.012)
    assert lab(temperature=1)[..., 2].mean() > old[..., 2].mean() + 0.02
    assert lab(temperature=-1)[..., 2].mean() < old[..., 2].mean() - 0.02


def test_black_and_white_survive_every_brightness():
    pixels = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
    for amount in (-1.0, -0.4, 0.4, 1.0):
        assert np.array_equal(operations.tone(pixels, np.ones((1, 2), np.float32), brightness=amount), pixels)


def test_blur_lets_nothing_in_and_nothing_out():
    pixels, inside = noise(), region()
    alpha = np.maximum(feather(inside, 12), inside)
    result = operations.blur(pixels, alpha, 8, inside)
    other = pixels.copy()
    other[~inside] = 255 - other[~inside]
    # what the surroundings are does not matter inside ...
    assert np.array_equal(result[inside], operations.blur(other, alpha, 8, inside)[inside])
    # ... and of the region's detail nothing remains, not even at its edge
    assert np.abs(np.diff(result[20:70, 30:95].astype(int), axis=1)).max() < 25
    assert np.abs(np.diff(pixels[20:70, 30:95].astype(int), axis=1)).max() > 200


def test_pixelate_leaves_one_color_per_square_the_mean_of_the_regions_own_pixels():
    pixels, inside = noise(), region()
    inside[40:44, 50:60] = False
    result = operations.pixelate(pixels, inside.astype(np.float32), 16)
    for top in range(20, 70, 16):
        for left in range(30, 95, 16):
            square = np.zeros_like(inside)
            square[top : top + 16, left : left + 16] = True
            square &= inside
            colors = np.unique(result[square], axis=0)
            assert len(colors) == 1
            np.testing.assert_allclose(colors[0], pixels[square].mean(axis=0), atol=0.51)


def test_two_regions_that_differ_only_inside_squares_pixelate_alike():
    pixels, inside = noise(), region()
    shuffled = pixels.copy()
    shuffled[20:28, 30:38] = pixels[20:28, 30:38][::-1, ::-1]
    alpha = inside.astype(np.float32)
    assert np.array_equal(operations.pixelate(pixels, alpha, 8), operations.pixelate(shuffled, alpha, 8))


def test_background_keeps_the_region_and_replaces_the_rest():
    pixels, alpha = noise(), feather(region(), 6)
    picture = noise(7)
    for behind in (picture, np.array((1, 2, 3))):
        result = operations.replace_background(pixels, alpha, behind)
        assert np.array_equal(result[alpha == 1], pixels[alpha == 1])
        assert np.array_equal(result[alpha == 0], np.broadcast_to(behind, pixels.shape)[alpha == 0])


def test_cut_out_hides_nothing_behind_transparency():
    pixels, soft = noise(), feather(region(), 6)
    colors, alpha = operations.cut_out(pixels, soft)
    assert np.array_equal(colors[soft == 1], pixels[soft == 1])
    assert not colors[alpha == 0].any()
    assert (alpha[soft == 0] == 0).all()
    assert (alpha[soft == 1] == 255).all()
    _, half = operations.cut_out(pixels, soft, strength=0.5)
    assert (half[soft == 0] == 128).all()


def test_the_old_background_leaves_no_halo():
    # a blue region before a red wall, the border mixed as a lens does it
    soft = feather(region(), 8)
    blue, red, green = np.array((30, 60, 200.0)), np.array((220, 30, 20.0)), np.array((20, 200, 40))
    mixed = np.rint(soft[..., None] * blue + (1 - soft[..., None]) * red).astype(np.uint8)
    ideal = np.rint(soft[..., None] * blue + (1 - soft[..., None]) * green)
    edge = (soft > 0) & (soft < 1)
    halo = np.abs(operations.replace_background(mixed, soft, green) - ideal)[edge].mean()
    naive = np.abs(operations.blend(np.broadcast_to(green, mixed.shape), mixed, soft) - ideal)[edge].mean()
    assert halo < naive / 4


@pytest.mark.parametrize(("height", "width"), [(40, 40), (20, 90), (90, 20), (1, 1)])
def test_cover_fits_and_keeps_the_middle(height, width):
    picture = np.zeros((60, 100, 3), np.uint8)
    picture[28:32, 48:52] = 255
    result = operations.fit_cover(picture, height, width)
    assert result.shape == (height, width, 3)
    weight = result[..., 0].astype(float)
    y, x = np.mgrid[:height, :width]
    assert abs((weight * (y + 0.5)).sum() / weight.sum() - height / 2) < 0.5
    assert abs((weight * (x + 0.5)).sum() / weight.sum() - width / 2) < 0.5


def test_cover_does_not_stretch():
    y, x = np.mgrid[:200, :400]
    disc = ((y - 100) ** 2 + (x - 200) ** 2 < 50**2).astype(np.uint8)[..., None].repeat(3, 2) * 255
    found = operations.fit_cover(disc, 300, 300)[..., 0] > 127
    assert abs(found.any(axis=0).sum() - found.any(axis=1).sum()) <= 1
    assert abs(found.any(axis=0).sum() - 150) <= 2

import json

import numpy as np
import pytest

from imagesmith.core.errors import BadInput, UnknownRegion
from imagesmith.core.requests import EditRequest
from imagesmith.editing import operations
from imagesmith.editing.edit import ORDER, edit
from imagesmith.image.decode import Photo, decode_image
from imagesmith.image.masks import grow
from imagesmith.image.metadata import read_record


def run(photo, see, region="blouse", **options):
    return edit(photo, EditRequest(region=region, **options), see, version="1.2.3")


EVERY = {
    "recolor": {"recolor": "crimson"},
    "blur": {"blur": 4},
    "pixelate": {"pixelate": 6},
    "brightness": {"brightness": 0.4},
    "contrast": {"contrast": 0.4},
    "saturation": {"saturation": 0.9},
    "temperature": {"temperature": 0.9},
}


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("shape", [{}, {"feather": 9}, {"feather": 0}, {"grow": 5}, {"grow": -5, "feather": 3}])
def test_outside_the_feather_every_pixel_is_bit_equal(one, photo, make, name, shape):
    result = run(photo, one, **EVERY[name], **shape)
    feather = shape.get("feather", 2.0)
    region = grow(make.mask((36, 34, 64, 64)), shape.get("grow", 0))
    # what is meant to hide takes the soft edge outside the region, so that all of it is hidden
    reach = feather + 1.5 if name == "blur" else 0 if name == "pixelate" else feather / 2 + 0.5
    outside = ~grow(region, reach) if reach else ~region
    assert np.array_equal(result.pixels[outside], photo.pixels[outside])
    core = grow(region, -feather / 2 - 0.5)
    assert (result.pixels[core] != photo.pixels[core]).any(axis=-1).mean() > 0.8
    assert result.alpha is None


@pytest.mark.parametrize("options", [{"background": "white"}, {"cut_out": True}])
def test_around_the_region_changes_and_inside_stays_bit_equal(one, photo, options):
    result = run(photo, one, region="person", feather=4, **options)
    assert np.array_equal(result.pixels[result.mask == 1], photo.pixels[result.mask == 1])
    if "background" in options:
        assert (result.pixels[result.mask == 0] == 255).all()
    else:
        assert not result.pixels[result.mask == 0].any()
        assert np.array_equal(result.alpha == 255, result.mask > 254.5 / 255)
        assert np.array_equal(result.alpha == 0, result.mask < 0.5 / 255)


def test_a_picture_as_background_covers(one, photo):
    picture = Photo(np.full((30, 300, 3), (9, 99, 200), np.uint8), name="beach.jpg")
    result = edit(photo, EditRequest(region="person", background="/home/me/beach.jpg"), one, background_photo=picture)
    assert (result.pixels[result.mask == 0] == (9, 99, 200)).all()
    assert result.record["request"]["background"] == "beach.jpg"


def test_operations_of_one_request_follow_the_documented_order(one, photo):
    result = run(photo, one, feather=0, pixelate=5, recolor="navy", brightness=0.3)
    mask = result.mask
    expected = operations.recolor(photo.pixels, mask, (0, 0, 128))
    expected = operations.tone(expected, mask, brightness=0.3)
    expected = operations.pixelate(expected, mask, 5)
    assert np.array_equal(result.pixels, expected)
    assert result.record["operations"] == ["recolor", "brightness", "pixelate"]


def test_strength_0_changes_nothing(one, photo):
    for options in EVERY.values():
        assert np.array_equal(run(photo, one, strength=0, **options).pixels, photo.pixels)
    assert np.array_equal(run(photo, one, strength=0, background="red").pixels, photo.pixels)
    assert (run(photo, one, strength=0, cut_out=True).alpha == 255).all()


def test_blurring_a_face_leaves_none_of_it(one, photo):
    other_pixels = photo.pixels.copy()
    other_pixels[34:64, 36:64] = other_pixels[34:64, 36:64][::-1]
    hidden = run(photo, one, blur=30, feather=8).pixels.astype(int)
    # a region turned upside down blurs to much the same: the detail is gone, at the soft edge too
    other = run(Photo(other_pixels), one, blur=30, feather=8).pixels.astype(int)
    assert np.abs(hidden - other).max() < 40
    assert np.abs(photo.pixels.astype(int) - other_pixels).max() > 200


def test_growing_and_shrinking(one, photo):
    plain, more, less = (run(photo, one, grow=by, feather=0, recolor="red").mask.sum() for by in (0, 4, -4))
    assert less == (28 - 8) * (30 - 8)
    assert plain == 28 * 30
    assert more > 36 * 36
    with pytest.raises(BadInput, match=r'Nothing is left of "blouse" when it shrinks by 50 pixels'):
        run(photo, one, grow=-50, recolor="red")


def test_no_operation_lists_them_all(one, photo):
    with pytest.raises(BadInput, match='nothing to do with "blouse": give at least one of') as caught:
        run(photo, one)
    assert all(name in str(caught.value) for name in ORDER)
    assert not one.asked


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recolor": "crimsom"}, 'Did you mean "crimson"'),
        ({"background": "biege"}, 'neither a colour nor a picture that was read. Did you mean "beige"'),
        ({"background": "white", "cut_out": True}, "give either background or cut_out"),
        ({"region": "hair +", "recolor": "red"}, "ends at column 7"),
    ],
)
def test_mistakes_are_told_before_any_model_runs(one, photo, options, message):
    with pytest.raises(BadInput, match=message):
        run(photo, one, **options)
    assert not one.asked


def test_an_absent_region(one, photo):
    with pytest.raises(UnknownRegion, match=r"In the photograph: jeans"):
        run(photo, one, region="dress", recolor="red")


def test_a_transparent_photograph_keeps_its_transparency(one, photo, make):
    alpha = np.full((120, 100), 255, np.uint8)
    alpha[:, :50] = 40
    see_through = Photo(photo.pixels, name="photo.png", alpha=alpha)
    assert np.array_equal(run(see_through, one, recolor="red").alpha, alpha)
    cut = run(see_through, one, cut_out=True)
    assert cut.alpha[50, 40] == 40
    assert cut.alpha[50, 60] == 255
    assert cut.alpha[5, 5] == 0
    assert run(see_through, one, background="red").alpha is None


def test_the_record_says_what_was_done_and_no_place_of_this_machine(one):
    pixels = np.zeros((120, 100, 3), np.uint8)
    photo = Photo(pixels, name="/home/me/holiday/photo.png")
    record = run(photo, one, region="left boot", recolor="crimson", grow=1, model="/home/me/models/mine").record
    assert json.loads(json.dumps(record)) == record
    assert "/home" not in json.dumps(record)
    assert record["made_by"] == "imagesmith 1.2.3"
    assert record["image"] == "photo.png"
    assert record["request"] == {"region": "left boot", "recolor": "crimson", "grow": 1, "model": "mine"}
    assert record["operations"] == ["recolor"]
    assert record["region"] == {"text": "left boot", "share": 80 / 12000, "box_xyxy": [54, 100, 62, 110]}
    assert record["models"] == ["clothes-model"]
    assert "wearer's left" in record["notes"][0]


def test_saved_pictures_carry_the_record(one, photo, tmp_path):
    result = run(photo, one, recolor="crimson")
    path = result.save(tmp_path / "new.png")
    assert np.array_equal(decode_image(path).pixels, result.pixels)
    assert read_record(path) == result.to_dict()
    with pytest.raises(BadInput, match="JPEG has no transparency"):
        run(photo, one, cut_out=True).save(tmp_path / "new.jpg")


@pytest.mark.parametrize("size", [(1, 1), (1, 8), (6, 1)])
def test_tiny_photographs(make, size):
    photo = Photo(np.full((*size, 3), 90, np.uint8))
    see = make.see(make.labels(make.sets["CCP-59"], {"dress": [(0, 0, size[1], size[0])]}, size=size), boxes=[])
    for options in [*EVERY.values(), {"cut_out": True}, {"background": "red"}]:
        for region in ("dress", "person", "everything", "point:0,0", "person 1"):
            assert run(photo, see, region=region, **options).pixels.shape == (*size, 3)

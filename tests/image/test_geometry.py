import numpy as np
import pytest
from PIL import Image

from imagesmith.core.errors import BadInput
from imagesmith.core.specs import Preprocessing
from imagesmith.image.geometry import Crop, resize, target_size, to_input

HALF = (0.5, 0.5, 0.5)
SIZES = [(48, 64), (37, 51), (1, 90), (90, 1), (33, 100), (108, 192), (80, 106), (22, 22), (81, 79), (1, 1)]


def processors():
    """Transformers' processors, named directly, beside the record that stands for each."""
    from transformers.models.detr.image_processing_pil_detr import DetrImageProcessorPil
    from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    square = {"height": 56, "width": 48}
    edges = {"shortest_edge": 80, "longest_edge": 133}
    vit = {"image_mean": HALF, "image_std": HALF}
    return {
        "segformer": (SegformerImageProcessorPil(size=square), Preprocessing(height=56, width=48)),
        "vit": (ViTImageProcessorPil(size=square, **vit), Preprocessing(height=56, width=48, mean=HALF, std=HALF)),
        "vit bicubic": (
            ViTImageProcessorPil(size=square, resample=3, rescale_factor=1 / 127.5, **vit),
            Preprocessing(height=56, width=48, mean=HALF, std=HALF, resample="bicubic", rescale_factor=1 / 127.5),
        ),
        "vit nearest": (
            ViTImageProcessorPil(size=square, resample=0, **vit),
            Preprocessing(height=56, width=48, mean=HALF, std=HALF, resample="nearest"),
        ),
        "detr": (DetrImageProcessorPil(size=edges, do_pad=False), Preprocessing(shortest_edge=80, longest_edge=133)),
    }


@pytest.mark.parametrize("name", ["segformer", "vit", "vit bicubic", "vit nearest", "detr"])
def test_inputs_are_bit_equal_to_transformers(name):
    processor, preprocessing = processors()[name]
    rng = np.random.default_rng(0)
    compared = 0
    for height, width in SIZES:
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        size = target_size(height, width, preprocessing)
        ours = to_input(pixels, preprocessing, size)
        assert ours.shape == (3, *size)
        assert ours.dtype == np.float32
        if name == "detr" and min(height, width) == 1 and max(height, width) > 1:
            continue  # theirs would have a side of 0 pixels
        theirs = processor(images=[pixels], return_tensors="np", input_data_format="channels_last")["pixel_values"][0]
        assert np.array_equal(ours, theirs), (height, width)
        compared += 1
    assert compared >= 8


def test_detr_sizes_equal_transformers_everywhere():
    from transformers.image_transforms import get_size_with_aspect_ratio

    rng = np.random.default_rng(1)
    rule = Preprocessing(shortest_edge=800, longest_edge=1333)
    for height, width in rng.integers(20, 4000, (2000, 2)):
        theirs = get_size_with_aspect_ratio((int(height), int(width)), 800, 1333)
        assert target_size(int(height), int(width), rule) == theirs


@pytest.mark.parametrize(
    ("hw", "rule", "resolution", "expected"),
    [
        ((1080, 1920), {"height": 512, "width": 512}, None, (512, 512)),
        ((1080, 1920), {"height": 512, "width": 384}, 1024, (1024, 768)),
        ((480, 640), {"shortest_edge": 800, "longest_edge": 1333}, None, (800, 1066)),
        ((480, 640), {"shortest_edge": 800, "longest_edge": 1333}, 667, (400, 533)),
        ((480, 640), {"shortest_edge": 240}, None, (240, 320)),
        ((1000, 520), {"longest_edge": 288, "multiple_of": 32}, None, (288, 160)),
        ((500, 1000), {"longest_edge": 288, "multiple_of": 32}, 576, (288, 576)),
        ((1, 10_000), {"longest_edge": 288, "multiple_of": 32}, None, (32, 288)),
        ((1, 10_000), {"shortest_edge": 800, "longest_edge": 1333}, None, (1, 1333)),
        ((1, 1), {"shortest_edge": 800, "longest_edge": 1333}, None, (800, 800)),
    ],
)
def test_target_size(hw, rule, resolution, expected):
    assert target_size(*hw, Preprocessing(**rule), resolution) == expected


def test_a_rule_without_a_size_is_refused():
    with pytest.raises(BadInput, match="longest_edge"):
        target_size(10, 10, Preprocessing())


def test_resize_equals_pillow_for_bytes_and_floats():
    rng = np.random.default_rng(2)
    for pixels in (rng.integers(0, 256, (31, 47, 3), np.uint8), rng.random((31, 47), np.float32)):
        theirs = np.asarray(Image.fromarray(pixels).resize((20, 60), Image.Resampling.BILINEAR))
        assert np.array_equal(resize(pixels, (60, 20)), theirs)
    view = rng.integers(0, 256, (31, 47, 3), np.uint8)[:, ::-1]
    assert np.array_equal(resize(view, (31, 47)), view)


# --- crops ------------------------------------------------------------------------------------------------------------


def test_a_crop_and_its_way_back_leave_every_pixel():
    photo = np.random.default_rng(3).integers(0, 256, (40, 60, 3), np.uint8)
    crop = Crop.around((10, 5, 30, 25), (40, 60), 1.5)
    part = crop.cut(photo)
    assert np.array_equal(part, photo[0:30, 5:35])
    assert np.array_equal(crop.paste(photo, part), photo)
    changed = crop.paste(photo, np.zeros_like(part))
    assert (changed[0:30, 5:35] == 0).all()
    changed[0:30, 5:35] = photo[0:30, 5:35]
    assert np.array_equal(changed, photo)


def test_points_and_boxes_go_there_and_back():
    crop = Crop((10, 20, 50, 100), (120, 200), (40, 80))
    points = np.random.default_rng(4).uniform(0, 100, (7, 3, 2))
    assert np.allclose(crop.points_to_crop(crop.points_to_photo(points)), points)
    assert crop.points_to_photo(np.array([[0.0, 0], [80, 40]])).tolist() == [[10, 20], [50, 100]]
    assert crop.boxes_to_photo(np.array([[0.0, 0, 80, 40]])).tolist() == [[10, 20, 50, 100]]
    assert crop.boxes_to_crop(np.array([[10.0, 20, 50, 100]])).tolist() == [[0, 0, 80, 40]]
    assert crop.boxes_to_crop(np.zeros((0, 4))).shape == (0, 4)


def test_a_resized_crop_lies_where_its_points_say():
    """A marked pixel must be found, by pixels and by coordinates, at the same place."""
    photo = np.zeros((60, 80), bool)
    photo[32:34, 44:46] = True
    crop = Crop((20, 20, 60, 40), (60, 80), (80, 160))
    part = crop.cut(photo, "nearest")
    ys, xs = np.nonzero(part)
    box = crop.boxes_to_crop(np.array([44.0, 32, 46, 34]))
    assert [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] == box.tolist()
    assert np.array_equal(crop.place(part), photo)


def test_labels_are_placed_whole():
    crop = Crop((2, 1, 6, 5), (8, 9), (2, 2))
    labels = np.array([[1, 2], [3, 4]], np.uint8)
    whole = crop.place(labels, fill=255)
    assert whole.shape == (8, 9)
    assert np.array_equal(whole[1:5, 2:6], labels.repeat(2, axis=0).repeat(2, axis=1))
    whole[1:5, 2:6] = 255
    assert (whole == 255).all()


def test_soft_masks_and_masks_can_be_placed_smoothly():
    crop = Crop((0, 0, 40, 40), (40, 50), (10, 10))
    soft = np.zeros((10, 10), np.float32)
    soft[:, 5:] = 1
    whole = crop.place(soft, resample="bilinear")
    assert 0 < whole[20, 20] < 1
    assert whole[20, 39] == 1
    assert crop.place(soft > 0.5, resample="bilinear").sum() == 40 * 20
    with pytest.raises(BadInput, match="int64"):
        crop.place(soft.astype(np.int64), resample="bilinear")


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((10, 10, 20, 20), (5, 5, 25, 25)),
        ((-40, -40, 5, 5), (0, 0, 28, 28)),
        ((90, 40, 130, 60), (70, 30, 100, 50)),
        ((30, 30, 30, 30), (30, 30, 31, 31)),
        ((500, 500, 600, 600), (99, 49, 100, 50)),
        ((10.4, 10.6, 11.2, 11.4), (10, 10, 12, 12)),
    ],
)
def test_around_stays_inside_and_never_empty(box, expected):
    assert Crop.around(box, (50, 100), 2).box_xyxy == expected


def test_crops_that_do_not_fit_are_refused():
    with pytest.raises(BadInput, match="inside the photograph"):
        Crop((0, 0, 11, 5), (10, 10))
    with pytest.raises(BadInput, match="but the array is"):
        Crop((0, 0, 5, 5), (10, 10)).cut(np.zeros((9, 10)))
    with pytest.raises(BadInput, match="but the array is"):
        Crop((0, 0, 5, 5), (10, 10)).place(np.zeros((4, 5)))

"""Finding the head: drawn persons whose head's place is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from imagesmith.image.photo import Photo
from imagesmith.image.results import Detections, Segmentation
from imagesmith.vision.heads import crop_head, reads_faces

NAMES = ("background", "hair", "skin", "dress", "hat")


def disc(shape: tuple[int, int], y: float, x: float, height: float, width: float) -> np.ndarray:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return ((rows - y) / height) ** 2 + ((columns - x) / width) ** 2 < 1


def person(size_hw: tuple[int, int] = (1200, 800), *, x: int = 400, scale: float = 1.0) -> np.ndarray:
    """A standing person: hair down to the chest, face, neck, bare arms and legs, a dress; the head is 90..250 high."""
    labels = np.zeros(size_hw, np.uint8)
    rows, columns = np.ogrid[: size_hw[0], : size_hw[1]]

    def box(top: float, bottom: float, left: float, right: float) -> np.ndarray:
        return (
            (rows >= top * scale)
            & (rows < bottom * scale)
            & (columns >= x + left * scale)
            & (columns < x + right * scale)
        )

    labels[box(300, 800, -110, 110)] = 3
    labels[box(300, 700, -160, -110) | box(300, 700, 110, 160)] = 2  # arms, joined to the neck by shoulders
    labels[box(270, 300, -160, 160) | box(230, 300, -30, 30) | box(800, 1150, -80, -20) | box(800, 1150, 20, 80)] = 2
    labels[disc(size_hw, 170 * scale, x, 80 * scale, 65 * scale)] = 1
    labels[box(170, 400, -65, -45) | box(170, 400, 45, 65)] = 1  # long hair
    labels[disc(size_hw, 180 * scale, x, 65 * scale, 45 * scale)] = 2
    return labels


def segmented(labels: np.ndarray) -> tuple[Photo, Segmentation]:
    photo = Photo(np.zeros((*labels.shape, 3), np.uint8), "p.png")
    return photo, Segmentation(labels, NAMES, "fake", "p.png")


def test_the_head_of_a_standing_person_is_cut_out() -> None:
    crop = crop_head(*segmented(person()), None)
    assert crop is not None
    left, top, right, bottom = crop.box_xyxy
    assert right - left == bottom - top
    assert left < 335
    assert right > 465  # all of the head's width
    assert top < 90
    assert bottom > 250  # from crown to chin
    assert 200 < right - left < 400  # and not much more: the arms begin at 300
    assert crop.photo.pixels.shape == (bottom - top, right - left, 3)
    assert "only at the head" in crop.note


def test_a_hat_belongs_to_the_head() -> None:
    labels = person()
    labels[60:110, 330:470] = 4
    crop = crop_head(*segmented(labels), None)
    assert crop is not None
    assert crop.box_xyxy[1] < 60


def test_the_largest_person_is_taken() -> None:
    labels = np.maximum(person((1200, 1600), x=400, scale=0.5), person((1200, 1600), x=1100))
    crop = crop_head(*segmented(labels), None)
    assert crop is not None
    assert crop.box_xyxy[0] > 900


def test_a_hand_above_the_head_and_specks_do_not_count() -> None:
    labels = person()
    labels[20:24, 600:604] = 2
    labels[30:34, 340:344] = 1
    crop = crop_head(*segmented(labels), None)
    assert crop is not None
    assert crop.box_xyxy[1] > 20


def test_large_stray_regions_do_not_count_as_heads() -> None:
    """As a weak network gives them: a hair-coloured flag in the upper corner, and a patch of skin above the head."""
    labels = person()
    labels[:200, :120] = 1
    labels[0:60, 600:780] = 2
    crop = crop_head(*segmented(labels), None)
    assert crop is not None
    assert crop.box_xyxy[0] > 200
    assert crop.box_xyxy[2] < 600


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_a_strand_that_stands_up_and_the_scale_do_not_matter(step: int) -> None:
    labels = person()
    labels[75:95, 398:403] = 1
    crop = crop_head(*segmented(labels[::step, ::step]), None)
    assert crop is not None
    left, top, right, bottom = (side * step for side in crop.box_xyxy)
    assert left < 340
    assert right > 460
    assert top < 90
    assert 245 < bottom < 420


def test_a_bald_head_is_the_topmost_skin() -> None:
    labels = person()
    labels[labels == 1] = 0
    labels[disc(labels.shape, 170, 400, 75, 55)] = 2
    crop = crop_head(*segmented(labels), None)
    assert crop is not None
    assert crop.box_xyxy[1] < 100
    assert crop.box_xyxy[3] < 500


def test_a_portrait_is_not_cropped() -> None:
    labels = np.zeros((300, 250), np.uint8)
    labels[disc((300, 250), 150, 125, 120, 95)] = 2
    assert crop_head(*segmented(labels), None) is None


def test_nobody_no_crop() -> None:
    assert crop_head(*segmented(np.zeros((100, 100), np.uint8)), None) is None
    photo, _ = segmented(np.zeros((100, 100), np.uint8))
    assert crop_head(photo, None, None) is None
    assert crop_head(photo, None, detections(np.zeros((0, 4)), ())) is None


def detections(boxes: np.ndarray, labels: tuple[str, ...]) -> Detections:
    count = len(labels)
    return Detections(
        boxes.astype(np.float32),
        np.full(count, 0.9, np.float32),
        np.zeros(count, np.int64),
        labels,
        "m",
        "p",
        (1200, 800),
    )


def test_without_labels_the_upper_part_of_the_largest_persons_box() -> None:
    photo, _ = segmented(person())
    boxes = np.array([[240, 90, 560, 1150], [600, 600, 700, 800], [0, 0, 800, 1200]])
    crop = crop_head(photo, None, detections(boxes, ("person", "person", "sofa")))
    assert crop is not None
    left, top, right, bottom = crop.box_xyxy
    assert left < 335
    assert right > 465
    assert top <= 90
    assert 250 < bottom < 450
    assert "person's box" in crop.note


def test_detections_are_asked_for_only_where_no_head_is_seen() -> None:
    def never() -> Detections:
        raise AssertionError("asked for detections")

    assert crop_head(*segmented(person()), never) is not None
    portrait = np.zeros((300, 250), np.uint8)
    portrait[disc((300, 250), 150, 125, 120, 95)] = 2
    assert crop_head(*segmented(portrait), never) is None  # a head, but nothing to crop
    nobody = np.zeros((1200, 800), np.uint8)
    boxes = detections(np.array([[240, 90, 560, 1150]]), ("person",))
    assert crop_head(*segmented(nobody), lambda: boxes) is not None


@pytest.mark.parametrize("size_hw", [(1, 1), (3, 500), (500, 2)])
def test_odd_sizes(size_hw: tuple[int, int]) -> None:
    labels = np.full(size_hw, 2, np.uint8)
    crop = crop_head(*segmented(labels), None)
    assert crop is None or crop.photo.pixels.size > 0


def test_alpha_is_cropped_too() -> None:
    photo, segmentation = segmented(person())
    with_alpha = Photo(photo.pixels, "p", alpha=np.full(photo.size_hw, 255, np.uint8))
    crop = crop_head(with_alpha, segmentation, None)
    assert crop is not None
    assert crop.photo.alpha is not None
    assert crop.photo.alpha.shape == crop.photo.pixels.shape[:2]


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("starter/gender", ("female", "male"), True),
        ("someone/my-net", ("Woman", "Man"), True),
        ("someone/facial-emotion", ("happy", "sad"), True),
        ("google/vit-base-patch16-224", ("tench", "goldfish"), False),
        ("someone/image-classifier", (), False),
    ],
)
def test_which_models_read_faces(make_spec: Any, name: str, labels: tuple[str, ...], expected: bool) -> None:
    assert reads_faces(make_spec("classify", labels, name=name)) is expected

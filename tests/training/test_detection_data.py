"""Boxes from COCO files and from maps of parts, composed scenes, and the dense helper's targets."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from imagesmith.core.errors import BadInput
from imagesmith.training.augment import Window
from imagesmith.training.dense_detection import DenseHead, cell_centres, dense_loss, dense_targets
from imagesmith.training.detect_settings import SceneSettings
from imagesmith.training.detection import (
    DETECT_LABELS,
    GARMENT_GROUPS,
    BoxPhoto,
    DressedPerson,
    clean_boxes,
    load_coco,
    load_people,
    part_boxes,
    part_table,
    photo_of,
    without_specks,
)
from imagesmith.training.matcher import DetectionTargets, pad_targets
from imagesmith.training.scenes import (
    DetectionExample,
    ScenePool,
    crop_boxes,
    draw_example,
    mirror,
    person_free_windows,
)

CLASSES = len(DETECT_LABELS)
PERSON, TOP, PANTS = (DETECT_LABELS.index(name) for name in ("person", "top", "pants"))


def _coco(folder: Path, names: int = 9) -> Path:
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for i in range(names):
        Image.new("RGB", (40, 30), (i, i, i)).save(folder / "images" / f"{i:02}.png")
        images.append({"id": 100 - i, "file_name": f"{i:02}.png", "width": 40, "height": 30})
        annotations.append({"id": i, "image_id": 100 - i, "category_id": 90, "bbox": [5, 5, 10, 20], "iscrowd": 0})
    categories = [{"id": 90, "name": "person"}, {"id": 13, "name": "stop sign"}]
    table = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(table), encoding="utf-8")
    return folder


def _edit(folder: Path, change: dict[str, object]) -> None:
    path = folder / "annotations.json"
    table = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**table, **change}), encoding="utf-8")


def _person(seed: int = 0) -> DressedPerson:
    """A made-up person: a top over pants, 40 wide and 120 high, in the middle of 100 x 150."""
    rng = np.random.default_rng(seed)
    parts = np.zeros((150, 100), np.uint8)
    parts[15:135, 30:70] = 1
    parts[35:75, 30:70] = TOP + 1
    parts[75:125, 35:65] = PANTS + 1
    image = rng.integers(0, 256, (150, 100, 3), dtype=np.uint8)
    return DressedPerson("made up", image, parts, np.ones(CLASSES, bool))


# --- COCO ---------------------------------------------------------------------------------------------------------


def test_categories_are_mapped_by_name_whatever_their_ids(tmp_path: Path) -> None:
    photos = load_coco(_coco(tmp_path), ("hat", "person"))
    assert [photo.name for photo in photos] == [f"{i:02}.png" for i in range(9)]
    assert photos[0].labels.tolist() == [1]
    assert photos[0].boxes_xyxy.tolist() == [[5, 5, 15, 25]]
    assert photos[0].labelled.tolist() == [False, True]  # no hats were drawn here


def test_every_eighth_file_is_for_validation(tmp_path: Path) -> None:
    folder = _coco(tmp_path)
    assert [photo.name for photo in load_coco(folder, ("person",), "val")] == ["00.png", "08.png"]
    assert len(load_coco(folder, ("person",), "train")) == 7


def test_crowds_are_left_out_and_make_their_class_unlabelled(tmp_path: Path) -> None:
    folder = _coco(tmp_path)
    crowd = {"id": 50, "image_id": 100, "category_id": 90, "bbox": [0, 0, 40, 30], "iscrowd": 1}
    _edit(folder, {"annotations": [crowd]})
    photos = load_coco(folder, ("person",))
    assert not photos[0].labelled.any()
    assert photos[1].labelled.all()
    assert not len(photos[0].boxes_xyxy)
    assert len(photos) == 9  # images without annotation are negatives, and stay


@pytest.mark.parametrize(
    ("box", "expected"),
    [([-5, -5, 20, 20], [[0, 0, 15, 15]]), ([35, 20, 20, 20], [[35, 20, 40, 30]]), ([5, 5, 0, 5], []),
     ([100, 5, 5, 5], [])],
)  # fmt: skip
def test_boxes_are_clipped_and_empty_ones_dropped(box: list[int], expected: list[list[int]]) -> None:
    assert clean_boxes([box], (30, 40))[0].tolist() == expected


@pytest.mark.parametrize(
    ("text", "message"), [("{", "cannot be read"), ("[]", "lacks"), ('{"images": []}', "lacks annotations, categories")]
)
def test_a_file_that_is_no_coco_is_refused_in_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    folder = _coco(tmp_path)
    (folder / "annotations.json").write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=message):
        load_coco(folder, ("person",))


def test_a_missing_image_and_unknown_classes_are_refused(tmp_path: Path) -> None:
    folder = _coco(tmp_path)
    with pytest.raises(BadInput, match="none of the classes giraffe"):
        load_coco(folder, ("giraffe",))
    (folder / "images" / "03.png").unlink()
    with pytest.raises(BadInput, match=r"03\.png"):
        load_coco(folder, ("person",))


# --- people -------------------------------------------------------------------------------------------------------


def test_every_garment_of_the_pack_has_one_class_at_most() -> None:
    members = [name for group in GARMENT_GROUPS.values() for name in group]
    assert len(members) == len(set(members))
    assert DETECT_LABELS[0] == "person"
    assert len(set(DETECT_LABELS)) == CLASSES


def test_pack_ids_become_parts_and_unclear_ones_are_marked() -> None:
    table, unclear = part_table({0: "background", 1: "skin", 2: "jeans", 3: "suit"}, GARMENT_GROUPS)
    assert table[:4].tolist() == [0, 1, PANTS + 1, 1]
    assert unclear == {3: (DETECT_LABELS.index("outerwear"), PANTS)}


def test_boxes_of_parts_are_those_of_their_pixels() -> None:
    photo = photo_of(_person())
    assert dict(zip(photo.labels.tolist(), photo.boxes_xyxy.tolist(), strict=True)) == {
        PERSON: [30, 15, 70, 135],
        TOP: [30, 35, 70, 75],
        PANTS: [35, 75, 65, 125],
    }
    assert part_boxes(np.zeros((4, 4), np.uint8), CLASSES)[1].shape == (0, 4)


def test_specks_change_no_box() -> None:
    person = _person()
    speckled = person.parts.copy()
    speckled[2:4, 2:4] = TOP + 1
    assert part_boxes(speckled, CLASSES)[1].tolist() != photo_of(person).boxes_xyxy.tolist()  # control
    assert part_boxes(without_specks(speckled), CLASSES)[1].tolist() == photo_of(person).boxes_xyxy.tolist()


def test_people_are_read_from_masks(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    mask = np.zeros((30, 20), np.uint8)
    mask[5:25, 5:15], mask[10:20, 5:15] = 1, 2
    for i in range(2):
        Image.new("RGB", (20, 30)).save(tmp_path / "images" / f"{i}.jpg")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{i}.png")
    (tmp_path / "labels.json").write_text(json.dumps({"0": "background", "1": "suit", "2": "jeans"}), encoding="utf-8")
    (person,) = load_people(tmp_path, "val")
    assert photo_of(person).labels.tolist() == [PERSON, PANTS]
    assert not person.labelled[PANTS]
    assert person.labelled[TOP]
    Image.fromarray(mask[:5]).save(tmp_path / "masks" / "0.png")
    with pytest.raises(BadInput, match="mask of 0"):
        load_people(tmp_path, "val")
    (tmp_path / "masks" / "0.png").unlink()
    with pytest.raises(BadInput, match="mask of 0"):
        load_people(tmp_path, "val")


def test_the_clothes_pack_gives_people_with_garments() -> None:
    root = os.environ.get("IMAGESMITH_DATA")
    if not root:
        pytest.skip("IMAGESMITH_DATA is not set: the clothes pack is not here")
    people = load_people(Path(root) / "data" / "clothes-ccp", "val")
    assert len(people) == 101
    photos = [photo_of(person) for person in people]
    assert all(photo.labels[0] == PERSON for photo in photos)
    assert sum(len(photo.labels) for photo in photos) > 4 * len(photos)


# --- scenes -------------------------------------------------------------------------------------------------------


def _pool() -> ScenePool:
    street = BoxPhoto(
        "street", np.full((120, 160, 3), 90, np.uint8), np.array([[20, 10, 60, 110]], np.float32),
        np.array([PERSON]), np.arange(CLASSES) == PERSON,
    )  # fmt: skip
    backgrounds = [np.full((80, 100, 3), 30, np.uint8)]
    return ScenePool([street], [_person(0), _person(1)], backgrounds, CLASSES)


@pytest.mark.parametrize("size_hw", [(96, 64), (64, 96)], ids=str)
def test_examples_are_valid_and_follow_from_their_seed(size_hw: tuple[int, int]) -> None:
    pool, settings = _pool(), SceneSettings()
    seen, partial = set(), 0
    for seed in range(60):
        example = draw_example(pool, size_hw, settings, np.random.default_rng(seed))
        again = draw_example(pool, size_hw, settings, np.random.default_rng(seed))
        assert np.array_equal(example.image, again.image)
        assert np.array_equal(example.boxes_cxcywh, again.boxes_cxcywh)
        assert example.image.shape == (*size_hw, 3)
        assert example.image.dtype == np.uint8
        centre, size = example.boxes_cxcywh[:, :2], example.boxes_cxcywh[:, 2:]
        assert (centre - size / 2 >= -1e-5).all()
        assert (centre + size / 2 <= 1 + 1e-5).all()
        assert (size > 0).all()
        assert len(example.labels) == len(example.boxes_cxcywh)
        seen.update(example.labels.tolist())
        partial += not example.labelled.all()
    assert seen == {PERSON, TOP, PANTS}
    assert 0 < partial < 60  # the street has no garments drawn, the composed scenes have


def test_without_people_every_example_is_a_photograph() -> None:
    pool = ScenePool(_pool().photos, [], [], CLASSES)
    zoomed_out = SceneSettings(zoom=(0.5, 0.5))
    examples = [draw_example(pool, (96, 64), zoomed_out, np.random.default_rng(seed)) for seed in range(20)]
    assert all(len(example.labels) == 1 for example in examples)


def test_who_is_hidden_is_not_asked_for() -> None:
    """Many people pasted at one place: the boxes left are fewer than the people."""
    settings = SceneSettings(share_photos=0, share_people=0, share_empty=0, most_people=12, half_length=1, color=0)
    counts = [
        int((draw_example(_pool(), (96, 64), settings, np.random.default_rng(seed)).labels == PERSON).sum())
        for seed in range(20)
    ]
    assert max(counts) < 8
    assert min(counts) >= 1


def test_a_box_moves_with_the_window_and_knows_how_much_of_it_is_seen() -> None:
    boxes = np.array([[10, 10, 30, 50]], np.float32)
    moved, shares = crop_boxes(boxes, Window(20, 10, 40, 40), (80, 80))
    assert moved.tolist() == [[0, 0, 20, 80]]
    assert shares.tolist() == [0.5]


def test_mirroring_twice_is_nothing() -> None:
    image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    boxes = np.array([[0.2, 0.5, 0.1, 0.4]], np.float32)
    example = DetectionExample(image, np.array([1]), boxes, np.ones(2, bool))
    assert mirror(example).boxes_cxcywh[0].tolist() == pytest.approx([0.8, 0.5, 0.1, 0.4])
    assert np.array_equal(mirror(mirror(example)).image, image)


def test_backgrounds_are_cut_where_nobody_is() -> None:
    image = np.zeros((120, 160, 3), np.uint8)
    image[10:110, 20:60] = 255  # the person is white
    street = BoxPhoto("s", image, np.array([[20, 10, 60, 110]], np.float32), np.array([0]), np.ones(1, bool))
    windows = person_free_windows([street] * 5, np.random.default_rng(0))
    assert windows
    assert max(float((window == 255).mean()) for window in windows) < 0.1


# --- the dense helper ---------------------------------------------------------------------------------------------


def test_cells_name_the_smallest_object_of_their_class() -> None:
    large, small = [0.5, 0.5, 0.8, 0.8], [0.5, 0.5, 0.3, 0.3]
    targets = pad_targets([[0, 0, 1], []], [[large, small, small], []], ["a", "b"])
    objects, positive, counted = dense_targets(targets, cell_centres(9, 9), 2)
    middle, ring, outside = 4 * 9 + 4, 4 * 9 + 1, 0
    assert objects[0, middle].tolist() == [1, 2]
    assert positive[0, middle].tolist() == [True, True]
    assert positive[0, ring].tolist() == [False, False]
    assert counted[0, ring].tolist() == [False, True]  # in the ring of the large box, outside the other class
    assert counted[0, outside].all()
    assert not positive[1].any()
    assert counted[1].all()


def test_an_object_smaller_than_a_cell_still_has_one() -> None:
    targets = pad_targets([[0]], [[[0.52, 0.27, 0.001, 0.001]]], ["a"])
    _, positive, _ = dense_targets(targets, cell_centres(4, 4), 1)
    assert int(positive.sum()) == 1
    assert positive[0, 1 * 4 + 2, 0]


def test_classes_not_annotated_do_not_count_against() -> None:
    plain = pad_targets([[0]], [[[0.5, 0.5, 0.5, 0.5]]], ["a"], [[True, False]])
    _, _, counted = dense_targets(plain, cell_centres(4, 4), 2)
    assert not counted[..., 1].any()
    assert counted[..., 0].any()


def test_the_dense_loss_teaches_a_box() -> None:
    torch.manual_seed(0)
    head = DenseHead(16, 2)
    memory = torch.randn(1, 16, 16)
    targets = pad_targets([[1]], [[[0.4, 0.6, 0.5, 0.3]]], ["a"])
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    losses = []
    for _ in range(80):
        loss = dense_loss(head, memory, (4, 4), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    nothing = DetectionTargets(torch.zeros(1, 0, dtype=torch.int64), torch.zeros(1, 0, 4), (0,), ("a",))
    assert torch.isfinite(dense_loss(head, memory, (4, 4), nothing))

"""Result records: checked at birth, read by other tools, and drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage

from imagesmith.core.errors import BadInput, UnknownRegion
from imagesmith.image.photo import Photo
from imagesmith.image.results import UNSURE, Classification, Detections, Segmentation

NAMES = ("background", "hair", "Left-shoe", "dress", "never seen")


def labels() -> np.ndarray:
    values = np.zeros((40, 60), np.uint8)
    values[2:10, 20:30], values[30:35, 5:12], values[10:30, 15:40] = 1, 2, 3
    values[38:] = UNSURE
    return values


def segmentation(**fields: Any) -> Segmentation:
    return Segmentation(**{"labels_hw": labels(), "names": NAMES, "model": "fake", "image": "a/b c.jpg", **fields})


def detections() -> Detections:
    return Detections(
        np.array([[10, 5, 50, 35], [0, 0, 20.5, 20]], np.float32),
        np.array([0.9, 0.6], np.float32),
        np.array([1, 27]),
        ("person", "backpack"),
        "fake",
        "p.png",
        (40, 60),
    )


def classification(**fields: Any) -> Classification:
    scores = np.array([0.75, 0.25], np.float32)
    return Classification(**{"labels": ("a", "b"), "scores": scores, "model": "m", "image": "p.png", **fields})


# -- segmentation --


def test_shares_masks_and_boxes() -> None:
    result = segmentation()
    assert list(result.present()) == ["background", "dress", "hair", "Left-shoe"]
    assert result.present()["dress"] == 500 / 2400
    assert sum(result.present().values()) + result.unsure_share == pytest.approx(1)
    assert result.box_xyxy("dress") == (15, 10, 40, 30)
    assert result.box_xyxy("never seen") is None
    np.testing.assert_array_equal(result.mask("left shoe"), labels() == 2)
    assert not result.mask("never seen").any()


def test_names_are_found_however_they_are_spelt_and_near_misses_are_suggested() -> None:
    assert segmentation().ids("left_shoe") == segmentation().ids("LEFT-SHOE") == (2,)
    with pytest.raises(UnknownRegion, match=r'Did you mean "dress"\? In this photograph: background, dress, hair'):
        segmentation().mask("dres")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"labels_hw": np.zeros((3, 3), np.int64)}, "int64"),
        ({"labels_hw": np.zeros((3, 3, 1), np.uint8)}, r"\(3, 3, 1\)"),
        ({"labels_hw": np.full((3, 3), 5, np.uint8)}, "below 5.*label 5"),
        ({"names": ()}, "got 0"),
        ({"names": ("x",) * 256}, "got 256"),
        ({"confidence": np.zeros((40, 61), np.float32)}, r"confidence \(40, 60\).*\(40, 61\)"),
        ({"entropy": np.zeros((40, 60))}, "float64"),
        ({"probabilities": np.zeros((4, 40, 60), np.float32)}, r"\(5, 40, 60\)"),
    ],
)
def test_a_wrong_segmentation_cannot_be_made(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        segmentation(**fields)


def test_arrays_cannot_be_changed_and_the_callers_stay_writable() -> None:
    own = labels()
    result = segmentation(labels_hw=own)
    with pytest.raises(ValueError, match="read-only"):
        result.labels_hw[0, 0] = 3
    own[0, 0] = 1


def test_masks_are_read_by_pycocotools() -> None:
    mask_tools = pytest.importorskip("pycocotools.mask")
    record = json.loads(json.dumps(segmentation().to_dict()))
    assert [row["name"] for row in record["regions"]] == ["background", "dress", "hair", "Left-shoe"]
    for row in record["regions"]:
        np.testing.assert_array_equal(mask_tools.decode(row["rle"]), labels() == row["id"])
        assert row["area"] == (labels() == row["id"]).sum()


def test_saved_files(tmp_path: Path) -> None:
    photo = np.full((40, 60, 3), 90, np.uint8)
    maps = {"confidence": np.full((40, 60), 0.5, np.float32), "uncertainty": 0.25}
    files = segmentation(**maps).save(tmp_path / "new", photo)
    assert sorted(path.name for path in files) == sorted(
        [
            "b-c.labels.png",
            "b-c.hair.png",
            "b-c.Left-shoe.png",
            "b-c.dress.png",
            "b-c.regions.coco.json",
            "b-c.regions.json",
            "b-c.maps.npz",
            "b-c.overlay.png",
        ]
    )
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(path.name for path in files)
    saved = PillowImage.open(tmp_path / "new" / "b-c.labels.png")
    assert saved.mode == "P"
    np.testing.assert_array_equal(np.asarray(saved), labels())
    mask = PillowImage.open(tmp_path / "new" / "b-c.dress.png")
    np.testing.assert_array_equal(np.asarray(mask.convert("L")), np.where(labels() == 3, 255, 0))
    assert json.loads((tmp_path / "new" / "b-c.regions.json").read_text())["mean_confidence"] == 0.5
    with np.load(tmp_path / "new" / "b-c.maps.npz") as archive:
        assert archive["confidence"].dtype == np.float32


def test_coco_documents_are_read_by_pycocotools(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco").COCO
    segmentation().save(tmp_path)
    read = coco(str(tmp_path / "b-c.regions.coco.json"))
    assert {read.cats[row["category_id"]]["name"] for row in read.anns.values()} == {"hair", "Left-shoe", "dress"}
    for row in read.anns.values():
        np.testing.assert_array_equal(read.annToMask(row), labels() == row["category_id"])
    detections().save(tmp_path)
    read = coco(str(tmp_path / "p.boxes.coco.json"))
    assert [row["bbox"] for row in read.anns.values()] == [[10, 5, 40, 30], [0, 0, 20.5, 20]]
    assert read.cats[27]["name"] == "backpack"


def test_answers_of_different_tasks_share_a_folder(tmp_path: Path) -> None:
    photo = np.zeros((40, 60, 3), np.uint8)
    files = [
        path
        for result in (segmentation(image="p.png"), classification(), detections())
        for path in result.save(tmp_path, photo)
    ]
    assert len(files) == len(set(files)) == len(list(tmp_path.iterdir()))


def test_labels_that_share_a_file_name_get_their_id(tmp_path: Path) -> None:
    result = segmentation(names=("background", "a b", "a-b", "/", "x"), image="p")
    assert {path.name for path in result.save(tmp_path)} >= {"p.a-b-1.png", "p.a-b-2.png", "p.-3.png"}


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match="Cannot make the folder"):
        segmentation().save(tmp_path / "file")


# -- classification and detections --


def test_classification_record() -> None:
    record = json.loads(json.dumps(classification(cropped_xyxy=(1, 2, 3, 4), note="n").to_dict()))
    assert record["labels"] == [{"label": "a", "score": 0.75}, {"label": "b", "score": 0.25}]
    assert record["cropped_xyxy"] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"scores": np.array([0.2, 0.8])}, "high to low"),
        ({"scores": np.array([1.2, 0.8])}, "between 0 and 1"),
        ({"scores": np.array([np.nan, 0.8])}, "between 0 and 1"),
        ({"scores": np.array([1.0])}, "2 scores"),
        ({"scores": np.zeros(0), "labels": ()}, "at least one label"),
    ],
)
def test_a_wrong_classification_cannot_be_made(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        classification(**fields)


def test_detections_can_be_chosen() -> None:
    found = detections()
    assert len(found) == 2
    assert found.named("Backpack").labels == ("backpack",)
    assert found.take(np.array([1, 0])).scores.tolist() == pytest.approx([0.6, 0.9])
    assert len(found.take(np.zeros(2, bool))) == 0
    record = json.loads(json.dumps(found.to_dict()))
    assert record["detections"][1] == {
        "label": "backpack",
        "label_id": 27,
        "score": pytest.approx(0.6),
        "box_xyxy": [0, 0, 20.5, 20],
    }


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        ([[0, 0, 1, 1]], r"2 boxes.*\(1, 4\)"),
        ([[0, 0, 1, 1], [5, 0, 1, 1]], "end before they begin"),
        ([[0, 0, 1, 1], [0, 0, np.inf, 1]], "finite"),
    ],
)
def test_wrong_detections_cannot_be_made(boxes: list[list[float]], words: str) -> None:
    found = detections()
    with pytest.raises(BadInput, match=words):
        Detections(np.array(boxes, np.float32), found.scores, found.label_ids, found.labels, "m", "p", (40, 60))


# -- drawing --


def test_the_overlay_tints_regions_and_leaves_the_background() -> None:
    photo = Photo(np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8))
    large = labels().repeat(10, 0).repeat(10, 1)
    result = segmentation(labels_hw=large)
    picture = result.draw(photo, legend=False, opacity=0.5)
    assert picture.shape == photo.pixels.shape
    # The edge line is one pixel wide here, so pixels two away from any edge are pure.
    np.testing.assert_array_equal(picture[2:18, 2:190], photo.pixels[2:18, 2:190])
    inside = (slice(120, 280), slice(170, 380))
    expected = (photo.pixels[inside].astype(int) + result.colors()[3].astype(int)) // 2
    np.testing.assert_array_equal(picture[inside], expected)


@pytest.mark.parametrize("size_hw", [(1, 1), (40, 60), (60, 40), (700, 300), (300, 900), (5, 2000)])
def test_every_picture_gets_a_readable_legend_that_hides_nothing(size_hw: tuple[int, int]) -> None:
    values = np.zeros(size_hw, np.uint8)
    values[: size_hw[0] // 2 + 1] = 3
    result = segmentation(labels_hw=values)
    photo = np.zeros((*size_hw, 3), np.uint8)
    plain, picture = result.draw(photo, legend=False), result.draw(photo)
    assert max(plain.shape[:2]) >= 320
    np.testing.assert_array_equal(picture[: plain.shape[0], : plain.shape[1]], plain)
    assert picture.shape[0] * picture.shape[1] > plain.shape[0] * plain.shape[1]


def test_colors_are_fixed_per_label_and_apart() -> None:
    few, many = segmentation().colors(), segmentation(names=tuple(f"n{index}" for index in range(59))).colors()
    np.testing.assert_array_equal(few[1:5], many[1:5])
    distances = np.linalg.norm(many[:20, None].astype(int) - many[None, :20], axis=-1) + 999 * np.eye(20)
    assert distances.min() > 30
    assert few[0].tolist() == [0, 0, 0]


def test_another_photograph_is_refused() -> None:
    with pytest.raises(BadInput, match=r"60 x 40 pixels, but got one of 60 x 41"):
        segmentation().draw(np.zeros((41, 60, 3), np.uint8))
    with pytest.raises(BadInput, match="60 x 40"):
        detections().draw(np.zeros((4, 6, 3), np.uint8))


def test_boxes_and_bars_are_drawn() -> None:
    photo = np.zeros((400, 600, 3), np.uint8)
    assert classification(cropped_xyxy=(10, 10, 200, 200), note="word " * 60).draw(photo).shape[0] > 450
    found = detections()
    assert found.draw(np.zeros((40, 60, 3), np.uint8)).any()

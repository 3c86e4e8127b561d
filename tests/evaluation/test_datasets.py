"""Data folders as people have them, whole and broken."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from imagesmith.core.errors import BadImage, BadInput
from imagesmith.evaluation.datasets import map_labels, open_dataset, read_coco, read_labels, read_mask


def picture(path, size=(8, 6), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path)
    return path


def test_mask_folder_pairs_by_stem_and_splits(tmp_path):
    for number in range(17):
        picture(tmp_path / "images" / f"{number:02}.jpg")
        picture(tmp_path / "masks" / f"{number:02}.png", mode="L")
    picture(tmp_path / "images" / "zz.jpg")
    (tmp_path / "images" / "notes.txt").write_text("not a photograph")
    (tmp_path / "labels.json").write_text(json.dumps({"0": "background", "1": "dress"}))
    found = open_dataset("segment", tmp_path)
    assert [path.name for path in found.photos] == ["00.jpg", "08.jpg", "16.jpg"]
    assert [path.name for path in found.masks] == ["00.png", "08.png", "16.png"]
    assert found.labels == ("background", "dress")
    assert len(open_dataset("segment", tmp_path, "all").photos) == 17


def test_class_folders_keep_people_together(tmp_path):
    for person in range(16):
        for shot in range(3):
            picture(
                tmp_path / ("female" if person % 2 else "male") / f"Person_{'ABCDEFGHIJKLMNOP'[person]}_{shot:04}.jpg"
            )
    found = open_dataset("classify", tmp_path)
    assert found.group == "person"
    assert sorted({path.stem[:8] for path in found.photos}) == ["Person_A", "Person_I"]
    assert found.labels == ("female", "male")
    assert [found.labels[index] for index in found.truth] == [path.parent.name for path in found.photos]
    assert open_dataset("classify", tmp_path, group="file").group == "file"


def test_coco_folder_takes_only_the_annotations_of_its_split(tmp_path):
    images = [{"id": 9 - n, "file_name": f"{n}.jpg"} for n in range(9)]
    for image in images:
        picture(tmp_path / "images" / image["file_name"])
    truth = {
        "images": images,
        "categories": [{"id": 4, "name": "person"}],
        "annotations": [{"image_id": n, "category_id": 4, "bbox": [0, 0, 2, 2]} for n in (9, 9, 5, 1)],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(truth))
    found = open_dataset("detect", tmp_path)
    assert found.image_ids == (9, 1)
    assert [item["image_id"] for item in found.truth["annotations"]] == [9, 9, 1]
    assert [path.name for path in found.photos] == ["0.jpg", "8.jpg"]
    assert open_dataset("detect", tmp_path / "annotations.json", "all").image_ids == tuple(range(9, 0, -1))


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        ("segment", 'no folder "masks"'),
        ("classify", "one folder of photographs per class"),
        ("detect", "give a folder with annotations.json"),
    ],
)
def test_an_empty_folder_is_one_sentence(tmp_path, task, sentence):
    with pytest.raises(BadInput, match=sentence):
        open_dataset(task, tmp_path)


def test_a_missing_folder_and_an_empty_split_are_one_sentence(tmp_path):
    with pytest.raises(BadInput, match="does not exist"):
        open_dataset("segment", tmp_path / "nothing")
    picture(tmp_path / "images" / "a.jpg")
    picture(tmp_path / "masks" / "a.png", mode="L")
    with pytest.raises(BadInput, match=r'split "train" of .* has no labelled photograph'):
        open_dataset("segment", tmp_path, "train")


@pytest.mark.parametrize(
    "text", ["", "[]", '{"images": []}', '{"images": [{"id": 1}], "annotations": [], "categories": []}']
)
def test_what_is_no_coco_file_is_refused(tmp_path, text):
    path = tmp_path / "annotations.json"
    path.write_text(text)
    with pytest.raises(BadInput, match="is no COCO file"):
        read_coco(path)


def test_a_file_listed_twice_is_refused(tmp_path):
    twice = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "a.jpg"}]
    (tmp_path / "annotations.json").write_text(json.dumps({"images": twice, "annotations": [], "categories": []}))
    with pytest.raises(BadInput, match="twice"):
        open_dataset("detect", tmp_path)


def test_masks_are_class_ids_never_colours(tmp_path):
    ids = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(ids).save(tmp_path / "gray.png")
    palette = Image.fromarray(ids)
    palette.putpalette([number % 256 for number in range(768)])
    palette.save(tmp_path / "palette.png")
    assert np.array_equal(read_mask(tmp_path / "gray.png"), ids)
    assert np.array_equal(read_mask(tmp_path / "palette.png"), ids)
    with pytest.raises(BadImage, match="mode RGB"):
        read_mask(picture(tmp_path / "rgb.png"))
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(BadImage, match="cannot be read"):
        read_mask(tmp_path / "text.png")


@pytest.mark.parametrize("content", ['{"1": "a"}', "7", '{"x": "a"}', "{"])
def test_labels_must_name_every_number(tmp_path, content):
    path = tmp_path / "labels.json"
    path.write_text(content)
    with pytest.raises(BadInput, match="should be a JSON object"):
        read_labels(path)
    path.write_text('["a", "b"]')
    assert read_labels(path) == ("a", "b")


def test_labels_are_mapped_by_name_and_an_unknown_one_is_an_error_with_a_suggestion():
    assert map_labels(["Dog", "left_shoe"], ["", "left-shoe", "", "dog"], "m") == (3, 1)
    with pytest.raises(BadInput, match=r'm does not know, such as "skrit".*"skirt"'):
        map_labels(["hair", "skrit"], ["skirt", "hair"], "m")
    with pytest.raises(BadInput, match="does not know"):
        map_labels([""], ["", "a"], "m")

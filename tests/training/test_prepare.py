"""Packs from tiny imitations of the public sources' own layouts."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from imagesmith.core.errors import BadInput
from imagesmith.evaluation.datasets import open_dataset
from imagesmith.training.prepare import prepare

DRAW = np.random.default_rng(0)


def photo(path, size=(60, 90)):
    path.parent.mkdir(parents=True, exist_ok=True)
    small = Image.fromarray(DRAW.integers(0, 255, (6, 4, 3), dtype=np.uint8))
    small.resize(size, Image.Resampling.BICUBIC).save(path)


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def make_ccp(root, stems=("0001", "0002", "0900")):
    scipy_io = pytest.importorskip("scipy.io")
    labels = np.empty((1, 4), dtype=object)
    labels[0] = [np.array([name]) for name in ("null", "dress", "hair", "skin")]
    (root / "annotations" / "pixel-level").mkdir(parents=True)
    scipy_io.savemat(root / "label_list.mat", {"label_list": labels})
    for stem in stems:
        photo(root / "photos" / f"{stem}.jpg", (600, 900))
        mask = np.zeros((900, 600), np.uint8)
        mask[300:600, 150:450] = 1 + int(stem) % 3
        scipy_io.savemat(root / "annotations" / "pixel-level" / f"{stem}.mat", {"groundtruth": mask})
    photo(root / "photos" / "2000.jpg")  # CCP has photographs without pixel labels


def make_celebamask(root):
    for number in (0, 1, 2000):
        photo(root / "CelebA-HQ-img" / f"{number}.jpg", (1024, 1024))
        folder = root / "CelebAMask-HQ-mask-anno" / str(number // 2000)
        folder.mkdir(parents=True, exist_ok=True)
        for name, box in {
            "skin": (100, 100, 400, 400),
            "nose": (200, 200, 300, 300),
            "hair": (50, 50, 400, 150),
        }.items():
            part = np.zeros((512, 512, 3), np.uint8)
            part[box[1] : box[3], box[0] : box[2]] = 255
            Image.fromarray(part).save(folder / f"{number:05}_{name}.png")


def make_lfw(root):
    names = {"female": [f"Ann_Lee_{n:04}.jpg" for n in range(1, 8)] + ["Bea_0001.jpg"], "male": ["Carl_Z_0001.jpg"]}
    for sex, listed in names.items():
        (root / f"{sex}_names.txt").parent.mkdir(parents=True, exist_ok=True)
        (root / f"{sex}_names.txt").write_text("\n".join(reversed(listed)) + "\n\n")
        for name in listed:
            photo(root / "lfw" / name.rsplit("_", 1)[0] / name, (250, 250))


PENN = """# Compatible with PASCAL Annotation Version 1.00
Image filename : "PennFudanPed/PNGImages/FudanPed00001.png"
Objects with ground truth : 2 { "PASpersonWalking" "PASpersonWalking" }
# Details for pedestrian 1 ("PASpersonWalking")
Original label for object 1 "PASpersonWalking" : "PennFudanPed"
Bounding box for object 1 "PASpersonWalking" (Xmin, Ymin) - (Xmax, Ymax) : (16, 18) - (30, 43)
Pixel mask for object 1 "PASpersonWalking" : "PennFudanPed/PedMasks/FudanPed00001_mask.png"
Bounding box for object 2 "PASpersonWalking" (Xmin, Ymin) - (Xmax, Ymax) : (42, 17) - (60, 90)
"""


def make_pennfudan(root):
    for number in (1, 6):
        photo(root / "PNGImages" / f"FudanPed{number:05}.png")
        (root / "Annotation").mkdir(exist_ok=True)
        (root / "Annotation" / f"FudanPed{number:05}.txt").write_text(PENN)


def make_coco_source(root, images=3):
    listed = [{"id": 90 - n, "file_name": f"{n:012}.jpg", "width": 60, "height": 90} for n in range(images)]
    for image in listed:
        photo(root / "train2017" / image["file_name"])
    truth = {
        "info": {},
        "images": listed[::-1],
        "categories": [{"id": 1, "name": "person", "supercategory": "x"}, {"id": 90, "name": "toothbrush"}],
        "annotations": [
            {
                "id": 5,
                "image_id": 90,
                "category_id": 90,
                "bbox": [1.5, 2, 9, 9],
                "area": 33.3,
                "iscrowd": 1,
                "segmentation": [],
            },
            {"id": 6, "image_id": 88, "category_id": 1, "bbox": [0, 0, 5, 5]},
        ],
    }
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(truth))


def test_ccp(tmp_path):
    make_ccp(tmp_path / "source")
    made = prepare("ccp", tmp_path / "source", tmp_path / "pack")
    assert made.images == 2, "0900 is in the test part, 2000 has no labels"
    assert str(made).endswith("2 photographs, 4 classes (ccp)")
    data = open_dataset("segment", tmp_path / "pack", "all")
    assert data.labels == ("background", "dress", "hair", "skin")
    assert Image.open(data.photos[0]).size == Image.open(data.masks[0]).size == (384, 576)
    mask = np.asarray(Image.open(data.masks[0]))
    assert sorted(np.unique(mask)) == [0, 2], "nearest neighbour invents no class"
    assert (mask == 2).mean() == pytest.approx(1 / 6, abs=0.01)
    assert prepare("ccp", tmp_path / "source", tmp_path / "rest", part="test").images == 1
    assert prepare("ccp", tmp_path / "source", tmp_path / "whole", part="all").images == 3


def test_celebamask(tmp_path):
    make_celebamask(tmp_path / "source")
    made = prepare("celebamask", tmp_path / "source", tmp_path / "pack")
    assert made.images == 2
    data = open_dataset("segment", tmp_path / "pack", "all")
    assert [path.name for path in data.photos] == ["00000.jpg", "00001.jpg"]
    assert data.labels[:3] == ("background", "skin", "nose")
    assert data.labels[13] == "hair"
    mask = np.asarray(Image.open(data.masks[0]))
    assert mask.shape == (384, 384)
    assert mask[187, 187] == 2, "the nose lies over the skin"
    assert mask[90, 200] == 13, "hair lies over the skin"
    assert mask[250, 250] == 1
    assert mask[5, 5] == 0


def test_lfw(tmp_path):
    make_lfw(tmp_path / "source")
    made = prepare("lfw", tmp_path / "source", tmp_path / "pack")
    assert made.images == 5 + 1 + 1, "at most five of one person"
    data = open_dataset("classify", tmp_path / "pack", "all")
    assert data.labels == ("female", "male")
    assert data.photos[0].name == "Ann_Lee_0001.jpg"
    assert Image.open(data.photos[0]).size == (160, 160)
    original = np.asarray(Image.open(tmp_path / "source" / "lfw" / "Bea" / "Bea_0001.jpg"))[45:205, 45:205].astype(int)
    cropped = np.asarray(Image.open(tmp_path / "pack" / "female" / "Bea_0001.jpg")).astype(int)
    assert np.abs(original - cropped).mean() < 4


def test_pennfudan(tmp_path):
    make_pennfudan(tmp_path / "source")
    assert prepare("pennfudan", tmp_path / "source", tmp_path / "pack").images == 1
    truth = json.loads((tmp_path / "pack" / "annotations.json").read_text())
    assert truth["images"] == [{"id": 1, "file_name": "FudanPed00001.jpg", "width": 60, "height": 90}]
    # counted from 1, last pixel included
    assert [item["bbox"] for item in truth["annotations"]] == [[15, 17, 15, 26], [41, 16, 19, 74]]
    assert truth["annotations"][0]["area"] == 15 * 26
    assert len(open_dataset("detect", tmp_path / "pack", "all").truth["annotations"]) == 2


def test_coco_keeps_gapped_ids_crowds_and_images_without_objects(tmp_path):
    make_coco_source(tmp_path / "source")
    assert prepare("coco", tmp_path / "source", tmp_path / "pack").images == 3
    data = open_dataset("detect", tmp_path / "pack", "all")
    assert data.image_ids == (90, 89, 88), "in the order of the file names"
    crowd, single = data.truth["annotations"]
    assert (crowd["category_id"], crowd["area"], crowd["iscrowd"]) == (90, 33.3, 1)
    assert (single["area"], single["iscrowd"]) == (25, 0)
    assert [category["id"] for category in data.truth["categories"]] == [1, 90]


@pytest.mark.parametrize(
    ("pack", "make"),
    [("pennfudan", make_pennfudan), ("coco", make_coco_source), ("lfw", make_lfw), ("celebamask", make_celebamask)],
)
def test_running_again_gives_the_same_bytes_and_leaves_nothing_beside(tmp_path, pack, make):
    make(tmp_path / "source")
    prepare(pack, tmp_path / "source", tmp_path / "pack")
    before = files_of(tmp_path / "pack")
    told = []
    prepare(pack, tmp_path / "source", tmp_path / "pack", progress=lambda *now: told.append(now))
    assert files_of(tmp_path / "pack") == before
    assert told[-1][0] == told[-1][1] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pack", "source"]


def test_a_failure_leaves_the_earlier_pack_whole(tmp_path):
    make_pennfudan(tmp_path / "source")
    prepare("pennfudan", tmp_path / "source", tmp_path / "pack")
    before = files_of(tmp_path / "pack")
    (tmp_path / "source" / "Annotation" / "FudanPed00001.txt").write_text("nothing")
    with pytest.raises(BadInput, match="names no bounding box"):
        prepare("pennfudan", tmp_path / "source", tmp_path / "pack")
    assert files_of(tmp_path / "pack") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pack", "source"]


def test_a_folder_that_is_no_pack_is_left_alone(tmp_path):
    make_pennfudan(tmp_path / "source")
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "me.jpg").write_bytes(b"precious")
    with pytest.raises(BadInput, match="no earlier"):
        prepare("pennfudan", tmp_path / "source", tmp_path / "holiday")
    assert (tmp_path / "holiday" / "me.jpg").read_bytes() == b"precious"
    prepare("pennfudan", tmp_path / "source", tmp_path / "pack")
    with pytest.raises(BadInput, match='no earlier "coco" pack'):
        prepare("coco", tmp_path / "source", tmp_path / "pack")


@pytest.mark.parametrize("pack", ["celebamask", "lfw", "pennfudan", "coco", "ccp"])
def test_an_empty_source_is_one_sentence(tmp_path, pack):
    (tmp_path / "source").mkdir()
    with pytest.raises(BadInput):
        prepare(pack, tmp_path / "source", tmp_path / "pack")
    assert not (tmp_path / "pack").exists()


def test_unknown_pack_and_missing_source_are_one_sentence(tmp_path):
    with pytest.raises(BadInput, match='"celebamask"'):
        prepare("celebmask", tmp_path, tmp_path / "pack")
    with pytest.raises(BadInput, match="unpack Clothing Co-Parsing"):
        prepare("ccp", tmp_path / "nothing", tmp_path / "pack")


def test_ccp_refuses_masks_of_other_sizes_or_classes(tmp_path):
    scipy_io = pytest.importorskip("scipy.io")
    make_ccp(tmp_path / "source", stems=("0001",))
    path = tmp_path / "source" / "annotations" / "pixel-level" / "0001.mat"
    scipy_io.savemat(path, {"groundtruth": np.full((900, 600), 9, np.uint8)})
    with pytest.raises(BadInput, match="should hold classes 0 to 3"):
        prepare("ccp", tmp_path / "source", tmp_path / "pack")
    path.write_bytes(b"no matrix")
    with pytest.raises(BadInput, match="cannot be read as a MATLAB file"):
        prepare("ccp", tmp_path / "source", tmp_path / "pack")

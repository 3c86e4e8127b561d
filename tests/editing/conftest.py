"""A photograph made of rectangles, and models that see exactly those."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from imagesmith.image.decode import Photo
from imagesmith.image.results import Detections, Segmentation

HEIGHT, WIDTH = 120, 100

# fmt: off
SETS = {
    "CCP-59": (
        "background", "accessories", "bag", "belt", "blazer", "blouse", "bodysuit", "boots", "bra", "bracelet",
        "cape", "cardigan", "clogs", "coat", "dress", "earrings", "flats", "glasses", "gloves", "hair", "hat",
        "heels", "hoodie", "intimate", "jacket", "jeans", "jumper", "leggings", "loafers", "necklace",
        "panties", "pants", "pumps", "purse", "ring", "romper", "sandals", "scarf", "shirt", "shoes", "shorts",
        "skin", "skirt", "sneakers", "socks", "stockings", "suit", "sunglasses", "sweater", "sweatshirt",
        "swimwear", "t-shirt", "tie", "tights", "top", "vest", "wallet", "watch", "wedges",
    ),
    "ATR-18": (
        "Background", "Hat", "Hair", "Sunglasses", "Upper-clothes", "Skirt", "Pants", "Dress", "Belt",
        "Left-shoe", "Right-shoe", "Face", "Left-leg", "Right-leg", "Left-arm", "Right-arm", "Bag", "Scarf",
    ),
    "LIP-20": (
        "Background", "Hat", "Hair", "Glove", "Sunglasses", "Upper-clothes", "Dress", "Coat", "Socks", "Pants",
        "Jumpsuits", "Scarf", "Skirt", "Face", "Left-arm", "Right-arm", "Left-leg", "Right-leg", "Left-shoe",
        "Right-shoe",
    ),
    "CelebAMask-19": (
        "background", "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear", "mouth",
        "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth",
    ),
}
# fmt: on


def box_mask(*boxes_xyxy, size=(HEIGHT, WIDTH)):
    mask = np.zeros(size, np.bool_)
    for left, top, right, bottom in boxes_xyxy:
        mask[top:bottom, left:right] = True
    return mask


def segmentation(names, regions, size=(HEIGHT, WIDTH), model="clothes-model"):
    labels = np.zeros(size, np.uint8)
    for name, boxes in regions.items():
        labels[box_mask(*boxes, size=size)] = list(names).index(name)
    return Segmentation(labels, tuple(names), model, "photo.png")


def detections(boxes, size=(HEIGHT, WIDTH), label="person"):
    count = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.linspace(0.9, 0.6, count).astype(np.float32),
        np.ones(count, np.int64),
        (label,) * count,
        "detect-model",
        "photo.png",
        size,
    )


class FakeSee:
    """Answer with what it was given, counting the questions; a question nobody should ask fails."""

    def __init__(self, clothes=None, face=None, boxes=None, own=None):
        self._clothes, self._face, self._boxes, self._own = clothes, face, boxes, own
        self.asked = Counter()
        self.crops = []

    def own(self):
        self.asked["own"] += 1
        return self._own

    def clothes(self):
        self.asked["clothes"] += 1
        assert self._clothes is not None, "the clothes model was not needed"
        return self._clothes

    def face(self, crop_xyxy):
        self.asked["face"] += 1
        assert self._face is not None, "the face model was not needed"
        self.crops.append(crop_xyxy)
        left, top, right, bottom = crop_xyxy
        whole = self._face
        return Segmentation(whole.labels_hw[top:bottom, left:right].copy(), whole.names, whole.model, whole.image)

    def detections(self):
        self.asked["detections"] += 1
        assert self._boxes is not None, "the detector was not needed"
        return detections(self._boxes)


# one person: a hat on hair, a face, a blouse, jeans, two boots, and a bag
ONE = {
    "hair": [(40, 12, 60, 30)],
    "hat": [(42, 8, 58, 12)],
    "skin": [(44, 18, 56, 34)],
    "blouse": [(36, 34, 64, 64)],
    "jeans": [(38, 64, 62, 100)],
    "boots": [(38, 100, 46, 110), (54, 100, 62, 110)],
    "bag": [(66, 60, 76, 74)],
}
FACE = {
    "skin": [(44, 18, 56, 34)],
    "l_eye": [(52, 22, 54, 24)],
    "r_eye": [(46, 22, 48, 24)],
    "nose": [(49, 24, 51, 27)],
    "u_lip": [(48, 29, 52, 30)],
    "l_lip": [(48, 31, 52, 32)],
    "mouth": [(48, 30, 52, 31)],
}


@pytest.fixture
def photo():
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return Photo(pixels, name="photo.png")


@pytest.fixture(scope="session")
def make():
    """The builders of this file, since test files cannot import one another."""
    return SimpleNamespace(
        see=FakeSee, mask=box_mask, labels=segmentation, detections=detections, sets=SETS, one=ONE, face_parts=FACE
    )


@pytest.fixture
def one():
    """One person as the clothes and the face model see it."""
    clothes = segmentation(SETS["CCP-59"], ONE)
    face = segmentation(SETS["CelebAMask-19"], FACE, model="face-model")
    return FakeSee(clothes, face, [(30, 5, 80, 112)])

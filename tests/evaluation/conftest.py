"""Small random data sets that the evaluation tests share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

Coco = tuple[dict[str, Any], list[dict[str, Any]]]


def random_coco(seed: int, images: int = 20, most: int = 30) -> Coco:
    """Invent annotations with gapped ids, crowds, empty images, an absent class, and detections with tied scores."""
    draw = np.random.default_rng(seed)
    listed = [
        {"id": 7 * n + 3, "width": 640, "height": 480, "file_name": f"{n:03}.jpg"} for n in draw.permutation(images)
    ]
    categories = [{"id": 3 * n + 2, "name": f"class {n}"} for n in range(4)]
    annotations, found = [], []
    for image in listed:
        for _ in range(draw.integers(0, 8)):
            side = draw.choice([10, 60, 200], 2) * draw.uniform(0.5, 1.5, 2)
            box = np.array([*draw.uniform(0, 400, 2), *side])
            category = int(draw.choice([2, 5, 8]))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": category,
                    "bbox": box.tolist(),
                    "area": float(side.prod() * draw.uniform(0.5, 1)),
                    "iscrowd": int(draw.random() < 0.15),
                }
            )
            for _ in range(draw.integers(0, 4)):
                near = box + draw.normal(0, 0.08, 4) * np.r_[side, side]
                found.append((image["id"], category, np.abs(near)))
        for _ in range(draw.integers(0, most)):
            box = np.r_[draw.uniform(0, 400, 2), draw.uniform(5, 200, 2)]
            found.append((image["id"], int(draw.choice([2, 5, 8, 11])), box))
    rows = [
        {"image_id": image, "category_id": category, "bbox": box.tolist(), "score": float(np.round(draw.random(), 2))}
        for image, category, box in found
    ]
    return {"images": listed, "annotations": annotations, "categories": categories}, rows


@pytest.fixture
def make_coco() -> Callable[..., Coco]:
    return random_coco

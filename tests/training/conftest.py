"""Tiny packs and recipes: a few 24 x 32 pictures, networks of some thousand parameters."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

LABELS = {"0": "background", "1": "left-shoe", "2": "right-shoe", "3": "dress"}
TINY_SEGFORMER = {
    "hidden_sizes": [8, 8, 16, 16],
    "num_attention_heads": [1, 1, 2, 2],
    "depths": [1, 1, 1, 1],
    "sr_ratios": [4, 2, 1, 1],
    "decoder_hidden_size": 16,
    "drop_path_rate": 0.3,
}
TINY_VIT = {
    "patch_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "hidden_dropout_prob": 0.2,
}


def draw_pair(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw coloured rectangles, one per class, and their mask."""
    image = random.integers(60, 90, (32, 24, 3)).astype(np.uint8)
    mask = np.zeros((32, 24), np.uint8)
    for label, colour in ((3, (200, 30, 30)), (1, (30, 200, 30)), (2, (30, 30, 200))):
        top, left = int(random.integers(0, 20)), int(random.integers(0, 14))
        image[top : top + 9, left : left + 8] = colour
        mask[top : top + 9, left : left + 8] = label
    return image, mask


@pytest.fixture(scope="session")
def segment_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with images/, masks/ and labels.json."""
    root = tmp_path_factory.mktemp("segment-pack")
    (root / "images").mkdir()
    (root / "masks").mkdir()
    (root / "labels.json").write_text(json.dumps(LABELS))
    random = np.random.default_rng(0)
    for index in range(12):
        image, mask = draw_pair(random)
        Image.fromarray(image).save(root / "images" / f"{index:02}.png")
        Image.fromarray(mask).save(root / "masks" / f"{index:02}.png")
    return root


@pytest.fixture(scope="session")
def class_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with one folder of photographs per class, two photographs per person."""
    root = tmp_path_factory.mktemp("class-pack")
    random = np.random.default_rng(0)
    for label, colour in (("dark", 40), ("light", 200)):
        (root / label).mkdir()
        for person in range(9):
            for number in (1, 2):
                pixels = (colour + random.integers(-30, 30, (24, 24, 3))).astype(np.uint8)
                Image.fromarray(pixels).save(root / label / f"{label}_Person{person}_{number:04}.png")
    return root


@pytest.fixture(scope="session")
def segment_values(segment_pack: Path) -> Callable[..., dict[str, Any]]:
    """Return a function that makes a small segmentation recipe's values, with train settings replaced."""

    def values(**train: Any) -> dict[str, Any]:
        settings = {
            "steps": 8,
            "batch_size": 4,
            "seed": 3,
            "learning_rate": 1e-3,
            "warmup_steps": 2,
            "ema": 0.9,
            "stages": [{"until": 0.5, "size_hw": [32, 24]}, {"size_hw": [48, 32]}],
            "log_every": 1,
            "validate_every": 4,
            "save_every": 2,
            "keep_last": 3,
            "device": "cpu",
            "threads": 1,
        }
        return {
            "task": "segment",
            "model": TINY_SEGFORMER,
            "data": {"path": str(segment_pack), "workers": 0, "repeat_below": 0.5},
            "preprocessing": {"longest_edge": 32, "multiple_of": 8},
            "augment": {"upper_body": 0.3, "copy_paste": 0.5, "recolor": 0.5},
            "loss": {"class_weight_power": 0.2},
            "train": {**settings, **train},
        }

    return values


@pytest.fixture(scope="session")
def classify_values(class_pack: Path) -> Callable[..., dict[str, Any]]:
    """Return a function that makes a small classification recipe's values, with train settings replaced."""

    def values(**train: Any) -> dict[str, Any]:
        settings = {
            "steps": 8,
            "batch_size": 4,
            "seed": 3,
            "learning_rate": 1e-3,
            "stages": [{"size_hw": [16, 16]}],
            "log_every": 1,
            "validate_every": 4,
            "save_every": 2,
            "device": "cpu",
            "threads": 1,
        }
        return {
            "task": "classify",
            "model": TINY_VIT,
            "data": {"path": str(class_pack), "workers": 0, "group": "person"},
            "preprocessing": {"height": 16, "width": 16},
            "augment": {"erase": 0.5},
            "loss": {"mixup": 0.2, "label_smoothing": 0.1, "class_weight_power": 0.5},
            "train": {**settings, **train},
        }

    return values

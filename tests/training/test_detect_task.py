"""A whole detection training on drawn people, seconds long: what it writes, resumes and refuses."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from imagesmith.core.errors import BadInput
from imagesmith.models.checkpoint import open_safetensors
from imagesmith.models.keymap import native_state
from imagesmith.nn.detr import Detr
from imagesmith.training.checkpoint import checkpoints
from imagesmith.training.dense_detection import TrainableDetr
from imagesmith.training.detect import DetectTask
from imagesmith.training.detection import DETECT_LABELS
from imagesmith.training.recipe import DetectRecipe, make_recipe
from imagesmith.training.run import resume, run
from imagesmith.training.task import Task, Ticket

TINY = {
    "num_queries": 6, "d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "backbone_config": {
        "model_type": "resnet", "layer_type": "basic", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1],
        "batch_norm": "live",
    },
}  # fmt: skip


@pytest.fixture
def packs(tmp_path: Path) -> Path:
    """Write nine streets with a box and nine people with masks."""
    rng = np.random.default_rng(0)
    for name in ("street/images", "people/images", "people/masks"):
        (tmp_path / name).mkdir(parents=True)
    images, annotations = [], []
    for i in range(9):
        pixels = rng.integers(0, 255, (64, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "street" / "images" / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": 80, "height": 64})
        annotations.append({"id": i, "image_id": i, "category_id": 7, "bbox": [20, 10, 25, 50], "iscrowd": 0})
        mask = np.zeros((90, 60), np.uint8)
        mask[10:80, 20:40] = 1
        mask[30:50, 20:40] = 2
        Image.fromarray(rng.integers(0, 255, (90, 60, 3), dtype=np.uint8)).save(tmp_path / f"people/images/{i}.jpg")
        Image.fromarray(mask).save(tmp_path / f"people/masks/{i}.png")
    table = {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "person"}]}
    (tmp_path / "street" / "annotations.json").write_text(json.dumps(table), encoding="utf-8")
    labels = {"0": "background", "1": "skin", "2": "shirt"}
    (tmp_path / "people" / "labels.json").write_text(json.dumps(labels), encoding="utf-8")
    return tmp_path


def _recipe(packs: Path, **changes: Any) -> DetectRecipe:
    values = {
        "task": "detect", "name": "tiny", "model": TINY,
        "preprocessing": {"shortest_edge": 48, "longest_edge": 64},
        "data": {"path": str(packs / "street"), "masks_path": str(packs / "people"), "workers": 0},
        "scenes": {"sizes_hw": [[64, 48], [48, 64]]},
        "loss": {"query_groups": 2, "dense": 0.5, "dense_until": 0.3, "scale": 0.25},
        "train": {
            "steps": 6, "batch_size": 2, "learning_rate": 2e-4, "stages": [{"size_hw": [64, 64]}], "threads": 1,
            "validate_every": 3, "save_every": 3, "log_every": 1, "device": "cpu",
        },
    }  # fmt: skip
    recipe = make_recipe({**values, **changes})
    assert isinstance(recipe, DetectRecipe)
    return recipe


def test_a_training_leaves_a_plain_detr_that_others_can_open(packs: Path, tmp_path: Path) -> None:
    result = run(_recipe(packs), tmp_path / "run")
    assert {"score", "AP50", "people_AP50", "person_AP50"} <= set(result.metrics)
    config = json.loads((result.model / "config.json").read_text(encoding="utf-8"))
    weights = open_safetensors(result.model / "model.safetensors")
    assert "model.query_position_embeddings.weight" in weights
    assert weights["model.query_position_embeddings.weight"].shape == (6, 16)  # one group, no helper
    assert not [name for name in weights if "dense_head" in name]
    network = Detr.from_config(config)
    state = {name: torch.as_tensor(value) for name, value in native_state("detr", weights).items()}
    network.load_state_dict(state, strict=True)
    transformers = pytest.importorskip("transformers")
    peer = transformers.DetrForObjectDetection.from_pretrained(result.model).eval()
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(peer(pixels).logits, network.eval()(pixels)["logits"], atol=1e-4)
    assert peer.config.id2label == dict(enumerate(DETECT_LABELS))


def test_resumed_is_as_if_never_stopped(packs: Path, tmp_path: Path) -> None:
    straight = run(_recipe(packs), tmp_path / "straight")
    broken = tmp_path / "broken"
    run(_recipe(packs), broken)
    shutil.rmtree(checkpoints(broken)[0])  # as if it had been stopped after step 3
    again = resume(broken)
    one, two = (open_safetensors(result.model / "model.safetensors") for result in (straight, again))
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_examples_of_a_step_share_a_size_and_follow_from_their_ticket(packs: Path) -> None:
    task: Task = DetectTask(_recipe(packs))
    assert isinstance(task, Task)
    sizes = set()
    for step in range(8):
        first, second = (task.example(Ticket(step, 0, position, position)) for position in (0, 1))
        assert first.image.shape == second.image.shape
        sizes.add(first.image.shape[:2])
        again = task.example(Ticket(step, 0, 0, 0))
        assert np.array_equal(again.image, first.image)
    assert sizes == {(64, 48), (48, 64)}


def test_the_decoder_waits_while_the_helper_teaches(packs: Path) -> None:
    task = DetectTask(_recipe(packs))
    network = task.build(task.config())
    batch = task.collate([task.example(_ticket(0, i)) for i in range(2)])
    assert set(task.loss(network, batch, 0)) == {"loss", "dense"}
    later = task.loss(network, batch, 5)
    assert set(later) == {"loss", "dense", "loss_classes", "loss_bbox", "loss_giou"}
    later["loss"].backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def _ticket(step: int, position: int) -> Ticket:
    return Ticket(step, 0, position, position)


def test_boxes_alone_are_enough(packs: Path) -> None:
    recipe = _recipe(packs, data={"path": str(packs / "street"), "workers": 0}, loss={})
    task = DetectTask(recipe)
    assert task.labels == ("person",)
    network = task.build(task.config())
    batch = task.collate([task.example(_ticket(0, i)) for i in range(3)])
    assert torch.isfinite(task.loss(network, batch, 0)["loss"])
    assert isinstance(network, TrainableDetr)
    assert "people_AP50" not in task.evaluate(task.finished(network).eval(), "cpu")
    assert not [sentence for kind, sentence in task.check() if kind == "error"]


def test_what_does_not_fit_is_said(packs: Path) -> None:
    with pytest.raises(BadInput, match="dense_until needs"):
        DetectTask(_recipe(packs, loss={"dense_until": 0.5}))
    data = {"path": str(packs / "street"), "masks_path": str(packs / "people"), "labels": ["person"]}
    with pytest.raises(BadInput, match=r"leave data\.labels out"):
        DetectTask(_recipe(packs, data=data))
    with pytest.raises(BadInput, match="cannot be read"):
        DetectTask(_recipe(packs, data={"path": str(packs)}))
    small = _recipe(packs, data={"path": str(packs / "street")}, model={**TINY, "num_queries": 1})
    table = json.loads((packs / "street" / "annotations.json").read_text(encoding="utf-8"))
    table["annotations"] += [{**table["annotations"][1], "id": 99, "bbox": [1, 1, 20, 20]}]
    (packs / "street" / "annotations.json").write_text(json.dumps(table), encoding="utf-8")
    assert "warning" in [kind for kind, _ in DetectTask(small).check()]


def test_a_stage_may_learn_at_its_own_rate(packs: Path, tmp_path: Path) -> None:
    stages = [{"size_hw": [64, 64], "until": 0.5, "rate": 3.0}, {"size_hw": [64, 64]}]
    train = {**_recipe(packs).train.model_dump(), "stages": stages, "schedule": "constant"}
    run(_recipe(packs, train=train), tmp_path / "run")
    with (tmp_path / "run" / "train.csv").open(encoding="utf-8") as file:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(file)]
    assert rates[0] == pytest.approx(3 * rates[-1])

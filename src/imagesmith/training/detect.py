"""Teaching a DETR from photographs with boxes, and from scenes composed of people cut out by their masks."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from imagesmith.core.errors import BadInput
from imagesmith.core.requests import DetectRequest
from imagesmith.core.specs import ModelSpec
from imagesmith.evaluation.coco import coco_figures
from imagesmith.evaluation.matching import match as match_coco
from imagesmith.evaluation.splits import Split
from imagesmith.image.photo import Photo
from imagesmith.nn.detr import DetrConfig
from imagesmith.training.augment import random_generator
from imagesmith.training.criterion import DetectionLossWeights, detection_loss
from imagesmith.training.data import EXAMPLE_STREAM, shuffled
from imagesmith.training.dense_detection import TrainableDetr, dense_loss
from imagesmith.training.detection import (
    DETECT_LABELS,
    PERSON,
    BoxPhoto,
    category_names,
    load_coco,
    load_people,
    photo_of,
)
from imagesmith.training.engine import ModuleEngine
from imagesmith.training.folder import label_names
from imagesmith.training.matcher import DetectionTargets, pad_targets
from imagesmith.training.recipe import DetectRecipe
from imagesmith.training.scenes import DetectionExample, ScenePool, draw_example, person_free_windows
from imagesmith.training.segment import normalise
from imagesmith.training.task import Batch, Ticket
from imagesmith.vision.detect import detect

SIZE_STREAM = 4
"""Stream of randomness that chooses the picture size of a step."""
PARTS: Mapping[str, tuple[str, ...]] = {
    "backbone": ("backbone.*",),
    "encoder": ("encoder.*", "input_projection.*"),
    "decoder": ("decoder.*", "query_position_embeddings.*"),
    "head": ("class_labels_classifier.*", "bbox_predictor.*"),
}


class DetectTask:
    """Photographs, scenes and loss of one detection recipe."""

    monitor = "score"
    parts = PARTS

    def __init__(self, recipe: DetectRecipe) -> None:
        self.recipe = recipe
        self.folder = Path(recipe.data.path)
        self.masks = Path(recipe.data.masks_path) if recipe.data.masks_path else None
        self.backgrounds = Path(recipe.data.backgrounds_path) if recipe.data.backgrounds_path else None
        names = recipe.data.labels or (DETECT_LABELS if self.masks else category_names(self._file(self.folder)))
        self.labels: tuple[str, ...] = tuple(names)
        if self.masks and self.labels != DETECT_LABELS:
            raise BadInput(f"With data.masks_path the labels are {', '.join(DETECT_LABELS)}; leave data.labels out.")
        loss = recipe.loss
        if loss.dense_until and not loss.dense:
            raise BadInput("loss.dense_until needs the dense helper; set loss.dense above 0.")
        self.weights = DetectionLossWeights(loss.classes, loss.bbox, loss.giou, loss.eos)

    @functools.cached_property
    def pool(self) -> ScenePool:
        """What examples are drawn from, decoded."""
        photos = self._load(self.folder, "train") * self.recipe.data.repeat
        people = load_people(self.masks, "train") if self.masks else []
        backgrounds: list[NDArray[np.uint8]] = []
        if people:
            random = random_generator(self.recipe.train.seed, SIZE_STREAM)
            backgrounds += person_free_windows(photos[: len(photos) // self.recipe.data.repeat], random)
        if self.backgrounds:
            # Where a crowd was not drawn one by one, nobody can say who is missing.
            extra = [photo for photo in self._load(self.backgrounds, "all") if photo.labelled.any()]
            shown = [photo for photo in extra if len(photo.labels)]
            backgrounds += [photo.image for photo in extra if not len(photo.labels)]
            photos += shown
        return ScenePool(photos, people, backgrounds, len(self.labels))

    @functools.cached_property
    def validation(self) -> tuple[list[BoxPhoto], list[BoxPhoto]]:
        """Photographs to measure on: those with boxes, and those of people with masks."""
        people = load_people(self.masks, "val") if self.masks else []
        return self._load(self.folder, "val"), [photo_of(person) for person in people]

    def prepare(self) -> None:
        """Read the data once, before workers are started, so that they share it."""
        _ = self.pool, self.validation

    def manifest(self) -> list[Path]:
        """Return the files the training depends on."""
        files = [self._file(self.folder), *sorted((self.folder / self.recipe.data.images).iterdir())]
        for pack in (self.masks, self.backgrounds):
            if pack:
                files += sorted(path for path in pack.rglob("*") if path.is_file())
        return files

    def config(self) -> dict[str, Any]:
        """Return the network's complete configuration, labels included."""
        return {
            "model_type": "detr",
            "architectures": ["DetrForObjectDetection"],
            "use_timm_backbone": False,
            **self.recipe.model,
            "num_labels": len(self.labels),
            **label_names(self.labels),
        }

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """Build a DETR with random weights, its queries spread over the picture, and the dense helper."""
        return TrainableDetr(DetrConfig.from_dict({**config, "query_groups": self.recipe.loss.query_groups}))

    def finished(self, module: nn.Module) -> nn.Module:
        """Return the DETR alone, with one group of queries."""
        return module.finished() if isinstance(module, TrainableDetr) else module

    def epoch_order(self, epoch: int) -> NDArray[np.int64]:
        """Return an epoch's examples; what each shows follows from its place."""
        return shuffled(self.recipe.data.epoch or len(self.pool.photos), self.recipe.train.seed, epoch)

    def example(self, ticket: Ticket) -> DetectionExample:
        """Draw one example."""
        recipe = self.recipe
        sizes = recipe.scenes.sizes_hw or (recipe.train.stage_at(ticket.step).size_hw,)
        size_hw = sizes[random_generator(recipe.train.seed, SIZE_STREAM, ticket.step).integers(len(sizes))]
        random = random_generator(recipe.train.seed, EXAMPLE_STREAM, ticket.epoch, ticket.position)
        return draw_example(self.pool, size_hw, recipe.scenes, random)

    def collate(self, examples: Sequence[DetectionExample]) -> Batch:
        """Stack to uint8 images [B,H,W,3] and padded boxes."""
        targets = pad_targets(
            [example.labels for example in examples],
            [example.boxes_cxcywh for example in examples],
            [f"example {index} of the batch" for index in range(len(examples))],
            [example.labelled for example in examples],
        )
        # Taken apart, because the engine moves only plain containers to the device.
        parts = {field.name: getattr(targets, field.name) for field in dataclasses.fields(targets)}
        return {"image": torch.from_numpy(np.stack([example.image for example in examples])), **parts}

    def loss(self, module: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:
        """Return DETR's loss and the dense helper's; at first only the latter, where the recipe says so."""
        assert isinstance(module, TrainableDetr)
        settings, losses = self.recipe.loss, {}
        pixels = normalise(batch["image"], self.recipe.preprocessing)
        targets = DetectionTargets(**{name: value for name, value in batch.items() if name != "image"})
        memory, positions, attend = module.encode(pixels)
        total = torch.zeros((), device=pixels.device)
        only_dense = step < settings.dense_until * self.recipe.train.steps
        if settings.dense:
            stride = module.backbone.stride
            size_hw = (math.ceil(pixels.shape[2] / stride), math.ceil(pixels.shape[3] / stride))
            losses["dense"] = dense_loss(module.dense_head, memory, size_hw, targets)
            total = total + losses["dense"] * (1.0 if only_dense else settings.dense)
        if not only_dense:
            outputs = module.predict(module.decode(memory, positions, attend))
            parts = detection_loss(outputs, targets, self.weights, settings.query_groups)
            losses.update({name: value for name, value in parts.items() if name != "loss"})
            total = total + parts["loss"] * settings.scale
        return {"loss": total, **losses}

    @torch.no_grad()
    def evaluate(self, module: nn.Module, device: str) -> dict[str, float]:
        """Measure AP on the photographs with boxes, and where there are masks on the people; "score" is their mean."""
        figures: dict[str, float] = {}
        for prefix, photos in zip(("", "people_"), self.validation, strict=True):
            if photos:
                figures.update({prefix + name: value for name, value in self._measure(module, device, photos).items()})
        scores = [value for name, value in figures.items() if name in ("AP50", "people_AP50")]
        return {"score": float(np.mean(scores)), **figures}

    def check(self) -> Iterator[tuple[str, str]]:
        """Yield what is odd about the boxes."""
        counts = np.zeros(len(self.labels), np.int64)
        most, empty = 0, 0
        for photo in self.pool.photos:
            counts += np.bincount(photo.labels, minlength=len(self.labels))
            most, empty = max(most, len(photo.labels)), empty + (not len(photo.labels))
        queries = DetrConfig.from_dict(self.config()).num_queries
        if most > queries:
            yield (
                "warning",
                f"A photograph has {most} objects, but model.num_queries is {queries}.",
            )
        for label, count in zip(self.labels, counts, strict=True):
            if not count and not self.pool.people:
                yield "error", f'The class "{label}" has no box to learn from.'
        yield "note", "boxes: " + ", ".join(f"{n} {c}" for n, c in zip(self.labels, counts, strict=True) if c)
        yield "note", f"photographs without a box: {empty}; people to compose scenes of: {len(self.pool.people)}"

    def _file(self, folder: Path) -> Path:
        return folder / self.recipe.data.annotations

    def _load(self, folder: Path, split: Split) -> list[BoxPhoto]:
        data = self.recipe.data
        return load_coco(folder, self.labels, split, images=data.images, annotations=data.annotations)

    def _measure(self, module: nn.Module, device: str, photos: Sequence[BoxPhoto]) -> dict[str, float]:
        spec = ModelSpec(
            name=self.recipe.name, task="detect", architecture="detr", source="training",
            labels=self.labels, preprocessing=self.recipe.preprocessing,
        )  # fmt: skip
        shown = (Photo(photo.image, photo.name) for photo in photos)
        results = detect(shown, ModuleEngine(module, device), spec, DetectRequest(threshold=0.0))
        found: list[dict[str, Any]] = []
        for index, (photo, result) in enumerate(zip(photos, results, strict=True)):
            for box, score, label in zip(result.boxes_xyxy, result.scores, result.label_ids, strict=True):
                if photo.labelled[label]:  # nobody drew the others here, so they are neither right nor wrong
                    found.append({"image_id": index, "category_id": int(label), "score": float(score), **_xywh(box)})
        coco = coco_figures(match_coco(coco_truth(photos, self.labels), found))
        figures = {"AP50": coco.figures["AP50"], "AP": coco.figures["AP"]}
        if PERSON in self.labels:
            figures["person_AP50"] = coco.by_category[self.labels.index(PERSON)]["AP50"]
        return figures


def coco_truth(photos: Sequence[BoxPhoto], labels: Sequence[str]) -> dict[str, Any]:
    """Write photographs with boxes as a COCO table whose category ids are the class ids."""
    annotations = [
        {"id": 0, "image_id": index, "category_id": int(label), "iscrowd": 0, **_xywh(box)}
        for index, photo in enumerate(photos)
        for box, label in zip(photo.boxes_xyxy, photo.labels, strict=True)
    ]
    return {
        "images": [{"id": index} for index in range(len(photos))],
        "annotations": [{**annotation, "id": index + 1} for index, annotation in enumerate(annotations)],
        "categories": [{"id": index, "name": name} for index, name in enumerate(labels)],
    }


def _xywh(box_xyxy: NDArray[np.float32]) -> dict[str, list[float]]:
    left, top, right, bottom = (float(value) for value in box_xyxy)
    return {"bbox": [left, top, right - left, bottom - top]}

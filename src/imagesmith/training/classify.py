"""Teaching a ViT from a folder with one folder of photographs per class."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from imagesmith.core.errors import BadInput
from imagesmith.evaluation.metrics import mean_auc
from imagesmith.evaluation.splits import select
from imagesmith.image.geometry import to_input
from imagesmith.nn.vit import ViT, ViTConfig
from imagesmith.training.augment import Example, cut, degrade, jitter_colour, random_generator, random_window, rotate
from imagesmith.training.data import (
    EXAMPLE_STREAM,
    list_images,
    read_all,
    read_image,
    same_content,
    shuffled,
    stand_ins,
)
from imagesmith.training.engine import ModuleEngine
from imagesmith.training.folder import label_names
from imagesmith.training.losses import class_weights
from imagesmith.training.recipe import ClassifyRecipe
from imagesmith.training.segment import normalise
from imagesmith.training.task import Batch, Ticket

_EVALUATION_BATCH = 64
_LOG = logging.getLogger("imagesmith")
PARTS: Mapping[str, tuple[str, ...]] = {
    "encoder": ("vit.*",),
    "embeddings": ("vit.embeddings.*",),
    "head": ("classifier.*",),
}


class ClassifyTask:
    """Photographs and loss of one classification recipe."""

    monitor = "accuracy"
    parts = PARTS

    def __init__(self, recipe: ClassifyRecipe) -> None:
        self.recipe = recipe
        self.labels, files, self.findings = _list_classes(Path(recipe.data.path))
        names = list(files)
        validation = select(names, "val", recipe.data.group)
        training = select(names, "train", recipe.data.group)
        if not training or not validation:
            raise BadInput(
                f'"{recipe.data.path}" has {len(files)} photographs; at least 2 (of 2 people, where data.group is '
                "person) are needed, one of them for validation."
            )
        self.train = [(Path(recipe.data.path) / name, files[name]) for name in training]
        self.validation = [(Path(recipe.data.path) / name, files[name]) for name in validation]
        if recipe.preprocessing.height is None or recipe.preprocessing.width is None:
            raise BadInput("A classification recipe needs preprocessing.height and preprocessing.width.")
        self.size_hw = (recipe.preprocessing.height, recipe.preprocessing.width)

    @functools.cached_property
    def survey(self) -> tuple[list[NDArray[np.uint8] | None] | None, NDArray[np.int64]]:
        """Read all training photographs once: decoded, where they are kept, and which is shown in place of each."""
        images, unreadable = read_all([functools.partial(read_image, path) for path, _ in self.train])
        for reason in unreadable:
            _LOG.warning("left out: %s", reason)
        source = stand_ins([image is not None for image in images])
        return (images if self.recipe.data.cache else None), source

    @functools.cached_property
    def weights(self) -> Tensor | None:
        """Weight of every class [C] in the cross-entropy."""
        loss = self.recipe.loss
        if loss.class_weight_power == 0:
            return None
        counts = torch.bincount(torch.tensor([label for _, label in self.train]), minlength=len(self.labels))
        return class_weights(counts, loss.class_weight_power, loss.class_weight_max)

    def prepare(self) -> None:
        """Read the data once, before workers are started, so that they share it."""
        _ = self.survey
        images, _ = read_all([functools.partial(read_image, path) for path, _ in self.validation])
        self.validation = [one for one, image in zip(self.validation, images, strict=True) if image is not None]

    def manifest(self) -> list[Path]:
        """Return the files the training depends on."""
        return [path for path, _ in self.train + self.validation]

    def config(self) -> dict[str, Any]:
        """Return the network's complete configuration, labels included."""
        wanted = {"image_size": list(self.size_hw), **self.recipe.model, "num_labels": len(self.labels)}
        shape = dataclasses.asdict(ViTConfig.from_dict(wanted))
        # Published files hold one number where both sides are equal, and other readers count on it.
        sides = {
            name: size[0] if size[0] == size[1] else list(size)
            for name in ("image_size", "patch_size")
            for size in (shape[name],)
        }
        return {
            "model_type": "vit",
            "architectures": ["ViTForImageClassification"],
            **shape,
            **sides,
            **label_names(self.labels),
        }

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """Build a ViT with random weights."""
        return ViT.from_config(config)

    def finished(self, module: nn.Module) -> nn.Module:
        """Return the network itself: training needs nothing more."""
        return module

    def epoch_order(self, epoch: int) -> NDArray[np.int64]:
        """Return an epoch's photographs."""
        return shuffled(len(self.train), self.recipe.train.seed, epoch)

    def example(self, ticket: Ticket) -> tuple[NDArray[np.uint8], int]:
        """Make one augmented photograph and its class."""
        images, source = self.survey
        index = int(source[ticket.photograph])
        path, label = self.train[index]
        kept = images[index] if images is not None else None
        image = read_image(path) if kept is None else kept
        stage = self.recipe.train.stage_at(ticket.step)
        settings, size_hw = stage.augment or self.recipe.augment, stage.size_hw
        random = random_generator(self.recipe.train.seed, EXAMPLE_STREAM, ticket.epoch, ticket.position)
        example = Example(image, np.zeros(image.shape[:2], np.uint8))
        example = cut(example, random_window(example, size_hw, settings, random), size_hw)
        if random.random() < settings.rotate_probability:
            example = rotate(example, random.uniform(-settings.rotate, settings.rotate))
        image = example.image
        if random.random() < settings.flip:
            image = np.ascontiguousarray(image[:, ::-1])
        if settings.color > 0:
            image = jitter_colour(image, settings.color, random)
        if random.random() < settings.degrade:
            image = degrade(image, random)
        if random.random() < settings.erase:
            image = erase(image, random)
        return image, label

    def collate(self, examples: Sequence[tuple[NDArray[np.uint8], int]]) -> Batch:
        """Stack to uint8 images [B,H,W,3] and labels [B]."""
        return {
            "image": torch.from_numpy(np.stack([image for image, _ in examples])),
            "label": torch.tensor([label for _, label in examples]),
        }

    def loss(self, module: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:
        """Return the cross-entropy, with pairs of photographs mixed where the recipe says so (arXiv 1710.09412)."""
        settings = self.recipe.loss
        pixels, labels = normalise(batch["image"], self.recipe.preprocessing), batch["label"]
        share, partner = 1.0, None
        if settings.mixup > 0:
            share = float(torch.distributions.Beta(settings.mixup, settings.mixup).sample())
            partner = torch.randperm(len(labels)).to(labels.device)
            pixels = share * pixels + (1 - share) * pixels[partner]
        logits = module(pixels)["logits"].float()
        weights = None if self.weights is None else self.weights.to(logits.device)

        def entropy(target: Tensor) -> Tensor:
            return F.cross_entropy(logits, target, weights, label_smoothing=settings.label_smoothing)

        loss = entropy(labels)
        if partner is not None:
            loss = share * loss + (1 - share) * entropy(labels[partner])
        return {"loss": loss}

    def evaluate(self, module: nn.Module, device: str) -> dict[str, float]:
        """Measure accuracy and AUC at the model's working size."""
        engine, scores = ModuleEngine(module, device), []
        for start in range(0, len(self.validation), _EVALUATION_BATCH):
            photos = [read_image(path) for path, _ in self.validation[start : start + _EVALUATION_BATCH]]
            pixels = np.stack([to_input(photo, self.recipe.preprocessing, self.size_hw) for photo in photos])
            scores.append(engine.run({"pixel_values": pixels})["logits"])
        probabilities = softmax(np.concatenate(scores))
        truth = np.array([label for _, label in self.validation])
        correct = probabilities.argmax(axis=1) == truth
        return {"accuracy": float(correct.mean()), "auc": float(mean_auc(probabilities, truth)), "count": len(truth)}

    def check(self) -> Iterator[tuple[str, str]]:
        """Yield what is odd about the folders."""
        yield from self.findings
        yield from same_content([path for path, _ in self.train], [path for path, _ in self.validation])
        counts = np.bincount([label for _, label in self.train], minlength=len(self.labels))
        for label, count in zip(self.labels, counts, strict=True):
            if count == 0:
                yield "error", f'The class "{label}" has no photograph to learn from.'
        yield (
            "note",
            "photographs to learn from: "
            + ", ".join(f"{label} {count}" for label, count in zip(self.labels, counts, strict=True)),
        )


def erase(image: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """Grey out a rectangle of a tenth to two fifths of each side."""
    height, width = image.shape[:2]
    tall, wide = (max(int(side * random.uniform(0.1, 0.4)), 1) for side in (height, width))
    top, left = int(random.integers(height - tall + 1)), int(random.integers(width - wide + 1))
    erased = image.copy()
    erased[top : top + tall, left : left + wide] = random.integers(0, 256, 3)
    return erased


def _list_classes(root: Path) -> tuple[tuple[str, ...], dict[str, int], list[tuple[str, str]]]:
    """Return the classes (folder names, sorted), every photograph's class by relative name, and findings."""
    if not root.is_dir():
        raise BadInput(f'The data folder "{root}" is missing; set data.path to where the pack lies.')
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    files: dict[str, int] = {}
    findings: list[tuple[str, str]] = []
    for label, folder in enumerate(folders):
        images, stray = list_images(folder)
        files.update({f"{folder.name}/{path.name}": label for path in images})
        findings += [("warning", f'"{folder.name}/{path.name}" is no picture and is left out.') for path in stray]
    if len(folders) < 2:
        raise BadInput(f'"{root}" must have one folder of photographs per class, but has {len(folders)} folder(s).')
    return tuple(folder.name for folder in folders), files, findings


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn logits [N,C] into probabilities."""
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)

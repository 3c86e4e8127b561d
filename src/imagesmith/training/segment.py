"""Teaching a SegFormer from a folder of photographs and a folder of masks."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from imagesmith.core.errors import BadInput, did_you_mean
from imagesmith.core.requests import SegmentRequest
from imagesmith.core.specs import ModelSpec, Preprocessing
from imagesmith.evaluation.metrics import class_counts, confusion, segmentation_figures
from imagesmith.evaluation.splits import every_eighth
from imagesmith.image.decode import decode_image
from imagesmith.nn.segformer import SegFormer, SegformerConfig
from imagesmith.training.augment import IGNORE, Example, augment, flip_table, random_generator
from imagesmith.training.data import EXAMPLE_STREAM, read_all, same_content, shuffled, stand_ins
from imagesmith.training.engine import ModuleEngine
from imagesmith.training.folder import label_names
from imagesmith.training.losses import class_weights, cross_entropy_and_jaccard, subsample_labels
from imagesmith.training.pairs import check_pairs, list_pairs, read_labels, read_mask
from imagesmith.training.recipe import SegmentRecipe
from imagesmith.training.settings import Augmentation
from imagesmith.training.task import Batch, Ticket
from imagesmith.vision.segment import segment

_EVALUATION_BATCH = 8
_LOG = logging.getLogger("imagesmith")
_STAGES = range(4)
PARTS: Mapping[str, tuple[str, ...]] = {
    "encoder": ("segformer.*",),
    "head": ("decode_head.*",),
    "classifier": ("decode_head.classifier.*",),
    **{
        f"stage{stage}": tuple(
            f"segformer.encoder.{part}.{stage}.*" for part in ("patch_embeddings", "block", "layer_norm")
        )
        for stage in _STAGES
    },
}


@dataclass(frozen=True)
class Survey:
    """What reading all training photographs told."""

    examples: list[Example | None] | None
    """Decoded, where the recipe keeps them in memory; None where one cannot be read."""
    source: NDArray[np.int64]
    """Which photograph is shown in the place of each [N]."""
    pixels: NDArray[np.int64]
    """Pixels per class of each [N,C]."""


class SegmentTask:
    """Photographs, masks and loss of one segmentation recipe."""

    monitor = "mean_iou"
    parts = PARTS

    def __init__(self, recipe: SegmentRecipe) -> None:
        self.recipe = recipe
        self.labels = read_labels(Path(recipe.data.path) / recipe.data.labels)
        self.pairs, self.findings = list_pairs(recipe)
        chosen = every_eighth(pair.image.name for pair in self.pairs)
        self.train = [pair for pair in self.pairs if pair.image.name not in chosen]
        self.validation = [pair for pair in self.pairs if pair.image.name in chosen]
        if not self.train or not self.validation:
            raise BadInput(
                f'"{recipe.data.path}" has {len(self.pairs)} photographs with masks; at least 2 are needed, one of '
                "them for validation."
            )
        self.table = flip_table(dict(enumerate(self.labels)))
        for settings in self._variations():
            recolourable(settings, self.labels)

    def _variations(self) -> list[Augmentation]:
        stages = [stage.augment for stage in self.recipe.train.stages if stage.augment is not None]
        return [self.recipe.augment, *stages]

    @functools.cached_property
    def survey(self) -> Survey:
        """Read all training photographs once."""
        examples, unreadable = read_all([pair.read for pair in self.train])
        for reason in unreadable:
            _LOG.warning("left out: %s", reason)
        source = stand_ins([example is not None for example in examples])
        classes = len(self.labels)
        present = np.zeros((len(self.train), classes), np.int64)
        for index, example in enumerate(examples):
            if example is not None:
                present[index] = np.bincount(example.mask.ravel(), minlength=256)[:classes]
        return Survey(examples if self.recipe.data.cache else None, source, present)

    @functools.cached_property
    def repeats(self) -> NDArray[np.float64]:
        """How often each training photograph is shown per epoch [N]: more often, the rarer a class in it is."""
        present = self.survey.pixels > 0
        frequency = np.maximum(present.mean(axis=0), 1 / len(self.train))
        settings = self.recipe.data
        factor = np.maximum(1.0, (settings.repeat_below / frequency) ** settings.repeat_power)
        return np.where(present, factor, 1.0).max(axis=1)

    @functools.cached_property
    def weights(self) -> Tensor | None:
        """Weight of every class [C] in the cross-entropy."""
        loss = self.recipe.loss
        if loss.class_weight_power == 0:
            return None
        return class_weights(
            torch.from_numpy(self.survey.pixels.sum(axis=0)), loss.class_weight_power, loss.class_weight_max
        )

    def prepare(self) -> None:
        """Read the data once, before workers are started, so that they share it."""
        _ = self.survey, self.repeats, self.weights
        examples, _ = read_all([pair.read for pair in self.validation])
        self.validation = [pair for pair, one in zip(self.validation, examples, strict=True) if one is not None]

    def manifest(self) -> list[Path]:
        """Return the files the training depends on."""
        return [path for pair in self.pairs for path in (pair.image, pair.mask)]

    def config(self) -> dict[str, Any]:
        """Return the network's complete configuration, labels included."""
        shape = dataclasses.asdict(SegformerConfig.from_dict({**self.recipe.model, "num_labels": len(self.labels)}))
        return {
            "model_type": "segformer",
            "architectures": ["SegformerForSemanticSegmentation"],
            "num_encoder_blocks": len(shape["hidden_sizes"]),
            "hidden_act": "gelu",
            "reshape_last_stage": True,
            "semantic_loss_ignore_index": IGNORE,
            **shape,
            **label_names(self.labels),
        }

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """Build a SegFormer with random weights."""
        return SegFormer.from_config(config)

    def finished(self, module: nn.Module) -> nn.Module:
        """Return the network itself: training needs nothing more."""
        return module

    def epoch_order(self, epoch: int) -> NDArray[np.int64]:
        """Return an epoch's photographs; those with rare classes may come more than once."""
        repeats = self.repeats if self.recipe.data.repeat_below > 0 else None
        return shuffled(len(self.train), self.recipe.train.seed, epoch, repeats)

    def example(self, ticket: Ticket) -> Example:
        """Make one augmented example."""
        recipe = self.recipe
        random = random_generator(recipe.train.seed, EXAMPLE_STREAM, ticket.epoch, ticket.position)
        stage = recipe.train.stage_at(ticket.step)
        settings = stage.augment or recipe.augment
        donor = self._example(int(random.integers(len(self.train)))) if settings.copy_paste > 0 else None
        example, ids = self._example(ticket.photograph), recolourable(settings, self.labels)
        return augment(example, donor, stage.size_hw, settings, self.table, ids, random)

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Stack to uint8 images [B,H,W,3] and labels [B,H,W]."""
        return {
            "image": torch.from_numpy(np.stack([example.image for example in examples])),
            "mask": torch.from_numpy(np.stack([example.mask for example in examples])),
        }

    def loss(self, module: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:
        """Return cross-entropy plus Jaccard loss at the stage's loss stride."""
        stride, settings = self.recipe.train.stage_at(step).loss_stride, self.recipe.loss
        height, width = batch["mask"].shape[1:]
        size_hw = (max(height // stride, 1), max(width // stride, 1))
        logits = module(normalise(batch["image"], self.recipe.preprocessing))["logits"].float()
        if tuple(logits.shape[2:]) != size_hw:
            logits = F.interpolate(logits, size=size_hw, mode="bilinear", align_corners=False)
        target = subsample_labels(batch["mask"].long(), size_hw)
        weights = None if self.weights is None else self.weights.to(logits.device)
        entropy, jaccard = cross_entropy_and_jaccard(logits, target, weights, IGNORE)
        total = settings.cross_entropy * entropy + settings.jaccard * jaccard
        return {"loss": total, "cross_entropy": entropy, "jaccard": jaccard}

    @torch.no_grad()
    def evaluate(self, module: nn.Module, device: str) -> dict[str, float]:
        """Measure at the model's working size, labels compared at every photograph's own size."""
        classes = len(self.labels)
        spec = ModelSpec(
            name=self.recipe.name, task="segment", architecture="segformer", source="training",
            labels=self.labels, preprocessing=self.recipe.preprocessing,
        )  # fmt: skip
        photos = (decode_image(pair.image) for pair in self.validation)
        results = segment(photos, ModuleEngine(module, device), spec, SegmentRequest(batch_size=_EVALUATION_BATCH))
        matrix = np.zeros((classes, classes + 1), np.int64)
        for pair, result in zip(self.validation, results, strict=True):
            matrix += confusion(read_mask(pair.mask), result.labels_hw, classes)
        figures = segmentation_figures(class_counts(matrix))
        return {name: float(value) for name, value in figures.items()}

    def check(self) -> Iterator[tuple[str, str]]:
        """Yield what is odd about the folders and the masks."""
        yield from self.findings
        yield from check_pairs(self.pairs, self.labels)
        yield from same_content([pair.image for pair in self.train], [pair.image for pair in self.validation])
        swapped = [f"{name} and {self.labels[other]}" for index, name in enumerate(self.labels)
                   if (other := int(self.table[index])) > index]  # fmt: skip
        yield "note", f"mirroring trades: {', '.join(swapped) or 'nothing'}"

    def _example(self, index: int) -> Example:
        source = int(self.survey.source[index])
        cached = self.survey.examples[source] if self.survey.examples is not None else None
        return self.train[source].read() if cached is None else cached


def recolourable(settings: Augmentation, labels: Sequence[str]) -> list[int]:
    """Return the ids of the labels that may be recoloured; raise `BadInput` for a name the data does not have."""
    wanted = settings.recolor_labels
    for name in wanted or ():
        if name not in labels:
            raise BadInput(f'augment.recolor_labels names "{name}", no label of the data.{did_you_mean(name, labels)}')
    return [index for index, name in enumerate(labels) if (name in wanted if wanted is not None else index > 0)]


def normalise(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Turn uint8 [B,H,W,3] into the network's float input [B,3,H,W] (channels-last in memory)."""
    mean, std = (torch.tensor(values, device=images.device) for values in (preprocessing.mean, preprocessing.std))
    return ((images.float() * preprocessing.rescale_factor - mean) / std).permute(0, 3, 1, 2)

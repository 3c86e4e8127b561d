"""Teaching a SegFormer from a folder of photographs and a folder of masks."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from imagesmith.core.errors import BadImage, BadInput
from imagesmith.core.specs import Preprocessing
from imagesmith.evaluation.metrics import class_counts, confusion, segmentation_figures
from imagesmith.evaluation.splits import every_eighth
from imagesmith.nn.segformer import SegFormer, SegformerConfig
from imagesmith.training.augment import IGNORE, Example, augment, flip_table, random_generator
from imagesmith.training.data import EXAMPLE_STREAM, list_images, read_image, shuffled
from imagesmith.training.folder import label_names
from imagesmith.training.losses import class_weights, cross_entropy_and_jaccard, subsample_labels
from imagesmith.training.recipe import SegmentRecipe
from imagesmith.training.task import Batch, Ticket

_EVALUATION_BATCH = 8
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
class Pair:
    """A photograph's file and its mask's."""

    image: Path
    mask: Path

    def read(self) -> Example:
        """Decode both; raises `BadImage` where they do not fit together."""
        image, mask = read_image(self.image), read_mask(self.mask)
        if image.shape[:2] != mask.shape:
            raise BadImage(
                f'The mask "{self.mask}" is {mask.shape[1]} x {mask.shape[0]} pixels but its photograph is '
                f"{image.shape[1]} x {image.shape[0]}; make them the same size."
            )
        return Example(image, mask)


def read_mask(path: Path) -> NDArray[np.uint8]:
    """Read class ids [H,W] from an 8-bit gray or palette picture; colours are refused, they name no class."""
    try:
        with Image.open(path) as picture:
            if picture.mode not in ("L", "P", "1"):
                raise BadImage(
                    f'The mask "{path}" has mode {picture.mode}, but class ids are 8-bit gray or palette indices.'
                )
            return np.array(picture, dtype=np.uint8)
    except (OSError, SyntaxError, ValueError) as error:
        raise BadImage(f'The mask "{path}" cannot be read: {error}.') from error


def read_labels(path: Path) -> tuple[str, ...]:
    """Read the names of classes 0 to n-1 from a JSON object (id -> name) or list."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = {int(key): str(name) for key, name in content.items()} if isinstance(content, dict) else content
        labels = tuple(str(names[index]) for index in range(len(names)))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f'The labels "{path}" must be a JSON object from every class id (0, 1, 2 ...) to its name: {error}.'
        ) from None
    if not labels:
        raise BadInput(f'The labels "{path}" name no class.')
    return labels


def list_pairs(recipe: SegmentRecipe) -> tuple[list[Pair], list[tuple[str, str]]]:
    """List photographs that have a mask, sorted by name, with a finding for every file that has no partner."""
    root = Path(recipe.data.path)
    images, stray = list_images(root / recipe.data.images)
    masks, stray_masks = list_images(root / recipe.data.masks)
    by_stem = {path.stem: path for path in masks}
    findings = [("warning", f'"{path.name}" is no picture and is left out.') for path in stray + stray_masks]
    seen: dict[str, Path] = {}
    for path in images:
        if path.stem in seen:
            findings.append(("warning", f'"{path.name}" has the name of "{seen[path.stem].name}" and is left out.'))
        elif path.stem not in by_stem:
            findings.append(("warning", f'"{path.name}" has no mask and is left out.'))
        else:
            seen[path.stem] = path
    used = {path.stem for path in images}
    findings += [("warning", f'The mask "{path.name}" has no photograph.') for path in masks if path.stem not in used]
    return [Pair(path, by_stem[stem]) for stem, path in sorted(seen.items())], findings


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
        wanted = recipe.augment.recolor_labels
        unknown = [name for name in wanted or () if name not in self.labels]
        if unknown:
            raise BadInput(f'augment.recolor_labels names "{unknown[0]}", which is no label of the data.')
        self.recolourable = [
            index for index, name in enumerate(self.labels) if (name in wanted if wanted is not None else index > 0)
        ]

    @functools.cached_property
    def examples(self) -> list[Example] | None:
        """Decoded training photographs, where the recipe keeps them in memory."""
        return [pair.read() for pair in self.train] if self.recipe.data.cache else None

    @functools.cached_property
    def statistics(self) -> tuple[Tensor, NDArray[np.float64]]:
        """Pixels per class [C] and how often each training photograph is shown per epoch [N]."""
        classes = len(self.labels)
        pixels, present = np.zeros(classes, np.int64), np.zeros((len(self.train), classes), bool)
        for index in range(len(self.train)):
            counts = np.bincount(self._example(index).mask.ravel(), minlength=256)[:classes]
            pixels += counts
            present[index] = counts > 0
        frequency = np.maximum(present.mean(axis=0), 1 / len(self.train))
        settings = self.recipe.data
        factor = np.maximum(1.0, (settings.repeat_below / frequency) ** settings.repeat_power)
        return torch.from_numpy(pixels), np.where(present, factor, 1.0).max(axis=1)

    @functools.cached_property
    def weights(self) -> Tensor | None:
        """Weight of every class [C] in the cross-entropy."""
        loss = self.recipe.loss
        if loss.class_weight_power == 0:
            return None
        return class_weights(self.statistics[0], loss.class_weight_power, loss.class_weight_max)

    def prepare(self) -> None:
        """Read the data once, before workers are started, so that they share it."""
        _ = self.examples, self.statistics, self.weights

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

    def epoch_order(self, epoch: int) -> NDArray[np.int64]:
        """Return an epoch's photographs; those with rare classes may come more than once."""
        repeats = self.statistics[1] if self.recipe.data.repeat_below > 0 else None
        return shuffled(len(self.train), self.recipe.train.seed, epoch, repeats)

    def example(self, ticket: Ticket) -> Example:
        """Make one augmented example."""
        recipe = self.recipe
        random = random_generator(recipe.train.seed, EXAMPLE_STREAM, ticket.epoch, ticket.position)
        donor = self._example(int(random.integers(len(self.train)))) if recipe.augment.copy_paste > 0 else None
        size_hw = recipe.train.stage_at(ticket.step).size_hw
        example = self._example(ticket.index)
        return augment(example, donor, size_hw, recipe.augment, self.table, self.recolourable, random)

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
        matrix = np.zeros((classes, classes + 1), np.int64)
        by_size: dict[tuple[int, int], list[Example]] = {}
        for pair in self.validation:
            example = pair.read()
            by_size.setdefault(working_size(example.mask.shape, self.recipe.preprocessing), []).append(example)
        for size_hw, examples in by_size.items():
            for start in range(0, len(examples), _EVALUATION_BATCH):
                part = examples[start : start + _EVALUATION_BATCH]
                images = torch.from_numpy(np.stack([_resized(example.image, size_hw) for example in part]))
                pixels = normalise(images.to(device), self.recipe.preprocessing)
                logits = module(pixels)["logits"].float().cpu()
                for example, grid in zip(part, logits, strict=True):
                    matrix += confusion(example.mask, predicted_labels(grid, example.mask.shape), classes)
        figures = segmentation_figures(class_counts(matrix))
        return {name: float(value) for name, value in figures.items()}

    def check(self) -> Iterator[tuple[str, str]]:
        """Yield what is odd about the folders and the masks."""
        yield from self.findings

    def _example(self, index: int) -> Example:
        return self.examples[index] if self.examples is not None else self.train[index].read()


def normalise(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Turn uint8 [B,H,W,3] into the network's float input [B,3,H,W] (channels-last in memory)."""
    mean, std = (torch.tensor(values, device=images.device) for values in (preprocessing.mean, preprocessing.std))
    return ((images.float() * preprocessing.rescale_factor - mean) / std).permute(0, 3, 1, 2)


def working_size(shape_hw: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int]:
    """Return the size the network sees a photograph at."""
    if preprocessing.height is not None and preprocessing.width is not None:
        return preprocessing.height, preprocessing.width
    scale = (preprocessing.longest_edge or max(shape_hw)) / max(shape_hw)
    unit = preprocessing.multiple_of
    height, width = (max(round(side * scale / unit), 1) * unit for side in shape_hw)
    return height, width


def predicted_labels(logits: Tensor, size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Bring logits [C,h,w] to a size and take the best class of every pixel."""
    full = F.interpolate(logits[None], size=size_hw, mode="bilinear", align_corners=False)
    return full[0].argmax(dim=0).numpy().astype(np.uint8)


def _resized(image: NDArray[np.uint8], size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(image).resize((size_hw[1], size_hw[0]), Image.Resampling.BILINEAR))

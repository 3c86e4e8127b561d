"""Photographs and their masks as files: which belong together, and what is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imagesmith.core.errors import BadImage, BadInput
from imagesmith.training.augment import IGNORE, Example
from imagesmith.training.data import TOLERATED_SHARE, list_images, read_image
from imagesmith.training.recipe import SegmentRecipe


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


def check_pairs(pairs: Sequence[Pair], labels: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Read every pair and yield what is wrong, and how the pixels are spread over the classes."""
    counts = np.zeros(256, np.int64)
    unreadable = 0
    for pair in pairs:
        try:
            found = np.bincount(pair.read().mask.ravel(), minlength=256)
        except BadImage as error:
            unreadable += 1
            yield "warning", str(error)
            continue
        counts += found
        outside = [int(index) for index in np.flatnonzero(found) if len(labels) <= index != IGNORE]
        if outside:
            yield (
                "error",
                (
                    f'The mask "{pair.mask.name}" has class id {outside[0]}, but the labels end at {len(labels) - 1} '
                    f"({IGNORE} is ignored)."
                ),
            )
    if unreadable > TOLERATED_SHARE * len(pairs):
        yield "error", f"{unreadable} of {len(pairs)} photographs or masks cannot be used; at most 5 % may be left out."
    yield from _histogram(counts[: len(labels)], labels)


def _histogram(counts: NDArray[np.int64], labels: Sequence[str]) -> Iterator[tuple[str, str]]:
    empty = [name for name, count in zip(labels, counts, strict=True) if count == 0]
    if empty:
        yield "warning", f"No pixel has the label {', '.join(empty)}; the model cannot learn it."
    total = max(int(counts.sum()), 1)
    order = np.argsort(-counts, kind="stable")
    shares = ", ".join(f"{labels[index]} {counts[index] / total:.1%}" for index in order[:8] if counts[index])
    yield "note", f"largest shares of the pixels: {shares}"

"""Rebuild the training packs from their public sources, so that anyone can repeat the figures.

A pack is what the recipes and `imagesmith evaluate` read: `images/` and `masks/` with `labels.json`, a folder per
class, or `images/` with COCO `annotations.json`. Everything is written aside and renamed at the end; the same source
gives the same bytes, so running it again changes nothing.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from imagesmith.core.errors import BadInput, did_you_mean
from imagesmith.image.metadata import write_json
from imagesmith.training.sources import (
    Part,
    Progress,
    build_ccp,
    build_celebamask,
    build_coco,
    build_lfw,
    build_pennfudan,
)

MARK = "pack.json"
"""Written into every pack; says what it was made of."""


@dataclass(frozen=True)
class Prepared:
    """What was written where."""

    pack: str
    out: Path
    images: int
    detail: str

    def __str__(self) -> str:
        return f"{self.out}: {self.images} photographs, {self.detail} ({self.pack})"


@dataclass(frozen=True)
class _Source:
    """A public source: who builds its pack, what its folder holds, where it comes from."""

    build: Callable[[Path, Path, Part, Progress], tuple[int, str]]
    layout: str
    origin: str
    licence: str


def prepare(
    pack: str, source: str | Path, out: str | Path, *, part: Part = "train", progress: Progress | None = None
) -> Prepared:
    """Build a pack from the unpacked public source.

    `pack` is one of ccp, celebamask, lfw, pennfudan, coco. An earlier pack of the same kind in `out` is replaced once
    the new one is whole; anything else in `out` is left alone. Raises `BadInput` where the source does not look like
    it should, and `BadImage` for a photograph that cannot be read.
    """
    kind = SOURCES.get(pack)
    if kind is None:
        near = did_you_mean(pack, SOURCES)
        raise BadInput(f'There is no pack "{pack}".{near} There are: {", ".join(SOURCES)}.')
    source, out = Path(source), Path(out)
    if not source.is_dir():
        raise BadInput(f'"{source}" is no folder; unpack {kind.origin} there: {kind.layout}.')
    _check_target(pack, out)
    aside = out.with_name(out.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        images, detail = kind.build(source, aside, part, progress or _silent)
        if not images:
            raise BadInput(f'"{source}" has no photograph of the part "{part}"; it should hold {kind.layout}.')
        mark = {"pack": pack, "part": part, "images": images, "source": kind.origin, "licence": kind.licence}
        write_json(aside / MARK, mark)
        _replace(aside, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Prepared(pack, out, images, detail)


def _check_target(pack: str, out: Path) -> None:
    """Refuse a folder that holds something other than an earlier pack of this kind."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        mark = json.loads((out / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        mark = None
    if not isinstance(mark, dict) or mark.get("pack") != pack:
        raise BadInput(f'"{out}" exists and is no earlier "{pack}" pack; give a new or empty folder.')


def _replace(aside: Path, out: Path) -> None:
    old = out.with_name(out.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        os.replace(out, old)
    os.replace(aside, out)
    shutil.rmtree(old, ignore_errors=True)


def _silent(done: int, total: int) -> None:
    """Say nothing."""


SOURCES: dict[str, _Source] = {
    "ccp": _Source(
        build_ccp,
        "photos/, annotations/pixel-level/*.mat and label_list.mat",
        "Clothing Co-Parsing (github.com/bearpaw/clothing-co-parsing)",
        "Apache-2.0",
    ),
    "celebamask": _Source(
        build_celebamask,
        "CelebA-HQ-img/ and CelebAMask-HQ-mask-anno/",
        "CelebAMask-HQ (github.com/switchablenorms/CelebAMask-HQ)",
        "non-commercial research",
    ),
    "lfw": _Source(
        build_lfw,
        "lfw/NAME/NAME_0001.jpg, female_names.txt and male_names.txt",
        "Labeled Faces in the Wild with gender lists",
        "research use",
    ),
    "pennfudan": _Source(
        build_pennfudan, "PNGImages/ and Annotation/", "the Penn-Fudan pedestrian database", "research use"
    ),
    "coco": _Source(
        build_coco,
        "annotations/instances_train2017.json and train2017/",
        "COCO (cocodataset.org)",
        "annotations CC BY 4.0, photographs under their Flickr terms",
    ),
}
"""Every pack that can be rebuilt."""

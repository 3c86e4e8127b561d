"""Find the head in a photograph, for models that read faces."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from imagesmith.core.specs import ModelSpec
from imagesmith.image.masks import components, grow, mask_box, shrink
from imagesmith.image.photo import Photo
from imagesmith.image.results import Box, Detections, Segmentation, is_background, plain_name

ENLARGE = 1.5
"""The crop's side, as a multiple of the head's longer side: some surroundings, as in portraits."""
_GROUPS = ({"hair"}, {"face", "skin"}, {"hat", "sunglasses", "glasses"})
"""Labels that make a head: hair, face, and what is worn there."""
_ASPECT = 1.35
"""A head's height is at most this multiple of its width; below that begin neck, long hair and shoulders."""
_WORKING_SIDE = 320
"""Masks are searched at no more than this many pixels along the longer side."""
_SHOULDERS = 1.5
"""A row this much wider than all above it, once those are as high as wide, is shoulders."""
_BRIDGE = 0.012
"""Half the width of what still counts as a bridge between parts, as a share of the photograph's longer side."""
_LEAST_HEIGHT = 1 / 14
"""A head's least height as a share of the person's; standing persons have about a seventh."""
_MOST_PARTS = 12
_LEAST_SHARE = 0.01
"""Least share of the person that a head takes; smaller specks of hair or skin are passed over."""
_ALL_OF_IT = 0.6
"""A crop of more than this share of the photograph gains nothing: it already is a portrait."""
_GENDER_WORDS = {"female", "male", "woman", "man", "women", "men", "girl", "boy"}
_FACE_WORDS = {"gender", "face", "facial", "emotion", "emotions", "age", "expression"}


@dataclass(frozen=True)
class Crop:
    """A part of a photograph: its pixels, where it was, and a sentence that says so."""

    photo: Photo
    box_xyxy: Box
    note: str


def reads_faces(spec: ModelSpec) -> bool:
    """Tell whether a model was made for faces, judging by its labels and its name.

    >>> reads_faces(ModelSpec(name="x/gender-vit", task="classify", architecture="vit", source="hub:x/gender-vit"))
    True
    """
    labels = {plain_name(label) for label in spec.labels}
    words = set(re.findall(r"[a-z]+", spec.name.rsplit("/", 1)[-1].lower()))
    if spec.task == "segment":
        return "nose" in labels
    return (bool(labels) and labels <= _GENDER_WORDS) or bool(words & _FACE_WORDS)


def crop_head(
    photo: Photo, segmentation: Segmentation | None, detections: Detections | Callable[[], Detections] | None
) -> Crop | None:
    """Cut out the largest head, with some surroundings, as a square where the photograph allows it.

    The head is hair and face (or skin) that touch, cut to a head's proportions; where no segmentation finds one, it is
    the upper part of the largest person's box. The crop's side is 1.5 times the head's longer side. Returns None where
    there is no person, or where the crop would be most of the photograph anyway. Detections may be given as a function,
    which is called only where the segmentation shows no head.
    """
    head = None if segmentation is None else _head_of_labels(segmentation)
    source = "hair and skin"
    if head is None and detections is not None:
        found = detections() if callable(detections) else detections
        head, source = _head_of_person(found), "the person's box"
    if head is None:
        return None
    box = _square_around(head, photo.size_hw)
    left, top, right, bottom = box
    if (right - left) * (bottom - top) > _ALL_OF_IT * photo.height * photo.width:
        return None
    cut = replace(
        photo,
        pixels=np.ascontiguousarray(photo.pixels[top:bottom, left:right]),
        alpha=None if photo.alpha is None else np.ascontiguousarray(photo.alpha[top:bottom, left:right]),
    )
    return Crop(cut, box, f"looked only at the head ({left}, {top} to {right}, {bottom}), found by {source}")


def _head_of_labels(segmentation: Segmentation) -> tuple[float, float, float, float] | None:
    """Return the box of the largest head, or None where there is no hair, face or skin.

    A head has hair and face together: the part with most of both is taken, so that hands, legs and stray specks lose.
    Where no part has both (a bald head, a hat), the topmost one is.
    """
    step = -(-max(segmentation.size_hw) // _WORKING_SIDE)
    labels = segmentation.labels_hw[::step, ::step]
    names = [plain_name(name) for name in segmentation.names]
    hair, face, worn = (np.isin(labels, [i for i, name in enumerate(names) if name in group]) for group in _GROUPS)
    person = np.isin(labels, [i for i, name in enumerate(segmentation.names) if not is_background(name)])
    everything = hair | face | worn
    _, top, _, bottom = mask_box(person) or (0, 0, 0, 0)
    heads: list[tuple[float, int, Box]] = []
    for part in _parts(everything):
        inside = part & everything
        if inside.sum() < _LEAST_SHARE * person.sum():
            continue
        if not (inside & (hair | face)).any():
            continue
        box = _head_part(inside, _LEAST_HEIGHT * (bottom - top))
        here = (slice(box[1], box[3]), slice(box[0], box[2]))
        both = float((inside & hair)[here].sum()) * float((inside & face)[here].sum())
        heads.append((-both, box[1], box))
    if not heads:
        return None
    left, top, right, bottom = min(heads)[2]
    return left * step, top * step, right * step, bottom * step


def _parts(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """Cut a mask into parts, breaking thin bridges (a strand of hair, a strip of noise) where the parts survive it."""
    joined = grow(mask, 1)  # a line of other pixels must not cut the hair off the face
    thin = _BRIDGE * max(mask.shape)
    cores = components(shrink(joined, thin))
    if not len(cores):
        whole = components(joined)
        return [whole.mask(index) for index in range(len(whole))]
    return [grow(cores.mask(index), thin + 1) for index in range(min(len(cores), _MOST_PARTS))]


def _head_part(mask: NDArray[np.bool_], least_rows: float) -> Box:
    """Cut a part that may run on into neck, chest and arms to a head's proportions, from its top.

    No head is lower than `least_rows`: a strand of hair that stands up has proportions too.
    """
    _, top, _, bottom = mask_box(mask) or (0, 0, 1, 1)
    first = np.where(mask.any(axis=1), mask.argmax(axis=1), mask.shape[1])[top:bottom]
    last = np.where(mask.any(axis=1), mask.shape[1] - mask[:, ::-1].argmax(axis=1), 0)[top:bottom]
    width = np.maximum.accumulate(last) - np.minimum.accumulate(first)  # of everything down to each row
    height = np.arange(1, bottom - top + 1)
    shoulders = (last - first)[1:] > _SHOULDERS * width[:-1]
    ends = (height >= _ASPECT * width) | np.append(shoulders & (height >= width)[:-1], False)
    ends &= height >= least_rows
    rows = int(ends.argmax()) + 1 if ends.any() else bottom - top
    return int(first[:rows].min()), top, int(last[:rows].max()), top + rows


def _head_of_person(detections: Detections) -> tuple[float, float, float, float] | None:
    """Guess the head from the largest person's box: a square at its upper middle."""
    people = detections.named("person")
    if not len(people):
        return None
    sides = people.boxes_xyxy[:, 2:] - people.boxes_xyxy[:, :2]
    left, top, right, bottom = people.boxes_xyxy[int(sides.prod(axis=1).argmax())].tolist()
    height = bottom - top
    side = min(max(0.55 * (right - left), 0.15 * height), 0.6 * height)  # about a seventh of a standing person
    middle = (left + right) / 2
    return middle - side / 2, top, middle + side / 2, top + side


def _square_around(head: tuple[float, float, float, float], size_hw: tuple[int, int]) -> Box:
    """Return the square around a head, moved inside the photograph and cut where it is larger than that."""
    height, width = size_hw
    side = max(1, round(ENLARGE * max(head[2] - head[0], head[3] - head[1])))
    wide, tall = min(side, width), min(side, height)
    left = min(max(round((head[0] + head[2] - wide) / 2), 0), width - wide)
    top = min(max(round((head[1] + head[3] - tall) / 2), 0), height - tall)
    return left, top, left + wide, top + tall

"""Find objects with a DETR: no suppression needed, each query answers for one object."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from imagesmith.core.protocols import Array, Engine
from imagesmith.core.requests import DetectRequest
from imagesmith.core.specs import ModelSpec
from imagesmith.image.boxes import clip_boxes, cxcywh_to_xyxy, nms, soft_nms
from imagesmith.image.geometry import target_size, to_input
from imagesmith.image.photo import Photo
from imagesmith.image.results import Detections
from imagesmith.vision.batching import Plan, Size, run_in_batches
from imagesmith.vision.outputs import boxes_of

PADDING = 0.15
"""Share of a batch that may be padding, for engines that take a mask."""


class Candidates(NamedTuple):
    """One guess per query: boxes (Q, 4) as left, top, right, bottom in pixels, scores (Q,) and label ids (Q,)."""

    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    label_ids: NDArray[np.int64]


def detect(photos: Iterable[Photo], engine: Engine, spec: ModelSpec, request: DetectRequest) -> Iterator[Detections]:
    """Yield one `Detections` per photograph, in order, with boxes in the photograph's own pixels, best first.

    Photographs of nearly equal input size share a network call where the engine takes a `pixel_mask`; the mask is
    given only where there is padding. Without that input only equal sizes share a call. Boxes are cut to the picture.

    Raises:
        EngineFailed: the network's answer has another shape than the model's spec says, or is not finite.
    """
    takes_mask = "pixel_mask" in engine.inputs

    def run(batch: Sequence[Photo], sizes: Sequence[Size]) -> list[Detections]:
        arrays = [to_input(photo.pixels, spec.preprocessing, size) for photo, size in zip(batch, sizes, strict=True)]
        logits, boxes = boxes_of(engine, pad_inputs(arrays), len(batch), spec)
        return [
            _result(select(read_queries(scores, places, spec.labels, photo.size_hw), request), photo, spec)
            for scores, places, photo in zip(logits, boxes, batch, strict=True)
        ]

    plan: Plan[Photo] = Plan(
        size_of=lambda photo: target_size(photo.height, photo.width, spec.preprocessing, request.resolution),
        pixels_of=lambda photo: photo.height * photo.width,
        batch_size=request.batch_size,
        padding=PADDING if takes_mask else 0.0,
    )
    return run_in_batches(photos, plan, run)


def pad_inputs(arrays: Sequence[NDArray[np.float32]]) -> dict[str, Array]:
    """Stack inputs (3, h, w) of different sizes: zeros to the right and below, and a mask, 1 on photographs.

    Without padding there is no mask: attention over all of a picture needs none.

    >>> sorted(pad_inputs([np.zeros((3, 4, 4), np.float32)] * 2))
    ['pixel_values']
    """
    height, width = (max(array.shape[axis] for array in arrays) for axis in (1, 2))
    if all(array.shape[1:] == (height, width) for array in arrays):
        return {"pixel_values": np.stack(arrays)}
    values = np.zeros((len(arrays), 3, height, width), np.float32)
    mask = np.zeros((len(arrays), height, width), np.int64)
    for index, array in enumerate(arrays):
        values[index, :, : array.shape[1], : array.shape[2]] = array
        mask[index, : array.shape[1], : array.shape[2]] = 1
    return {"pixel_values": values, "pixel_mask": mask}


def read_queries(
    logits: NDArray[np.float32], boxes_cxcywh: NDArray[np.float32], labels: Sequence[str], size_hw: Size
) -> Candidates:
    """Read every query's best named class and its box: logits (Q, C + 1), the last class being "no object".

    `boxes_cxcywh` (Q, 4) are shares of the photograph (centre, width, height). Classes with an empty name (COCO's
    gaps) are never chosen. With all classes named this equals transformers' `post_process_object_detection`.
    """
    shifted = logits - logits.max(axis=-1, keepdims=True)
    weights = np.exp(shifted)
    probabilities = weights / weights.sum(axis=-1, keepdims=True)
    named = np.array([bool(label) for label in labels])
    choice = np.where(named, probabilities[:, : len(labels)], -1)
    label_ids = choice.argmax(axis=-1)
    scores = np.take_along_axis(choice, label_ids[:, None], axis=-1)[:, 0]
    height, width = size_hw
    boxes = cxcywh_to_xyxy(boxes_cxcywh) * np.array([width, height, width, height], np.float32)
    return Candidates(boxes.astype(np.float32), scores.astype(np.float32), label_ids.astype(np.int64))


def select(found: Candidates, request: DetectRequest) -> Candidates:
    """Keep what scores above the threshold, suppress overlaps where asked, sort, and cut to the best `top_n`."""
    found = _take(found, np.flatnonzero(found.scores > request.threshold))
    if request.nms == "hard":
        found = _take(found, nms(found.boxes_xyxy, found.scores, request.nms_iou, labels=found.label_ids))
    elif request.nms == "soft":
        kept, lowered = soft_nms(
            found.boxes_xyxy, found.scores, least_score=max(request.threshold, 1e-3), labels=found.label_ids
        )
        found = _take(found, kept)._replace(scores=lowered.astype(np.float32))
    return _take(found, np.argsort(-found.scores, kind="stable")[: request.top_n])


def _take(found: Candidates, which: Array) -> Candidates:
    return Candidates(found.boxes_xyxy[which], found.scores[which], found.label_ids[which])


def _result(found: Candidates, photo: Photo, spec: ModelSpec) -> Detections:
    return Detections(
        boxes_xyxy=clip_boxes(found.boxes_xyxy, photo.size_hw),
        scores=found.scores,
        label_ids=found.label_ids,
        labels=tuple(spec.labels[index] for index in found.label_ids.tolist()),
        model=spec.name,
        image=photo.name,
        size_hw=photo.size_hw,
    )

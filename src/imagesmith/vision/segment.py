"""Label the pixels of photographs: preprocess, run, upsample exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from imagesmith.core.errors import BadInput
from imagesmith.core.protocols import Engine
from imagesmith.core.requests import SegmentRequest
from imagesmith.core.specs import ModelSpec
from imagesmith.image.geometry import target_size, to_input
from imagesmith.image.photo import Photo
from imagesmith.image.results import UNSURE, Box, Segmentation, is_background
from imagesmith.vision.batching import Plan, Size, run_in_batches
from imagesmith.vision.certainty import certainty, grid_uncertainty
from imagesmith.vision.heads import Crop
from imagesmith.vision.outputs import logits_of
from imagesmith.vision.upsample import Floats, upsample_labels

Look = tuple[Photo, Crop | None]


def segment(
    photos: Iterable[Photo],
    engine: Engine,
    spec: ModelSpec,
    request: SegmentRequest,
    *,
    crop: Callable[[Photo], Crop | None] | None = None,
) -> Iterator[Segmentation]:
    """Yield one `Segmentation` per photograph, in order and at its own size; photographs of equal input size share
    a network call.

    Labels equal the argmax of the bilinearly upsampled logits on every pixel. `crop` finds the part to look at (see
    `crop_head`), or returns None for all of the photograph; what lies outside it is background. Lazy: reads ahead at
    most a few batches.

    Raises:
        EngineFailed: the network's answer has another shape than the model's spec says, or is not finite.
    """

    def looks() -> Iterator[Look]:
        for photo in photos:
            yield photo, crop(photo) if crop is not None else None

    def run(batch: Sequence[Look], sizes: Sequence[Size]) -> list[Segmentation]:
        seen = [photo if part is None else part.photo for photo, part in batch]
        inputs = np.stack(
            [to_input(photo.pixels, spec.preprocessing, size) for photo, size in zip(seen, sizes, strict=True)]
        )
        logits = logits_of(engine, {"pixel_values": inputs}, (len(batch), len(spec.labels), None, None), spec)
        results = [read_logits(values, photo, spec, request) for values, photo in zip(logits, seen, strict=True)]
        return [
            result if part is None else place(result, part.box_xyxy, photo.size_hw)
            for result, (photo, part) in zip(results, batch, strict=True)
        ]

    def size_of(look: Look) -> Size:
        photo = look[0] if look[1] is None else look[1].photo
        return target_size(photo.height, photo.width, spec.preprocessing, request.resolution)

    plan: Plan[Look] = Plan(
        size_of=size_of,
        pixels_of=lambda look: look[0].height * look[0].width,
        batch_size=request.batch_size,
    )
    return run_in_batches(looks(), plan, run)


def place(part: Segmentation, box_xyxy: Box, size_hw: Size) -> Segmentation:
    """Put the result of a crop back where it was cut; around it lies background, of which the model is sure.

    >>> inner = Segmentation(np.ones((1, 1), np.uint8), ("background", "nose"), "demo", "photo.jpg")
    >>> place(inner, (1, 0, 2, 1), (1, 3)).labels_hw.tolist()
    [[0, 1, 0]]
    """
    background = next((index for index, name in enumerate(part.names) if is_background(name)), UNSURE)
    left, top, right, bottom = box_xyxy

    def spread(inner: Floats | None, around: float) -> Floats | None:
        if inner is None:
            return None
        whole = np.full((*inner.shape[:-2], *size_hw), around, np.float32)
        whole[..., top:bottom, left:right] = inner
        return whole

    labels = np.full(size_hw, background, np.uint8)
    labels[top:bottom, left:right] = part.labels_hw
    probabilities = spread(part.probabilities, 0.0)
    if probabilities is not None and background != UNSURE:
        outside = np.ones(size_hw, np.bool_)
        outside[top:bottom, left:right] = False
        probabilities[background][outside] = 1.0
    return replace(
        part,
        labels_hw=labels,
        confidence=spread(part.confidence, 1.0),
        entropy=spread(part.entropy, 0.0),
        probabilities=probabilities,
        cropped_xyxy=box_xyxy,
    )


def read_logits(logits: Floats, photo: Photo, spec: ModelSpec, request: SegmentRequest) -> Segmentation:
    """Turn one photograph's logits (C, h, w) into its result at full size."""
    labels = upsample_labels(logits, photo.size_hw)
    maps = certainty(
        logits,
        photo.size_hw,
        confidence=request.confidence or request.threshold is not None,
        entropy=request.entropy,
        probabilities=request.probabilities,
    )
    if request.threshold is not None and maps.confidence is not None:
        labels[maps.confidence < request.threshold] = UNSURE
    return Segmentation(
        labels_hw=labels,
        names=spec.labels,
        model=spec.name,
        image=photo.name,
        confidence=maps.confidence if request.confidence else None,
        entropy=maps.entropy,
        probabilities=maps.probabilities,
        uncertainty=grid_uncertainty(logits),
    )


def rank_by_uncertainty(results: Iterable[Segmentation]) -> list[Segmentation]:
    """Sort results so that the photograph the model is least certain of comes first: the next to label by hand.

    Equal uncertainties are ordered by name. Raises `BadInput` for a result that was made without uncertainty.
    """
    ranked = list(results)
    for result in ranked:
        if result.uncertainty is None:
            raise BadInput(f"Cannot rank {result.image}: its result has no uncertainty; make it with segment().")
    return sorted(ranked, key=lambda result: (-(result.uncertainty or 0.0), result.image))

"""Label the pixels of photographs: preprocess, run, upsample exactly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from imagesmith.core.errors import BadInput
from imagesmith.core.protocols import Engine
from imagesmith.core.requests import SegmentRequest
from imagesmith.core.specs import ModelSpec
from imagesmith.image.geometry import target_size, to_input
from imagesmith.image.photo import Photo
from imagesmith.image.results import UNSURE, Segmentation
from imagesmith.vision.batching import Plan, Size, run_in_batches
from imagesmith.vision.certainty import certainty, grid_uncertainty
from imagesmith.vision.outputs import logits_of
from imagesmith.vision.upsample import Floats, upsample_labels


def segment(
    photos: Iterable[Photo], engine: Engine, spec: ModelSpec, request: SegmentRequest
) -> Iterator[Segmentation]:
    """Yield one `Segmentation` per photograph, in order and at its own size; photographs of equal input size share
    a network call.

    Labels equal the argmax of the bilinearly upsampled logits on every pixel. Lazy: reads ahead at most a few batches.

    Raises:
        EngineFailed: the network's answer has another shape than the model's spec says, or is not finite.
    """

    def run(batch: Sequence[Photo], sizes: Sequence[Size]) -> list[Segmentation]:
        inputs = np.stack(
            [to_input(photo.pixels, spec.preprocessing, size) for photo, size in zip(batch, sizes, strict=True)]
        )
        logits = logits_of(engine, {"pixel_values": inputs}, (len(batch), len(spec.labels), None, None), spec)
        return [read_logits(values, photo, spec, request) for values, photo in zip(logits, batch, strict=True)]

    plan: Plan[Photo] = Plan(
        size_of=lambda photo: target_size(photo.height, photo.width, spec.preprocessing, request.resolution),
        pixels_of=lambda photo: photo.height * photo.width,
        batch_size=request.batch_size,
    )
    return run_in_batches(photos, plan, run)


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

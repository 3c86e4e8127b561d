"""Name what whole photographs show; models that read faces look at the head only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from imagesmith.core.errors import EngineFailed
from imagesmith.core.protocols import Engine
from imagesmith.core.requests import ClassifyRequest
from imagesmith.core.specs import ModelSpec
from imagesmith.image.geometry import target_size, to_input
from imagesmith.image.photo import Photo
from imagesmith.image.results import Classification
from imagesmith.vision.batching import Plan, Size, run_in_batches
from imagesmith.vision.heads import Crop, crop_head, reads_faces
from imagesmith.vision.outputs import logits_of

__all__ = ["Crop", "classify", "crop_head", "probabilities_of", "reads_faces"]

Look = tuple[Photo, Crop | None]


def classify(
    photos: Iterable[Photo],
    engine: Engine,
    spec: ModelSpec,
    request: ClassifyRequest,
    *,
    crop: Callable[[Photo], Crop | None] | None = None,
) -> Iterator[Classification]:
    """Yield one `Classification` per photograph, in order; the `top_k` labels, most probable first.

    `crop` finds the part to look at (see `crop_head`), or returns None for all of the photograph; it is not asked
    where the request says crop="none". A result says what was cropped, and that a face model's label is a guess.

    Raises:
        EngineFailed: the network's answer has another shape than the model's spec says, or is not finite.
    """

    def looks() -> Iterator[Look]:
        for photo in photos:
            yield photo, crop(photo) if crop is not None and request.crop == "auto" else None

    def run(batch: Sequence[Look], sizes: Sequence[Size]) -> list[Classification]:
        inputs = np.stack(
            [to_input(_seen(look).pixels, spec.preprocessing, size) for look, size in zip(batch, sizes, strict=True)]
        )
        logits = logits_of(engine, {"pixel_values": inputs}, (len(batch), len(spec.labels)), spec)
        if not np.isfinite(logits).all():
            raise EngineFailed(f"{spec.name} gave NaN or infinity; try --precision fp32 or another --engine.")
        rows = probabilities_of(logits, multi_label=spec.multi_label)
        return [_result(scores, look, spec, request) for scores, look in zip(rows, batch, strict=True)]

    plan: Plan[Look] = Plan(
        size_of=lambda look: target_size(_seen(look).height, _seen(look).width, spec.preprocessing, request.resolution),
        pixels_of=lambda look: look[0].height * look[0].width,
        batch_size=request.batch_size,
    )
    return run_in_batches(looks(), plan, run)


def probabilities_of(logits: NDArray[np.float32], *, multi_label: bool) -> NDArray[np.float32]:
    """Return probabilities (N, C) of logits (N, C): softmax over classes, or for multi-label models sigmoid of each.

    >>> probabilities_of(np.array([[0.0, 0.0]], np.float32), multi_label=False).tolist()
    [[0.5, 0.5]]
    """
    values = logits.astype(np.float64)
    if multi_label:
        # Two forms of one function: neither exponentiates a large positive number.
        small = np.exp(-np.abs(values))
        return (np.where(values >= 0, 1, small) / (1 + small)).astype(np.float32)
    weights = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True), np.float32)


def _seen(look: Look) -> Photo:
    photo, crop = look
    return photo if crop is None else crop.photo


def _result(scores: NDArray[np.float32], look: Look, spec: ModelSpec, request: ClassifyRequest) -> Classification:
    photo, crop = look
    order = np.argsort(-scores, kind="stable")[: request.top_k]
    return Classification(
        labels=tuple(spec.labels[index] for index in order.tolist()),
        scores=scores[order],
        model=spec.name,
        image=photo.name,
        cropped_xyxy=None if crop is None else crop.box_xyxy,
        note=_note(scores[order[0]], crop, spec),
    )


def _note(best: np.float32, crop: Crop | None, spec: ModelSpec) -> str:
    """Say that a label read off a face is a guess, and what was looked at."""
    if reads_faces(spec):
        seen = "it looked at all of the photograph" if crop is None else f"it {crop.note}"
        return f"The model's guess, {best:.0%} sure; {seen}."
    return "" if crop is None else f"The model {crop.note}."

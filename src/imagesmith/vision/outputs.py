"""Run an engine and check its answer, so that a wrong label list or a broken network is one sentence."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from imagesmith.core.errors import EngineFailed
from imagesmith.core.protocols import Array, Engine
from imagesmith.core.specs import ModelSpec


def logits_of(engine: Engine, inputs: Mapping[str, Array], shape: tuple[int | None, ...], spec: ModelSpec) -> Array:
    """Run an engine and return its `logits`, checked against a shape in which None stands for any length."""
    logits = engine.run(inputs).get("logits")
    if logits is None:
        raise EngineFailed(f'{spec.name} gave no output called "logits", which every {spec.task} model must give.')
    fits = len(logits.shape) == len(shape) and all(
        wanted in (None, found) for wanted, found in zip(shape, logits.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        raise EngineFailed(
            f"{spec.name} was expected to give logits of shape ({wanted}), from its {len(spec.labels)} labels, but "
            f"gave {tuple(logits.shape)}; its label list and its weights do not belong together."
        )
    return logits


def boxes_of(engine: Engine, inputs: Mapping[str, Array], count: int, spec: ModelSpec) -> tuple[Array, Array]:
    """Run a detector and return its logits (N, Q, C + 1) and boxes (N, Q, 4), checked."""
    outputs = engine.run(inputs)
    logits, boxes = outputs.get("logits"), outputs.get("pred_boxes")
    if logits is None or boxes is None:
        raise EngineFailed(f'{spec.name} was expected to give "logits" and "pred_boxes", but gave {sorted(outputs)}.')
    queries = boxes.shape[1] if boxes.ndim == 3 else -1
    classes = len(spec.labels) + 1
    if logits.shape != (count, queries, classes) or boxes.shape != (count, queries, 4):
        raise EngineFailed(
            f"{spec.name} was expected to give logits ({count}, queries, {classes}), its labels and one for no object, "
            f"and boxes ({count}, queries, 4), but gave {logits.shape} and {boxes.shape}."
        )
    if not (np.isfinite(logits).all() and np.isfinite(boxes).all()):
        raise EngineFailed(
            f"{spec.name} gave NaN or infinity instead of scores; try --precision fp32 or another --engine."
        )
    return logits, boxes

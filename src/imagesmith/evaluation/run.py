"""Measure a model on labelled photographs: predict, tally, resample, report.

Photographs stream through one at a time; what is kept of each is a few counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imagesmith.core.errors import BadInput
from imagesmith.core.protocols import Engine
from imagesmith.core.requests import ClassifyRequest, DetectRequest, SeeRequest, SegmentRequest, make_request
from imagesmith.core.specs import ModelSpec
from imagesmith.evaluation.bootstrap import LEVEL, RESAMPLES, interval, resample
from imagesmith.evaluation.datasets import (
    Boxed,
    Classified,
    DataSet,
    GroupChoice,
    Segmented,
    map_labels,
    open_dataset,
    read_mask,
)
from imagesmith.evaluation.matching import match
from imagesmith.evaluation.metrics import class_counts, confusion
from imagesmith.evaluation.report import Figure, Report
from imagesmith.evaluation.splits import Split, person_of
from imagesmith.evaluation.tally import ClassifyTally, DetectTally, SegmentTally, Tally
from imagesmith.image.decode import Limits, Photo, decode_image
from imagesmith.image.records import is_background, plain_name
from imagesmith.image.results import Classification, Detections, Segmentation
from imagesmith.vision.classify import classify
from imagesmith.vision.detect import detect
from imagesmith.vision.segment import segment

Predict = Callable[[Iterable[Photo]], Iterator[Any]]
"""One result (`Segmentation`, `Classification` or `Detections`) per photograph, in order."""
Progress = Callable[[int, int], None]
"""Told how many photographs are done, and of how many."""


def evaluate(
    spec: ModelSpec,
    data: str | Path,
    predict: Predict,
    *,
    split: Split = "val",
    group: GroupChoice = "auto",
    resamples: int = RESAMPLES,
    seed: int = 0,
    limits: Limits = Limits(),
    progress: Progress | None = None,
) -> Report:
    """Measure one model; see `open_dataset` for how the data should lie, and `predictor` for `predict`.

    Raises `BadInput` where the data is not what the model's task needs or has labels it does not know, and
    `BadImage` for a photograph or mask that cannot be read: a figure over the readable rest would mislead.
    """
    dataset = open_dataset(spec.task, Path(data), split, group)
    tally = measure(spec, dataset, predict, limits=limits, progress=progress)
    return make_report(tally, spec, dataset, data=Path(data), split=split, resamples=resamples, seed=seed)


def predictor(engine: Engine, spec: ModelSpec, request: SeeRequest) -> Predict:
    """Return the function that runs the model's own task on photographs."""
    if isinstance(request, SegmentRequest):
        return lambda photos: segment(photos, engine, spec, request)
    if isinstance(request, ClassifyRequest):
        return lambda photos: classify(photos, engine, spec, request)
    if isinstance(request, DetectRequest):
        return lambda photos: detect(photos, engine, spec, request)
    raise BadInput(f"A model is measured to segment, classify or detect, not by a {type(request).__name__}.")


def request_for(spec: ModelSpec, **options: Any) -> SeeRequest:
    """Return the request a measurement makes: every label, every detection, the photograph as it is.

    >>> request_for(ModelSpec(name="m", task="detect", architecture="detr", source="folder:m")).threshold
    0.0
    """
    if spec.task == "segment":
        return make_request(SegmentRequest, {"model": spec.name, **options})
    if spec.task == "classify":
        fixed = {"top_k": max(len(spec.labels), 1), "crop": "none"}
        return make_request(ClassifyRequest, {"model": spec.name, **options, **fixed})
    return make_request(DetectRequest, {"model": spec.name, **options, "threshold": 0.0})


def measure(
    spec: ModelSpec,
    dataset: DataSet,
    predict: Predict,
    *,
    limits: Limits = Limits(),
    progress: Progress | None = None,
) -> Tally:
    """Run a model over a data set and keep what the figures need."""
    photos = (decode_image(path, limits=limits) for path in dataset.photos)
    results = _counted(predict(photos), len(dataset.photos), progress)
    if isinstance(dataset, Segmented):
        return _tally_segmented(spec, dataset, results)
    if isinstance(dataset, Classified):
        return _tally_classified(spec, dataset, results)
    return _tally_boxed(spec, dataset, results)


def make_report(
    tally: Tally,
    spec: ModelSpec,
    dataset: DataSet,
    *,
    data: Path,
    split: Split,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Report:
    """Resample a tally and write the report."""
    drawn = resample(tally.figures, tally.count, resamples=resamples, seed=seed, groups=groups_of(dataset))
    figures = {}
    for name, value in tally.point().items():
        bounds = interval(value, drawn[name])
        low, high = bounds if bounds is not None else (None, None)
        figures[name] = Figure(value=value if np.isfinite(value) else None, low=low, high=high)
    return Report(
        task=spec.task,
        model=spec.name,
        data=data.name,
        split=split,
        group=dataset.group,
        images=tally.count,
        figures=figures,
        classes=tally.rows(),
        details=tally.details(),
        level=LEVEL,
        resamples=resamples,
        seed=seed,
    )


def groups_of(dataset: DataSet) -> Sequence[str] | None:
    """Return the person of every photograph where they are drawn together, else None."""
    return [person_of(path.name) for path in dataset.photos] if dataset.group == "person" else None


def _counted(results: Iterator[Any], total: int, progress: Progress | None) -> Iterator[Any]:
    for done, result in enumerate(results, start=1):
        yield result
        if progress is not None:
            progress(done, total)


def _tally_segmented(spec: ModelSpec, dataset: Segmented, results: Iterator[Segmentation]) -> SegmentTally:
    names = dataset.labels or spec.labels
    if not 0 < len(names) <= 255:
        raise BadInput(f"A mask of 8 bits holds 1 to 255 classes, not {len(names)}; give the data a labels.json.")
    # Labels the data does not have become 255, which the confusion matrix counts as wrong.
    to_data = np.full(256, 255, dtype=np.uint8)
    to_data[list(map_labels(names, spec.labels, spec.name))] = np.arange(len(names))
    matrix = np.zeros((len(names), len(names) + 1), dtype=np.int64)
    counts = []
    for path, result in zip(dataset.masks, results, strict=True):
        truth = read_mask(path)
        if truth.shape != result.labels_hw.shape:
            raise BadInput(
                f'The mask "{path}" is {truth.shape[1]} x {truth.shape[0]}, but its photograph, upright, is '
                f"{result.labels_hw.shape[1]} x {result.labels_hw.shape[0]}; make them the same size."
            )
        single = confusion(truth, to_data[result.labels_hw], len(names))
        matrix += single
        counts.append(class_counts(single))
    background = next((index for index, name in enumerate(names) if is_background(name)), None)
    return SegmentTally(np.stack(counts), matrix, tuple(names), background)


def _tally_classified(spec: ModelSpec, dataset: Classified, results: Iterator[Classification]) -> ClassifyTally:
    wanted = np.array(map_labels(dataset.labels, spec.labels, spec.name), dtype=np.int64)
    place = {plain_name(name): index for index, name in reversed(list(enumerate(spec.labels)))}
    probabilities = np.zeros((len(dataset.photos), len(spec.labels)), dtype=np.float32)
    for row, result in zip(probabilities, results, strict=True):
        row[[place[plain_name(label)] for label in result.labels]] = result.scores
    return ClassifyTally(probabilities, wanted[list(dataset.truth)], spec.labels)


def _tally_boxed(spec: ModelSpec, dataset: Boxed, results: Iterator[Detections]) -> DetectTally:
    names = {category["id"]: category["name"] for category in dataset.truth["categories"]}
    map_labels(list(names.values()), spec.labels, spec.name)
    category_of = {plain_name(name): identity for identity, name in names.items()}
    found = []
    for identity, result in zip(dataset.image_ids, results, strict=True):
        corners = np.asarray(result.boxes_xyxy, dtype=np.float64)
        boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        for label, box, score in zip(result.labels, boxes.tolist(), result.scores.tolist(), strict=True):
            category = category_of.get(plain_name(label))
            # A class the data has no category for was never annotated: it is neither right nor wrong.
            if category is not None:
                found.append({"image_id": identity, "category_id": category, "bbox": box, "score": score})
    return DetectTally(match(dataset.truth, found), names)

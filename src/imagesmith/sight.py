"""Look at photographs: a request is joined with its model, its engine and its task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagesmith.core.errors import BadInput
from imagesmith.core.requests import (
    ClassifyRequest,
    DetectRequest,
    EngineOptions,
    SeeRequest,
    SegmentRequest,
    make_request,
)
from imagesmith.core.specs import ModelSpec, Task
from imagesmith.image.photo import Photo
from imagesmith.image.results import Detections, Segmentation
from imagesmith.models import catalogue
from imagesmith.vision.classify import classify, crop_head, reads_faces
from imagesmith.vision.detect import detect
from imagesmith.vision.segment import segment

if TYPE_CHECKING:
    from imagesmith.engines.pool import EnginePool
    from imagesmith.vision.heads import Crop

STARTERS: Mapping[Task, str] = {"segment": "starter/clothes", "classify": "starter/gender", "detect": "starter/detect"}
FACE_MODEL = "starter/face"
REQUESTS: Mapping[Task, type[SeeRequest]] = {
    "segment": SegmentRequest,
    "classify": ClassifyRequest,
    "detect": DetectRequest,
}


def open_pool() -> EnginePool:
    """Return a pool of engines that can convert weights where torch is installed; close it after use."""
    from imagesmith.engines.pool import EnginePool

    return EnginePool(convert=_convert)


def _convert(spec: ModelSpec, weights: Path, kind: str, allow_pickle: bool = False) -> Path:
    from imagesmith.exporting.export import convert

    return convert(spec, weights, kind, allow_pickle=allow_pickle)


def find_model(name: str | None, task: Task | None) -> ModelSpec:
    """Return the spec of a named model, or the starter of the task where none is named.

    Raises:
        BadInput: the model is for another task.
    """
    spec = catalogue.find(name or STARTERS[task or "segment"])
    if task is not None and spec.task != task:
        raise BadInput(f'{spec.name} is a model to {spec.task}, not to {task}; use it with "imagesmith {spec.task}".')
    return spec


def look(request: SeeRequest, photos: Iterator[Photo], pool: EnginePool, *, count: int | None = None) -> Iterator[Any]:
    """Yield the result of the request's task for each photograph; `count` says how many there are, where known."""
    task = next(task for task, kind in REQUESTS.items() if isinstance(request, kind))
    spec = find_model(request.model, task)
    engine = pool.open(spec, request, photos=count)
    if isinstance(request, SegmentRequest):
        crop = _head_finder(request, spec, pool) if request.crop == "auto" else None
        yield from segment(photos, engine, spec, request, crop=crop)
    elif isinstance(request, DetectRequest):
        yield from detect(photos, engine, spec, request)
    elif isinstance(request, ClassifyRequest):
        yield from classify(photos, engine, spec, request, crop=_head_finder(request, spec, pool))


class Sight:
    """What the models see in one photograph, each asked at most once: what `editing` finds regions in."""

    def __init__(self, photo: Photo, request: SeeRequest, pool: EnginePool) -> None:
        self.photo = photo
        self._pool = pool
        self._options = {name: getattr(request, name) for name in (*EngineOptions.model_fields, "allow_pickle")}
        self._model = request.model
        self._faces: dict[tuple[int, int, int, int], Segmentation] = {}

    def own(self) -> Segmentation | None:
        """Return what the model the person named sees, None where none was named."""
        return self._named if self._model else None

    def clothes(self) -> Segmentation:
        """Return the labels of the clothes model."""
        return self._clothes

    def detections(self) -> Detections:
        """Return the persons and objects found."""
        return self._detections

    def face(self, crop_xyxy: tuple[int, int, int, int]) -> Segmentation:
        """Return the face parts inside a crop, at the crop's size."""
        if crop_xyxy not in self._faces:
            left, top, right, bottom = crop_xyxy
            part = replace(self.photo, pixels=self.photo.pixels[top:bottom, left:right].copy(), alpha=None)
            self._faces[crop_xyxy] = self._ask(SegmentRequest, part, FACE_MODEL, crop="none")
        return self._faces[crop_xyxy]

    def head(self) -> Crop | None:
        """Return the head of the largest person, None where the photograph is all head or shows nobody."""
        return crop_head(self.photo, self._clothes, lambda: self._detections)

    @cached_property
    def _named(self) -> Segmentation:
        return self._ask(SegmentRequest, self.photo, self._model)

    @cached_property
    def _clothes(self) -> Segmentation:
        return self._ask(SegmentRequest, self.photo, None)

    @cached_property
    def _detections(self) -> Detections:
        return self._ask(DetectRequest, self.photo, None)

    def _ask(self, kind: type[SeeRequest], photo: Photo, model: str | None, **more: str) -> Any:
        request = make_request(kind, {**self._options, "model": model, **more})
        return next(look(request, iter([photo]), self._pool, count=1))


def _head_finder(request: SeeRequest, spec: ModelSpec, pool: EnginePool) -> Callable[[Photo], Crop | None] | None:
    """Return what finds the head in a photograph for a model that reads faces, None for any other model."""
    return (lambda photo: Sight(photo, plain_options(request), pool).head()) if reads_faces(spec) else None


def plain_options(request: SeeRequest) -> SeeRequest:
    """Return where and how a request runs, without its model: for the helpers it calls on."""
    return SeeRequest(**{name: getattr(request, name) for name in EngineOptions.model_fields})

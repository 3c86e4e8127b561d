"""The Python API: request -> model -> engine -> task. Everything else (command line, server) calls this.

Every function takes keyword options; their names, ranges and defaults are the fields of the request records in
`imagesmith.core.requests`.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from imagesmith import __version__
from imagesmith.core.errors import BadImage, BadInput
from imagesmith.core.requests import (
    ClassifyRequest,
    DetectRequest,
    EditRequest,
    SeeRequest,
    SegmentRequest,
    make_request,
)
from imagesmith.core.specs import ModelSpec
from imagesmith.image.decode import Limits, Photo, decode_image, find_images, iter_photos
from imagesmith.image.results import Classification, Detections, Segmentation
from imagesmith.models import catalogue
from imagesmith.sight import REQUESTS, STARTERS, Sight, find_model, look, open_pool

if TYPE_CHECKING:
    from imagesmith.editing.edit import Edited
    from imagesmith.engines.pool import EnginePool
    from imagesmith.evaluation.report import Comparison, Report
    from imagesmith.evaluation.splits import Split
    from imagesmith.training.check import CheckReport
    from imagesmith.training.prepare import Prepared
    from imagesmith.training.run import TrainResult
    from imagesmith.vision.outfit import Outfit

__all__ = [
    "Model",
    "Seen",
    "Sight",
    "check_recipe",
    "classify",
    "detect",
    "edit",
    "evaluate",
    "find_model",
    "limits_of",
    "load",
    "model_folder",
    "open_pool",
    "outfit",
    "prepare_data",
    "resume_training",
    "run_edit",
    "segment",
    "stream",
    "summarise_outfit",
    "train",
]

Result: TypeAlias = Segmentation | Classification | Detections
Source: TypeAlias = Any
"""A path, bytes, a file object, a PIL image, a NumPy array or a `Photo`; a folder or a glob stands for many."""


@dataclass(frozen=True)
class Seen:
    """One photograph and what was found in it."""

    photo: Photo
    result: Result


class Model:
    """An opened model: call it on photographs as often as you like; close it, or use it in a `with` block.

    Made by `load`. The first call opens the engine, later calls reuse it.
    """

    def __init__(self, spec: ModelSpec, pool: EnginePool, options: Mapping[str, Any]) -> None:
        self.spec = spec
        self._pool = pool
        self._options = {**options, "model": spec.name}

    def __call__(self, images: Source | Sequence[Source], **options: Any) -> Any:
        """Return the result of one photograph, or a list for many (a list, a folder, a glob)."""
        request = make_request(REQUESTS[self.spec.task], {**self._options, **options})
        return _answer(images, request, self._pool)

    def close(self) -> None:
        """Free the engine."""
        self._pool.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def load(model: str = STARTERS["segment"], **options: Any) -> Model:
    """Open a model by catalogue name, hub id or folder, to be used on many photographs.

    Raises:
        UnknownModel: nothing has this name; the sentence suggests what is near.
    """
    spec = find_model(model, None)
    make_request(REQUESTS[spec.task], options)  # complains now, not at the first photograph
    return Model(spec, open_pool(), options)


def segment(images: Source | Sequence[Source], **options: Any) -> Any:
    """Cut photographs into labelled regions; options are the fields of `SegmentRequest`.

    Returns a `Segmentation`, or a list of them where `images` stands for several photographs.
    """
    return _answer(images, make_request(SegmentRequest, options))


def classify(images: Source | Sequence[Source], **options: Any) -> Any:
    """Name what photographs show; options are the fields of `ClassifyRequest`.

    Returns a `Classification`, or a list of them where `images` stands for several photographs.
    """
    return _answer(images, make_request(ClassifyRequest, options))


def detect(images: Source | Sequence[Source], **options: Any) -> Any:
    """Find objects and their boxes; options are the fields of `DetectRequest`.

    Returns `Detections`, or a list of them where `images` stands for several photographs.
    """
    return _answer(images, make_request(DetectRequest, options))


def outfit(image: Source, **options: Any) -> Outfit:
    """Summarise what a person wears: garments, their shares and main colours; options as for `segment`."""
    photo = _decode(image, make_request(SegmentRequest, options))
    return summarise_outfit(Seen(photo, segment(photo, **options)))


def edit(image: Source, region: str, **options: Any) -> Edited:
    """Change the named region of a photograph; options are the fields of `EditRequest`.

    Outside the region and its feather every pixel of the result equals the photograph's.

    Raises:
        UnknownRegion: the photograph shows no such region; the sentence lists what it shows.
    """
    return run_edit(image, make_request(EditRequest, {"region": region, **options}))


def train(
    recipe: str | Path | Sequence[str | Path], out: str | Path, *, changes: Sequence[str] = (), progress: Any = None
) -> TrainResult:
    """Train as a recipe (or several, merged left to right) says; `changes` are overrides such as "train.steps=100".

    The folder `out` gets checkpoints, logs and, in `model/`, the trained model, whose path works wherever a
    model's name does.
    """
    from imagesmith.training.recipe import load_recipe

    files = [recipe] if isinstance(recipe, str | Path) else recipe
    checked = load_recipe(files, changes)  # complains before torch is loaded

    from imagesmith.training.run import run

    return run(checked, out, progress=progress, resolve=model_folder)


def evaluate(
    model: str,
    data: str | Path,
    *,
    split: str = "val",
    against: str | None = None,
    progress: Any = None,
    **options: Any,
) -> Report | Comparison:
    """Measure a model on labelled photographs; every figure comes with a bootstrap interval.

    `data` is a folder of photographs with masks, of class folders, or with COCO boxes. `split` is "val" (every
    eighth), "train" or "all". With `against`, two models are compared pair by pair. `options` are those of the
    task's request.
    """
    from imagesmith.evaluation.compare import compare
    from imagesmith.evaluation.run import evaluate as measure
    from imagesmith.evaluation.run import predictor, request_for

    with open_pool() as pool:

        def contender(name: str) -> tuple[ModelSpec, Any]:
            spec = find_model(name, None)
            request = request_for(spec, **options)
            return spec, predictor(pool.open(spec, request), spec, request)

        if against is not None:
            return compare(contender(model), contender(against), data, split=checked_split(split), progress=progress)
        spec, predict = contender(model)
        return measure(spec, data, predict, split=checked_split(split), progress=progress)


# -- the parts the command line and the server use as well ----------------------------------------------------------


def stream(request: SeeRequest, sources: Iterable[Source], pool: EnginePool) -> Iterator[Seen | BadImage]:
    """Yield one answer per photograph, in order; a file that cannot be read is yielded as its `BadImage`.

    Memory stays bounded: photographs are decoded while the answers before them are taken.
    """
    waiting: deque[Photo | BadImage] = deque()

    def good() -> Iterator[Photo]:
        for item in iter_photos(sources, limits_of(request)):
            waiting.append(item)
            if isinstance(item, Photo):
                yield item

    count = len(sources) if isinstance(sources, Sized) else None
    for result in look(request, good(), pool, count=count):
        while isinstance(item := waiting.popleft(), BadImage):
            yield item
        yield Seen(item, result)
    yield from (item for item in waiting if isinstance(item, BadImage))


def limits_of(request: SeeRequest) -> Limits:
    """Return the decoding limits a request asks for."""
    return Limits(megapixels=request.max_megapixels)


def summarise_outfit(seen: Seen) -> Outfit:
    """Summarise the garments of a photograph that has been segmented."""
    from imagesmith.vision.outfit import outfit as summarise

    if not isinstance(seen.result, Segmentation):
        raise BadInput("An outfit is read off a segmentation; use a model of the task segment.")
    return summarise(seen.result, seen.photo)


def run_edit(
    image: Source, request: EditRequest, *, pool: EnginePool | None = None, sight: Sight | None = None
) -> Edited:
    """Change a region as a request says; a `sight` of the same photograph is not computed again."""
    from imagesmith.editing.edit import edit as apply

    photo = _decode(image, request)
    own = pool or open_pool()
    try:
        background = _background(request)
        seen = sight or Sight(photo, request, own)
        return apply(photo, request, seen, background_photo=background, version=__version__)
    finally:
        if pool is None:
            own.close()


def _background(request: EditRequest) -> Photo | None:
    """Decode the picture that replaces the background, where the request names a file and not a colour."""
    from imagesmith.editing.color import is_color

    if request.background is None or is_color(request.background) or not Path(request.background).is_file():
        return None
    return decode_image(request.background, limits=limits_of(request))


def _decode(image: Source, request: SeeRequest) -> Photo:
    return image if isinstance(image, Photo) else decode_image(image, limits=limits_of(request))


def checked_split(split: str) -> Split:
    """Return the part of a data set a person named, or raise one sentence."""
    known: tuple[Split, ...] = ("val", "train", "all")
    for name in known:
        if split == name:
            return name
    raise BadInput(f'The split is one of {", ".join(known)}, not "{split}".')


def check_recipe(recipes: Sequence[str | Path], *, changes: Sequence[str] = ()) -> CheckReport:
    """Look for what is wrong with a recipe and its data, before any training."""
    from imagesmith.training.recipe import load_recipe

    recipe = load_recipe(recipes, changes)  # complains before torch is loaded

    from imagesmith.training.check import check

    return check(recipe, resolve=model_folder)


def resume_training(folder: str | Path, *, progress: Any = None) -> TrainResult:
    """Go on exactly where the training in a folder stopped."""
    from imagesmith.training.run import resume

    return resume(folder, progress=progress, resolve=model_folder)


def prepare_data(pack: str, source: str | Path, out: str | Path, *, progress: Any = None) -> Prepared:
    """Rebuild a data pack from its public source; see `imagesmith.training.prepare`."""
    from imagesmith.training.prepare import prepare

    return prepare(pack, source, out, progress=progress)


def model_folder(name: str) -> Path:
    """Return the folder of a model's files by any name `find_model` takes, fetched where need be."""
    from imagesmith.models.files import locate

    return locate(catalogue.find(name), "weights").parent


def _answer(images: Source | Sequence[Source], request: SeeRequest, pool: EnginePool | None = None) -> Any:
    """Return one result for one photograph and a list for many; the first bad file is raised."""
    sources, single = _sources(images)
    own = pool or open_pool()
    try:
        results = []
        for item in stream(request, sources, own):
            if isinstance(item, BadImage):
                raise item
            results.append(item.result)
    finally:
        if pool is None:
            own.close()
    return results[0] if single else results


def _sources(images: Source | Sequence[Source]) -> tuple[Iterable[Source], bool]:
    """Return the single sources `images` stands for, and whether it stands for exactly one photograph."""
    if isinstance(images, str | os.PathLike):
        path = Path(images)
        if path.is_dir() or (not path.exists() and any(sign in str(images) for sign in "*?[")):
            return find_images([images]), False
        return [images], True
    # An open file is an iterator too, over its lines; it is one photograph.
    if isinstance(images, list | tuple) or (isinstance(images, Iterator) and not hasattr(images, "read")):
        return images, False
    return [images], True

"""`imagesmith demo`: see a real photograph cut into clothes, hair and skin, and regions changed by name."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from imagesmith import api
from imagesmith.cli.output import say, table
from imagesmith.core.errors import MissingExtra
from imagesmith.core.requests import ClassifyRequest, DetectRequest, EditRequest, SegmentRequest, make_request
from imagesmith.image.decode import Photo, decode_image
from imagesmith.image.metadata import save_image, write_json
from imagesmith.sight import FACE_MODEL

EDITS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("recolor-clothes", {"region": "clothes", "recolor": "crimson"}),
    ("recolor-hair", {"region": "hair", "recolor": "#7a1f2b"}),
    ("blur-background", {"region": "background", "blur": 8.0}),
    ("pixelate-face", {"region": "face", "pixelate": 16}),
    ("cut-out-person", {"region": "person", "cut_out": True}),
)
"""File name and request of each edit the demo makes."""


class Step(NamedTuple):
    """One thing the demo did."""

    title: str
    finding: str
    seconds: float
    file: str
    record: dict[str, Any]


def register(app: typer.Typer) -> None:
    """Add the command of this family."""
    app.command()(demo)


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures and report.json.")] = Path(
        "imagesmith-demo"
    ),
    photo: Annotated[
        str | None, typer.Option("--photo", help="Your own photograph instead of the public-domain one.")
    ] = None,
) -> None:
    """Look at one photograph and edit it by name; everything runs here, nothing is downloaded."""
    picture = decode_image(photo) if photo else astronaut()
    out.mkdir(parents=True, exist_ok=True)
    save_image(out / "photo.png", picture.pixels)
    with api.open_pool() as pool:
        steps = [*_look(picture, pool, out), *_change(picture, pool, out)]
    report = {"photo": picture.name, "steps": [step._asdict() for step in steps]}
    write_json(out / "report.json", report)
    print(table([[step.title, step.finding, f"{1000 * step.seconds:.0f} ms", step.file] for step in steps], HEADER))
    say(f"\nPictures and report.json lie in {out}/")


HEADER = ("what", "found", "time", "picture")


def astronaut() -> Photo:
    """Return scikit-image's portrait of Eileen Collins: a photograph by NASA, in the public domain."""
    try:
        from skimage import data
    except ImportError:
        raise MissingExtra("The demo's photograph", "demo") from None
    return decode_image(data.astronaut(), name="astronaut.png")


def _look(photo: Photo, pool: Any, out: Path) -> list[Step]:
    wanted = (
        ("segment clothes", SegmentRequest(), _regions),
        ("segment face", SegmentRequest(model=FACE_MODEL), _regions),
        ("classify", ClassifyRequest(), lambda result: f"{result.labels[0]} {result.scores[0]:.0%} (a guess)"),
        ("detect", DetectRequest(), lambda result: ", ".join(result.labels[:4]) or "nothing"),
    )
    return [_timed_look(title, request, tell, photo, pool, out) for title, request, tell in wanted]


def _timed_look(title: str, request: Any, tell: Callable[[Any], str], photo: Photo, pool: Any, out: Path) -> Step:
    start = time.perf_counter()
    seen = next(iter(api.stream(request, [photo], pool)))
    seconds = time.perf_counter() - start
    if not isinstance(seen, api.Seen):
        raise seen
    path = out / f"{title.replace(' ', '-')}.png"
    save_image(path, seen.result.draw(photo))
    return Step(title, tell(seen.result), seconds, path.name, seen.result.to_dict())


def _regions(result: Any) -> str:
    found = [name for name in result.present() if name != "background"]
    return ", ".join(found[:4])


def _change(photo: Photo, pool: Any, out: Path) -> list[Step]:
    steps = []
    sight = api.Sight(photo, SegmentRequest(), pool)
    for title, values in EDITS:
        start = time.perf_counter()
        edited = api.run_edit(photo, make_request(EditRequest, values), pool=pool, sight=sight)
        seconds = time.perf_counter() - start
        path = out / f"{title}.png"
        edited.save(path)
        steps.append(Step(f"edit {values['region']}", title.replace("-", " "), seconds, path.name, edited.record))
    return steps

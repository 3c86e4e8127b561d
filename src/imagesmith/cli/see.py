"""`imagesmith segment|classify|detect`: photographs in; a table, JSON or files out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from imagesmith import api
from imagesmith.cli.options import request_from, with_record
from imagesmith.cli.output import percent, print_json, progress, report_failures, say, table
from imagesmith.core.errors import BadImage, BadInput
from imagesmith.core.requests import ClassifyRequest, DetectRequest, SeeRequest, SegmentRequest
from imagesmith.image.decode import find_images
from imagesmith.image.results import Classification, Detections, Segmentation

Photos = Annotated[
    list[str], typer.Argument(metavar="PHOTO...", help="Photographs, folders or globs.", show_default=False)
]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="Folder for pictures, masks and JSON; made where it is missing.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
    for command in (segment, classify, detect):
        app.command()(command)


@with_record(SegmentRequest)
def segment(
    ctx: typer.Context,
    photos: Photos,
    out: Out = None,
    json: Json = False,
    outfit: Annotated[bool, typer.Option("--outfit", help="Summarise garments and their main colours.")] = False,
    rank: Annotated[
        str | None,
        typer.Option("--rank", metavar="uncertainty", help="List the photographs the model is least certain of first."),
    ] = None,
    **options: Any,
) -> int:
    """Cut photographs into labelled regions: garments, hair, skin, face parts."""
    if rank not in (None, "uncertainty"):
        raise BadInput(f'--rank knows "uncertainty", not "{rank}".')
    if rank:
        return _rank(photos, request_from(SegmentRequest, options), json, ctx)
    summarise = api.summarise_outfit if outfit else None
    return _see(SegmentRequest, options, photos, out, json, ctx, summarise)


@with_record(ClassifyRequest)
def classify(ctx: typer.Context, photos: Photos, out: Out = None, json: Json = False, **options: Any) -> int:
    """Name what photographs show, with probabilities."""
    return _see(ClassifyRequest, options, photos, out, json, ctx)


@with_record(DetectRequest)
def detect(ctx: typer.Context, photos: Photos, out: Out = None, json: Json = False, **options: Any) -> int:
    """Find persons and objects, and draw a box around each."""
    return _see(DetectRequest, options, photos, out, json, ctx)


def _see(
    kind: type[SeeRequest],
    options: dict[str, Any],
    photos: list[str],
    out: Path | None,
    as_json: bool,
    ctx: typer.Context,
    summarise: Callable[[api.Seen], Any] | None = None,
) -> int:
    """Answer one photograph after another; files that cannot be read are told at the end."""
    quiet = quiet_of(ctx)
    request = request_from(kind, options)
    files = find_images(photos)
    answers: list[dict[str, Any]] = []
    failures: list[BadImage] = []
    with api.open_pool() as pool:
        for item in progress(api.stream(request, files, pool), len(files), kind.__name__, quiet=quiet):
            if isinstance(item, BadImage):
                failures.append(item)
                continue
            answer = item.result.to_dict()
            summary = summarise(item) if summarise else None
            if summary is not None:
                answer["outfit"] = summary.to_dict()
            if out is not None:
                answer["files"] = [str(path) for path in item.result.save(out, item.photo)]
            if as_json:
                answers.append(answer)
            else:
                print(_text(item, summary, named=len(files) > 1))
    if as_json:
        print_json(answers)
    elif out is not None:
        say(f"Saved to {out}", quiet=quiet)
    return report_failures(failures, len(files))


def _rank(photos: list[str], request: SegmentRequest, as_json: bool, ctx: typer.Context) -> int:
    files = find_images(photos)
    failures: list[BadImage] = []
    rows: list[tuple[float, str]] = []
    with api.open_pool() as pool:
        for item in progress(api.stream(request, files, pool), len(files), "Ranking", quiet=quiet_of(ctx)):
            if isinstance(item, BadImage):
                failures.append(item)
            else:
                rows.append((item.result.uncertainty, item.result.image))
    rows.sort(reverse=True)
    if as_json:
        print_json([{"image": name, "uncertainty": value} for value, name in rows])
    else:
        print(table([[f"{value:.4f}", name] for value, name in rows], ["uncertainty", "photograph"]))
    return report_failures(failures, len(files))


def quiet_of(ctx: typer.Context) -> bool:
    """Return whether the person asked for results and errors only."""
    return bool(ctx.find_root().params.get("quiet"))


def _text(item: api.Seen, summary: Any, *, named: bool) -> str:
    """Return one answer as a person reads it."""
    title = f"{item.photo.name}\n" if named else ""
    if summary is not None:
        return title + summary.text()
    result = item.result
    if isinstance(result, Segmentation):
        rows = sorted(result.present().items(), key=lambda pair: -pair[1])
        return title + table([[name, percent(share)] for name, share in rows], ["region", "share"])
    if isinstance(result, Classification):
        rows = zip(result.labels, result.scores, strict=True)
        body = table([[label, percent(float(score))] for label, score in rows], ["label", "probability"])
        return title + body + (f"\n{result.note}" if result.note else "")
    assert isinstance(result, Detections)
    boxes = zip(result.labels, result.scores, result.boxes_xyxy.round().astype(int), strict=True)
    lines = [[label, percent(float(score)), " ".join(map(str, box))] for label, score, box in boxes]
    return title + (table(lines, ["label", "score", "box (left top right bottom)"]) if lines else "nothing found")

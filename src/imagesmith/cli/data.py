"""`imagesmith evaluate` and `imagesmith data prepare`: measure a model; rebuild a data pack from its source."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from imagesmith import api
from imagesmith.cli.output import count_progress, print_json, say


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
    app.command()(evaluate)
    family = typer.Typer(no_args_is_help=True, help="Prepare data packs from their public sources.")
    family.command()(prepare)
    app.add_typer(family, name="data")


def evaluate(
    model: Annotated[str, typer.Argument(help="Model by catalogue name, hub id or folder.")],
    data: Annotated[Path, typer.Argument(help="Folder of labelled photographs.")],
    split: Annotated[str, typer.Option("--split", metavar="val|train|all", help="Part to measure on.")] = "val",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the report as JSON to this file.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    against: Annotated[
        str | None, typer.Option("--against", metavar="MODEL", help="Compare with this model, pair by pair.")
    ] = None,
) -> None:
    """Measure a model on labelled photographs; each figure comes with a 95 % interval."""
    with count_progress(f"Evaluating {model}") as tick:
        report = api.evaluate(model, data, split=split, against=against, progress=tick)
    if out is not None:
        report.save(out)
        say(f"Report written to {out}")
    if json:
        print_json(report.to_dict())
    else:
        print(report.text())


def prepare(
    pack: Annotated[str, typer.Argument(metavar="PACK", help="ccp, celebamask, lfw, pennfudan or coco.")],
    source: Annotated[Path, typer.Argument(help="Folder with the unpacked public source.")],
    out: Annotated[Path, typer.Argument(help="Folder for the pack.")],
) -> None:
    """Rebuild a training pack from its public source."""
    with count_progress(f"Preparing {pack}") as tick:
        made = api.prepare_data(pack, source, out, progress=tick)
    print(f"{made.images} photographs in {out}; {made.detail}")

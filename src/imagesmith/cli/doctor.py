"""`imagesmith doctor`: what this machine has, what was chosen, and why."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from imagesmith import __version__, api
from imagesmith.cli.options import request_from
from imagesmith.cli.output import print_json, table
from imagesmith.core.errors import ImagesmithError
from imagesmith.core.requests import EngineOptions
from imagesmith.models import catalogue
from imagesmith.sight import FACE_MODEL, STARTERS


def register(app: typer.Typer) -> None:
    """Add the command of this family."""
    app.command()(doctor)


def doctor(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show processors, libraries and models, and which engine runs each model and why."""
    report = examine()
    if json:
        print_json(report)
        return
    hardware = report["hardware"]
    print(f"imagesmith {__version__} on {hardware['system']} {hardware['machine']}")
    memory = hardware["memory_bytes"]
    print(f"  {hardware['processor']}, {hardware['cores']} cores" + (f", {memory / 2**30:.0f} GiB" if memory else ""))
    print(f"  fast arithmetic: {', '.join(hardware['features']) or 'nothing special'}")
    for device in hardware["devices"]:
        print(f"  {device['kind']}:{device['index']} {device['name']} ({device['found_by']})")
    print("\nLibraries")
    rows = [[entry["name"], entry["version"] or "not installed", entry["reason"]] for entry in hardware["libraries"]]
    print(table(rows))
    print("\nModels")
    for model in report["models"]:
        print(f"  {model['name']}: {model['answer']}")
        for reason in model["reasons"]:
            print(f"    {reason}")


def examine() -> dict[str, Any]:
    """Return everything doctor shows, as plain values."""
    options = request_from(EngineOptions, {})
    models = []
    with api.open_pool() as pool:
        for name in (*STARTERS.values(), FACE_MODEL):
            models.append({"name": name, **_choice(name, options, pool)})
        return {"version": __version__, "hardware": pool.hardware.to_dict(), "models": models}


def _choice(name: str, options: EngineOptions, pool: Any) -> dict[str, Any]:
    try:
        choice = pool.choice(catalogue.find(name), options)
    except ImagesmithError as error:
        return {"answer": str(error), "reasons": []}
    answer = f"{choice.engine} on {choice.device}, {choice.precision}"
    return {"answer": answer, "reasons": [*choice.reasons, *choice.warnings], **choice.to_dict()}

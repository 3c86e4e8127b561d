"""`imagesmith train run|check|resume`: teach a model as a recipe says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from imagesmith import api
from imagesmith.cli.output import print_json, say, table

Recipes = Annotated[
    list[Path], typer.Argument(help="Recipe files (YAML); later ones override earlier ones.", show_default=False)
]
Changes = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override one field, such as train.steps=100.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
    family = typer.Typer(no_args_is_help=True, help="Teach a model: run, check or resume a recipe.")
    family.command()(run)
    family.command()(check)
    family.command()(resume)
    app.add_typer(family, name="train")


def run(
    recipes: Recipes,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for checkpoints, logs and the trained model.")],
    changes: Changes = [],  # noqa: B006 - typer reads it once and never changes it
    json: Json = False,
) -> None:
    """Train as the recipe says; the data is checked first."""
    _report(api.train(recipes, out, changes=changes, progress=_show), json)


def check(recipes: Recipes, changes: Changes = [], json: Json = False) -> int:  # noqa: B006
    """Look for what is wrong with a recipe and its data; exit code 1 where training could not start."""
    report = api.check_recipe(recipes, changes=changes)
    if json:
        print_json(report.to_dict())
    else:
        for finding in report.findings:
            print(f"{finding.severity}: {finding.message}")
        memory, hours = report.memory_bytes / 2**30, report.seconds / 3600
        print(
            f"{report.parameters:,} parameters, about {memory:.1f} GiB of memory and {hours:.1f} hours on this machine"
        )
    return 0 if report.ok else 1


def resume(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="The --out folder of a training that stopped.")],
    json: Json = False,
) -> None:
    """Go on exactly where a training stopped."""
    _report(api.resume_training(run_folder, progress=_show), json)


def _show(event: Any) -> None:
    say(str(event))


def _report(result: Any, as_json: bool) -> None:
    if as_json:
        print_json(result.to_dict())
        return
    print(table([[name, f"{value:.4f}"] for name, value in result.metrics.items()], ["figure", "value"]))
    print(f"\nThe trained model lies in {result.model}; use it with --model {result.model}")

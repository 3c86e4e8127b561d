"""`imagesmith models list|show|search|pull|verify`: what there is, what it may be used for, and fetching it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from imagesmith.cli.output import byte_progress, print_json, say, table
from imagesmith.core.errors import BadInput
from imagesmith.core.specs import Task
from imagesmith.models import catalogue, files, hubsearch

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Commercial = Annotated[
    bool, typer.Option("--commercial", help="Leave out models whose licence forbids commercial use.")
]
TaskOption = Annotated[
    str | None, typer.Option("--task", metavar="segment|classify|detect", help="Only models for this task.")
]
Name = Annotated[str, typer.Argument(metavar="MODEL", help="Catalogue name, hub id (owner/name) or folder.")]
Offline = Annotated[bool, typer.Option("--offline", help="Never ask the hub.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this family."""
    family = typer.Typer(no_args_is_help=True, help="List, show, search, fetch and verify models.")
    family.command("list")(list_models)
    for command in (show, search, pull, verify):
        family.command()(command)
    app.add_typer(family, name="models")


def list_models(task: TaskOption = None, commercial: Commercial = False, json: Json = False) -> None:
    """List the catalogue."""
    entries = catalogue.entries(task=checked_task(task), commercial_only=commercial)
    if json:
        print_json([entry.to_dict() for entry in entries])
        return
    rows = [
        [shown["name"], shown["task"], shown["labels"], shown["license"], "yes" if shown["is_here"] else "no"]
        for shown in (entry.to_dict() for entry in entries)
    ]
    print(table(rows, ["model", "task", "labels", "licence", "here"]))


def show(name: Name, offline: Offline = False, json: Json = False) -> None:
    """Show what a model is: labels, preprocessing, licence, figures, limits."""
    shown = catalogue.show(name, offline=offline or None)
    if json:
        print_json(shown)
        return
    plain = {key: value for key, value in shown.items() if key not in {"config", "labels", "preprocessing", "mirrored"}}
    print(
        table(
            [[key.replace("_", " "), _words(value)] for key, value in plain.items() if value not in (None, "", {}, [])]
        )
    )
    print(f"labels\n  {', '.join(label for label in shown['labels'] if label)}")
    if text := catalogue.card(name):
        print(f"\n{text}")


def search(
    words: Annotated[str, typer.Argument(metavar="WORDS", help="Words to look for.")] = "",
    task: TaskOption = None,
    commercial: Commercial = False,
    hub: Annotated[bool, typer.Option("--hub", help="Search the model hub as well.")] = False,
    license: Annotated[str | None, typer.Option("--license", help="Hub only: a licence such as apache-2.0.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100, help="Hub only: most models to list.")] = 20,
    json: Json = False,
) -> None:
    """Search the catalogue, and with --hub the hub (task, labels and licence from the model cards)."""
    wanted = checked_task(task)
    if hub:
        found: list[Any] = hubsearch.search(
            words, task=wanted, license=license, commercial_only=commercial, limit=limit
        )
    else:
        found = catalogue.entries(task=wanted, commercial_only=commercial, query=words)
    if json:
        print_json([item.to_dict() for item in found])
    elif found:
        columns = ("name", "task", "labels", "license")
        rows = [[_count(item.to_dict()[column]) for column in columns] for item in found]
        print(table(rows, ["model", "task", "labels", "licence"]))
    else:
        say(f'Nothing found for "{words}"' + ("." if hub else "; --hub searches the model hub as well."))


def pull(
    name: Name,
    onnx: Annotated[bool, typer.Option("--onnx", help="Fetch the ONNX file, which runs without torch.")] = False,
    allow_pickle: Annotated[bool, typer.Option("--allow-pickle", help="Accept weights stored as a pickle.")] = False,
) -> None:
    """Fetch a model's files now, checked against the hashes the hub states."""
    kinds: tuple[files.Kind, ...] | None = ("onnx",) if onnx else None
    with byte_progress() as tick:
        paths = catalogue.pull(name, kinds, allow_pickle=allow_pickle, progress=tick)
    print("\n".join(map(str, paths)))


def verify(name: Name, json: Json = False) -> int:
    """Compute the hashes of a model's files again and compare; exit code 1 where one differs."""
    with byte_progress() as tick:
        checks = files.verify(catalogue.find(name, offline=True), progress=tick)
    if json:
        print_json([{**asdict(check), "path": str(check.path)} for check in checks])
    else:
        print(
            table([[check.path.name, check.state, check.actual[:16]] for check in checks], ["file", "state", "sha256"])
        )
    return 1 if any(check.state == "damaged" for check in checks) else 0


def checked_task(task: str | None) -> Task | None:
    """Return the task a person named, or raise one sentence."""
    known: tuple[Task, ...] = ("segment", "classify", "detect")
    for name in known:
        if task == name:
            return name
    if task is not None:
        raise BadInput(f'--task is one of {", ".join(known)}, not "{task}".')
    return None


def _count(value: Any) -> Any:
    return len(value) if isinstance(value, list | tuple) else value or ""


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {inner}" for key, inner in value.items() if inner is not None)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

"""Write docs/reference/ from the records themselves: run it after a field changes (`make docs`)."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_origin

from imagesmith.core import errors
from imagesmith.core.requests import ClassifyRequest, DetectRequest, EditRequest, SeeRequest, SegmentRequest
from imagesmith.core.settings import Settings
from imagesmith.core.specs import ModelSpec, Preprocessing, Record
from imagesmith.training import recipe, settings

HERE = Path(__file__).parent / "reference"
NOTE = "<!-- Written by docs/build_reference.py from the records; change the records, not this page. -->\n"


def main() -> None:
    """Write every page of the reference."""
    for name, text in pages().items():
        (HERE / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """Return file name -> text of every page."""
    return {
        "requests.md": requests_page(),
        "settings.md": settings_page(),
        "models.md": models_page(),
        "recipes.md": recipes_page(),
        "errors.md": errors_page(),
    }


def requests_page() -> str:
    """Return the page of request records: the options of Python functions and commands alike."""
    parts = [
        NOTE,
        "# Requests\n",
        "One record stands behind each Python function and each command. A field `batch_size` is the keyword "
        "`batch_size=` in Python and the option `--batch-size` on the command line.\n",
        "## Options every request shares\n",
        field_table(SeeRequest),
    ]
    shared = set(SeeRequest.model_fields)
    for kind, verb in (
        (SegmentRequest, "segment"),
        (ClassifyRequest, "classify"),
        (DetectRequest, "detect"),
        (EditRequest, "edit"),
    ):
        parts += [f"## {verb}\n", f"{inspect.getdoc(kind)}\n", field_table(kind, shared)]
    return "\n".join(parts)


def settings_page() -> str:
    """Return the page of settings."""
    return "\n".join(
        [
            NOTE,
            "# Settings\n",
            "Defaults for all your commands, in `~/.config/imagesmith/config.toml` (the file named by "
            "`IMAGESMITH_CONFIG`, where that is set). An environment variable `IMAGESMITH_` + the name in capitals "
            "overrides the file; an option on the command line overrides both. Python functions read no settings.\n",
            field_table(Settings),
            '```toml\nengine = "openvino"\nthreads = 4\nmax_megapixels = 50\n```\n',
        ]
    )


def models_page() -> str:
    """Return the page of what a catalogue entry may say."""
    return "\n".join(
        [
            NOTE,
            "# Model specifications\n",
            f"{inspect.getdoc(ModelSpec)}\n",
            field_table(ModelSpec),
            "## Preprocessing\n",
            f"{inspect.getdoc(Preprocessing)}\n",
            field_table(Preprocessing),
        ]
    )


def recipes_page() -> str:
    """Return the page of recipes: every field of the YAML files `imagesmith train` reads."""
    parts = [
        NOTE,
        "# Recipes\n",
        "A recipe is one YAML file. `--set train.steps=100` overrides a field, and of several files the later ones "
        "override the earlier ones. An unknown field is an error that names the nearest known one.\n",
    ]
    shared = set(recipe.RecipeBase.model_fields)
    parts += ["## Fields of every recipe\n", field_table(recipe.RecipeBase)]
    for kind in (recipe.SegmentRecipe, recipe.ClassifyRecipe, recipe.DetectRecipe):
        parts += [f"## {kind.model_fields['task'].annotation.__args__[0]}\n", f"{inspect.getdoc(kind)}\n"]
        parts += [field_table(kind, shared)]
        for name in ("data", "loss"):
            parts += [f"### {name}\n", field_table(kind.model_fields[name].annotation)]
    for name in ("train", "augment"):
        inner = recipe.RecipeBase.model_fields[name].annotation
        parts += [f"## {name}\n", f"{inspect.getdoc(inner)}\n", field_table(inner)]
    parts += ["### train.stages\n", f"{inspect.getdoc(settings.Stage)}\n", field_table(settings.Stage)]
    return "\n".join(parts)


def errors_page() -> str:
    """Return the page of errors with exit codes and HTTP statuses."""
    rows = ["| error | meaning | exit code | HTTP status |", "|---|---|---|---|"]
    kinds = [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.ImagesmithError) and kind is not errors.ImagesmithError
    ]
    for kind in sorted(kinds, key=lambda kind: (kind.exit_code, kind.__name__)):
        first_line = (inspect.getdoc(kind) or "").splitlines()[0]
        rows.append(f"| `{kind.__name__}` | {first_line} | {kind.exit_code} | {kind.http_status} |")
    return "\n".join(
        [
            NOTE,
            "# Errors\n",
            "Every error is one sentence: what was expected, what was found, what to do. All are children of "
            "`imagesmith.ImagesmithError`.\n",
            *rows,
            "",
        ]
    )


def field_table(kind: type[Record], skip: set[str] | frozenset[str] = frozenset({"schema_version"})) -> str:
    """Return the fields of a record as a Markdown table."""
    rows = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for name, field in kind.model_fields.items():
        if name in skip or name == "schema_version":
            continue
        default = "required" if field.is_required() else default_words(field.get_default(call_default_factory=True))
        meaning = " ".join((field.description or "").split())
        limits = ", ".join(limit_words(field.metadata))
        meaning = f"{meaning} ({limits})" if limits else meaning
        rows.append(f"| `{name}` | {type_words(field.annotation)} | {default} | {escape(meaning)} |")
    return "\n".join([*rows, ""])


def default_words(value: object) -> str:
    """Return a default as it is typed; a whole record is described on its own."""
    return "see below" if isinstance(value, Record) else f"`{value!r}`"


def limit_words(metadata: list[object]) -> Iterator[str]:
    """Yield "at least 1" and its like for the limits of a field."""
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    for constraint in metadata:
        for attribute, phrase in words.items():
            if (value := getattr(constraint, attribute, None)) is not None:
                yield f"{phrase} {value}"


def type_words(annotation: object) -> str:
    """Return a type as a reader of the page would say it."""
    if get_origin(annotation) is None:
        return "none" if annotation is type(None) else getattr(annotation, "__name__", str(annotation))
    inner = [
        type_words(part) if isinstance(part, type) or get_origin(part) else repr(part) for part in get_args(annotation)
    ]
    name = getattr(get_origin(annotation), "__name__", "")
    if name in {"tuple", "dict", "list"}:
        return escape(f"{name} of {', '.join(part for part in inner if part != 'Ellipsis')}")
    return escape(" or ".join(part for part in inner if part != "none"))


def escape(text: str) -> str:
    """Return text that may stand in a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    main()

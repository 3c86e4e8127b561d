"""Command line options made from request records: a field becomes an option, its docstring the help text."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from imagesmith.core.requests import SeeRequest, make_request
from imagesmith.core.settings import Settings, read_settings
from imagesmith.core.specs import Record

HIDDEN = frozenset({"schema_version"})
ENGINE_PANEL = "Where it runs"
TASK_PANEL = "What to find or change"


def record_parameters(kind: type[Record], skip: frozenset[str] = frozenset()) -> list[inspect.Parameter]:
    """Return one keyword parameter per field of `kind`, annotated for typer.

    A field without a value on the command line stays None, so that settings and the record's own default decide.
    """
    shared = set(SeeRequest.model_fields)
    fields = [(name, field) for name, field in kind.model_fields.items() if name not in HIDDEN | skip]
    # What the command does comes first in its help, where it runs comes last.
    fields.sort(key=lambda item: item[0] in shared)
    return [_parameter(name, field, ENGINE_PANEL if name in shared else TASK_PANEL) for name, field in fields]


def with_record(kind: type[Record], skip: frozenset[str] = frozenset()) -> Callable[[Callable[..., Any]], Any]:
    """Give a command the options of a record; the command receives them as `**options`, unset ones left out."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        own = [
            parameter
            for parameter in inspect.signature(command, eval_str=True).parameters.values()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        added = record_parameters(kind, skip)
        names = {parameter.name for parameter in added}

        def run(**values: Any) -> Any:
            chosen = {name: value for name, value in values.items() if name in names and value is not None}
            return command(**{name: value for name, value in values.items() if name not in names}, **chosen)

        run.__name__ = command.__name__
        run.__doc__ = command.__doc__
        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*own, *added)]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def request_from(kind: type[Record], options: Mapping[str, Any], settings: Settings | None = None) -> Any:
    """Build the request of `kind` from the settings, overridden by what stands on the command line."""
    settings = settings or read_settings()
    defaults = {name: value for name, value in settings.model_dump().items() if value is not None}
    known = {name: value for name, value in defaults.items() if name in kind.model_fields}
    return make_request(kind, {**known, **options})


def _parameter(name: str, field: FieldInfo, panel: str) -> inspect.Parameter:
    kind, choices = _plain_type(field.annotation)
    flag = f"--{name.replace('_', '-')}"
    text = (field.description or "").replace("\n", " ")
    if field.default is not None and not field.is_required() and kind is not bool:
        text = f"{text} [default: {field.default}]"
    option = typer.Option(
        flag,
        help=text,
        metavar="|".join(choices) if choices else None,
        rich_help_panel=panel,
        show_default=False,
    )
    annotation = Annotated[kind | None, option]  # type: ignore[valid-type]
    default = inspect.Parameter.empty if field.is_required() else None
    if field.is_required():
        annotation = Annotated[kind, option]  # type: ignore[valid-type]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _plain_type(annotation: Any) -> tuple[type, tuple[str, ...]]:
    """Return what typer should parse, and the words allowed where there are only a few.

    Mixed fields ("auto" or a number) are read as text; the record itself converts and complains.
    """
    if get_origin(annotation) is Annotated:
        return _plain_type(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return str, tuple(str(choice) for choice in get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        if len(members) == 1:
            return _plain_type(members[0])
        words = tuple(word for member in members if get_origin(member) is Literal for word in get_args(member))
        return str, (*words, "N")
    return annotation, ()

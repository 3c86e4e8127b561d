"""The command `imagesmith`: gathers the families of commands and turns errors into sentences and exit codes."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Annotated

import typer

from imagesmith import __version__
from imagesmith.cli import data, demo, doctor, edit, models, see, train
from imagesmith.core.errors import Cancelled, ImagesmithError


def _version(wanted: bool) -> None:
    if wanted:
        print(f"imagesmith {__version__}")
        raise typer.Exit


def _options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens, with timings.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """See and make images: segment, classify, detect, and edit by naming what to change."""
    level = logging.DEBUG if verbose else logging.ERROR if quiet else logging.WARNING
    logging.basicConfig(level=level, format="%(message)s" if not verbose else "%(relativeCreated)6.0f ms  %(message)s")
    # Pillow warns of damage in files that decode all the same; what matters stands in a photograph's own warnings.
    warnings.filterwarnings("ignore", module="PIL")
    for noisy in ("PIL", "httpx", "httpcore", "urllib3", "filelock"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def build_app() -> typer.Typer:
    """Return the command line application with every family of commands."""
    app = typer.Typer(
        name="imagesmith",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        result_callback=_leave,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for family in (see, edit, models, train, data, demo, doctor):
        family.register(app)
    return app


def main(arguments: list[str] | None = None) -> None:
    """Run one command and leave with its exit code; no bad input ends in a traceback."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        build_app()(args=arguments, prog_name="imagesmith")
    except ImagesmithError as error:
        print(f"imagesmith: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("imagesmith: stopped.", file=sys.stderr)
        sys.exit(Cancelled.exit_code)


def _leave(code: object, **_: object) -> None:
    """Leave with the exit code a command returned."""
    if isinstance(code, int) and code:
        raise typer.Exit(code)

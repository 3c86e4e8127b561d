"""What a person sees: plain tables, progress on a terminal, JSON on request, and exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from imagesmith.core.errors import BadImage

T = TypeVar("T")


def table(rows: Sequence[Sequence[object]], header: Sequence[str] = ()) -> str:
    """Return rows as aligned columns; numbers stand on the right.

    >>> print(table([["dress", 0.25], ["hair", 3]], ["region", "share"]))
    region  share
    dress    0.25
    hair        3
    """
    cells = [[str(cell) for cell in row] for row in ([header] if header else []) + list(rows)]
    if not cells:
        return ""
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    right = [
        bool(rows) and all(isinstance(row[column], int | float) or _is_figure(row[column]) for row in rows)
        for column in range(len(cells[0]))
    ]
    lines = (
        "  ".join(
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(row, widths, right, strict=True)
        )
        for row in cells
    )
    return "\n".join(line.rstrip() for line in lines)


def _is_figure(cell: object) -> bool:
    return isinstance(cell, str) and cell.replace("%", "").replace(".", "").replace(" ", "").replace("ms", "").isdigit()


def percent(share: float) -> str:
    """Return a share of 1 as a percentage with one decimal.

    >>> percent(0.1234)
    '12.3 %'
    """
    return f"{100 * share:.1f} %"


def print_json(data: Any) -> None:
    """Print data as indented JSON on standard output."""
    print(json.dumps(data, indent=2, ensure_ascii=False))


def say(text: str, *, quiet: bool = False) -> None:
    """Print a note for the person on standard error, so that standard output stays machine-readable."""
    if not quiet:
        print(text, file=sys.stderr)


def progress(items: Iterable[T], total: int | None, title: str, *, quiet: bool = False) -> Iterator[T]:
    """Yield items and draw a bar on standard error where that is a terminal and there is more than one."""
    if quiet or not sys.stderr.isatty() or (total is not None and total < 2):
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(items, description=title, total=total, console=Console(stderr=True), transient=True)


@contextmanager
def byte_progress() -> Iterator[Callable[[str, int, int | None], None]]:
    """Give a function (file name, bytes done, bytes in all) that draws one bar per file where there is a terminal."""
    if not sys.stderr.isatty():
        yield lambda name, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def tick(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done)

        yield tick


@contextmanager
def count_progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function (done, total) that draws a bar on standard error where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(title, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def report_failures(failures: Sequence[BadImage], total: int) -> int:
    """Print the files that could not be read and return the exit code: 0 where there are none."""
    if not failures:
        return 0
    if total > 1:
        say(f"{len(failures)} of {total} files could not be read:")
    for failure in failures:
        say(f"  {failure}" if total > 1 else f"imagesmith: {failure}")
    return failures[0].exit_code

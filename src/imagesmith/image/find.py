"""Find the image files that folders, patterns and names stand for."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable
from pathlib import Path

from imagesmith.core.errors import BadInput, UnsupportedImage

SUFFIXES = frozenset(
    (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif")
    + (".bmp", ".dib", ".tif", ".tiff", ".avif", ".heic", ".heif")
)
"""What is taken from a folder; a file named outright, or by a pattern, is taken whatever it is called."""

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://|data:")


def is_url(source: object) -> bool:
    """Tell whether a string is an address instead of a path.

    >>> is_url("https://example.org/a.jpg"), is_url("C:/a.jpg")
    (True, False)
    """
    return isinstance(source, str) and _URL.match(source) is not None


def find_images(patterns: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    """List the files that names, folders and patterns stand for, each once, those of one folder or pattern sorted.

    A folder gives the image files directly in it (by suffix, hidden files left out); a pattern may use `*`, `?`, `[]`
    and `**` for any depth. A plain name is passed on even where no such file exists: decoding it says so.
    Raises `BadInput` for a folder or a pattern that gives nothing, and for addresses on the web.
    """
    if isinstance(patterns, (str, os.PathLike)):
        patterns = [patterns]
    return list(dict.fromkeys(path for pattern in patterns for path in _expand(pattern)))


def _expand(pattern: str | os.PathLike[str]) -> list[Path]:
    if is_url(pattern):
        raise UnsupportedImage(f"{pattern}: addresses on the web are not opened; download the image and give its path.")
    text = os.path.expanduser(os.fspath(pattern))
    path = Path(text)
    if os.path.isdir(text):
        paths = sorted(item for item in path.iterdir() if item.suffix.lower() in SUFFIXES and _is_plain(item))
        if not paths:
            raise BadInput(
                f"the folder {pattern} holds no images directly in it; for deeper ones use {pattern}/**/*.jpg."
            )
        return paths
    if os.path.lexists(text) or not glob.has_magic(text):
        return [path]
    paths = sorted(Path(item) for item in glob.glob(text, recursive=True) if os.path.isfile(item))
    if not paths:
        raise BadInput(f"no file matches the pattern {pattern}.")
    return paths


def _is_plain(path: Path) -> bool:
    return not path.name.startswith(".") and path.is_file()

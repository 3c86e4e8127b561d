"""Names and hashes of files that strangers chose: nothing here leads outside the folder it is asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from imagesmith.core.errors import BadWeights

CHUNK = 1 << 20
JSON_BYTES = 10 * 2**20
"""Largest configuration file that is read."""

_FORBIDDEN = frozenset('<>:"|?*\\')


def safe_name(name: object) -> str:
    r"""Return `name` if it is a plain relative path inside a folder on every system, else raise `BadWeights`.

    >>> safe_name("onnx/model.onnx")
    'onnx/model.onnx'
    >>> safe_name("../secret")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    imagesmith.core.errors.BadWeights: The file name '../secret' leads out of its folder or is no plain name; ...
    """
    fine = isinstance(name, str) and 0 < len(name) <= 512 and not name.startswith("/")
    if fine:
        text = str(name)
        fine = text.isprintable() and not _FORBIDDEN & set(text)
        for part in text.split("/"):
            # A trailing dot or space is dropped on Windows, so that "..." or ".. " would become "..".
            fine = fine and 0 < len(part.encode("utf-8", "replace")) <= 255 and part.rstrip(". ") == part
    if not fine:
        shown = str(name)[:100]
        raise BadWeights(
            f"The file name {shown!r} leads out of its folder or is no plain name; take the model from another source."
        )
    return str(name)


def inside(root: Path, name: str) -> Path:
    """Return the path of `name` under `root`, following links only to places that belong to it.

    A snapshot of a hub cache links to the blobs beside it; any other folder must hold its files itself.
    Raises `BadWeights` for a name or a link that leads out. The file need not exist.
    """
    path = root.joinpath(*PurePosixPath(safe_name(name)).parts)
    real = path.resolve()
    if not any(real.is_relative_to(home) for home in _homes(root)):
        raise BadWeights(f"{path} is a link out of its folder (to {real}); copy the file into the folder.")
    return path


def _homes(root: Path) -> list[Path]:
    homes = [root.resolve()]
    # hub cache: CACHE/models--owner--name/snapshots/COMMIT links to ../../blobs, which may link to CACHE/blobs
    if root.parent.name == "snapshots" and root.parent.parent.name.startswith("models--"):
        repository = root.parent.parent
        homes += [(repository / "blobs").resolve(), (repository.parent / "blobs").resolve()]
    return homes


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of at most 10 MB, or raise one `BadWeights` sentence."""
    try:
        with path.open("rb") as file:
            text = file.read(JSON_BYTES + 1)
        if len(text) > JSON_BYTES:
            raise BadWeights(f"{path} is larger than {JSON_BYTES:,} bytes, too large for a configuration; refused.")
        value = json.loads(text)
    except OSError as error:
        raise BadWeights(f"{path} cannot be read ({error.strerror}); check the path and its permissions.") from None
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:120]
        raise BadWeights(f"{path} is not valid JSON ({reason}); download it again.") from None
    if not isinstance(value, dict):
        raise BadWeights(f"{path} holds a {type(value).__name__} where a JSON object is expected; download it again.")
    return value


def sha256_of(path: Path, tick: Callable[[int], None] | None = None) -> str:
    """Return the sha256 of a file in hex; `tick` is told how many bytes each step has read."""
    digest = hashlib.sha256()
    _feed(path, digest.update, tick)
    return digest.hexdigest()


def git_sha1_of(path: Path) -> str:
    """Return the hash git, and so the hub, gives a small file: sha1 over "blob", its size and its content."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    _feed(path, digest.update, None)
    return digest.hexdigest()


def _feed(path: Path, update: Callable[[bytes], None], tick: Callable[[int], None] | None) -> None:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            update(chunk)
            if tick is not None:
                tick(len(chunk))

"""Checkpoints as directories without pickle: tensors in safetensors, all else in JSON, every file hashed.

A checkpoint is written aside, flushed to disk and renamed, so that a killed process leaves the previous one whole.
The newest checkpoint whose hashes match is the one that loads.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from imagesmith.core.errors import BadWeights, TrainingFailed

STATE_FILE = "state.json"
TENSORS_FILE = "tensors.safetensors"
_PREFIX = "step-"
_UNFINISHED = ".tmp"
_SCALARS = (str, int, float, bool, type(None))


def flatten(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    """Split nested dicts, lists and tuples into a JSON form and the tensors by name.

    Raises `TrainingFailed` for a value that is neither plain nor a tensor.

    >>> form, tensors = flatten({"a": [1, torch.tensor([2.0])], 3: (None,)})
    >>> restored = unflatten(form, tensors)
    >>> restored[3], restored["a"][1].tolist()
    ((None,), [2.0])
    """
    tensors: dict[str, Tensor] = {}

    def visit(value: Any) -> Any:
        if isinstance(value, Tensor):
            name = str(len(tensors))
            # safetensors stores neither views nor strides; values are what counts.
            tensors[name] = value.detach().cpu().contiguous().clone()
            return {"tensor": name}
        if isinstance(value, Mapping):
            return {"dict": [[visit(key), visit(item)] for key, item in value.items()]}
        if isinstance(value, list | tuple):
            return {type(value).__name__ if type(value) in (list, tuple) else "tuple": [visit(item) for item in value]}
        if isinstance(value, _SCALARS):
            return value
        raise TrainingFailed(
            f"A checkpoint holds tensors and plain values, but the training state has a {type(value).__name__}."
        )

    return visit(tree), tensors


def unflatten(form: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Undo `flatten`."""
    if not isinstance(form, dict):
        return form
    ((kind, value),) = form.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {unflatten(key, tensors): unflatten(item, tensors) for key, item in value}
    items = [unflatten(item, tensors) for item in value]
    return tuple(items) if kind == "tuple" else items


def save_checkpoint(tree: Mapping[str, Any], folder: Path) -> None:
    """Write a checkpoint so that ``folder`` exists only once it is whole and on the disk."""
    form, tensors = flatten(tree)
    aside = folder.with_name(folder.name + _UNFINISHED)
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        save_file(tensors, aside / TENSORS_FILE)
        state = {"format": 1, "sha256": {TENSORS_FILE: file_sha256(aside / TENSORS_FILE)}, "tree": form}
        text = json.dumps(state)
        document = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "state": text}
        (aside / STATE_FILE).write_text(json.dumps(document), encoding="utf-8")
        for name in (TENSORS_FILE, STATE_FILE):
            flush(aside / name)
        flush(aside)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(aside, folder)
        flush(folder.parent)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise TrainingFailed(
            f'The checkpoint "{folder}" could not be written ({error.strerror}); earlier ones are untouched.'
        ) from error


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """Read a checkpoint; raise `BadWeights` where a file is missing or is not what was written."""
    try:
        document = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        text = document["state"]
        if hashlib.sha256(text.encode()).hexdigest() != document["sha256"]:
            raise BadWeights(f'The checkpoint "{folder}" is damaged: {STATE_FILE} has another sha256 than it states.')
        state = json.loads(text)
        for name, expected in state["sha256"].items():
            if file_sha256(folder / name) != expected:
                raise BadWeights(f'The checkpoint "{folder}" is damaged: {name} has another sha256 than it should.')
        tree = unflatten(state["tree"], load_file(folder / TENSORS_FILE))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise BadWeights(f'The checkpoint "{folder}" cannot be read: {error}.') from error
    return dict(tree)


def checkpoints(run: Path) -> list[Path]:
    """List a run's finished checkpoints, newest first."""
    found = [path for path in run.glob(f"{_PREFIX}*") if path.is_dir() and path.name.removeprefix(_PREFIX).isdigit()]
    return sorted(found, key=lambda path: int(path.name.removeprefix(_PREFIX)), reverse=True)


def checkpoint_folder(run: Path, step: int) -> Path:
    """Return where the checkpoint of a step goes."""
    return run / f"{_PREFIX}{step:08d}"


def newest_valid(run: Path) -> Iterator[tuple[Path, str | None]]:
    """Yield checkpoints newest first with what is wrong with each (None: it loads), ending at the first good one."""
    for folder in checkpoints(run):
        try:
            load_checkpoint(folder)
        except BadWeights as error:
            yield folder, str(error)
            continue
        yield folder, None
        return


def prune(run: Path, keep: int) -> None:
    """Delete all but the newest checkpoints, and what killed saves left behind."""
    for folder in checkpoints(run)[keep:]:
        shutil.rmtree(folder, ignore_errors=True)
    for folder in run.glob(f"{_PREFIX}*{_UNFINISHED}"):
        shutil.rmtree(folder, ignore_errors=True)


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Force a file or a folder to the disk (folders only where the system can)."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class DirectoryCheckpointIO(CheckpointIO):
    """Replaces Lightning's pickled ``.ckpt`` by our directories."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        save_checkpoint(checkpoint, Path(path))

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        tree = load_checkpoint(Path(path))
        return tree if map_location is None else _moved(tree, torch.device("cpu"))

    def remove_checkpoint(self, path: Any) -> None:
        shutil.rmtree(Path(path), ignore_errors=True)


def _moved(tree: Any, device: torch.device) -> Any:
    """Return the tree with its tensors on a device."""
    if isinstance(tree, Tensor):
        return tree.to(device)
    if isinstance(tree, dict):
        return {key: _moved(value, device) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_moved(value, device) for value in tree)
    return tree

"""Checkpoints survive being killed, damaged and filled with anything but code."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from imagesmith.core.errors import BadWeights, TrainingFailed
from imagesmith.training.checkpoint import (
    DirectoryCheckpointIO,
    checkpoint_folder,
    checkpoints,
    flatten,
    load_checkpoint,
    newest_valid,
    prune,
    save_checkpoint,
    unflatten,
)

TREE = {
    "state": {0: {"moment": torch.randn(3, 2), "step": torch.tensor(4.0)}, "a.b": torch.zeros(0, 5)},
    "betas": (0.9, 0.999),
    "flags": [True, None, "text", -3, 1e-300, float("inf")],
    "half": torch.randn(4).bfloat16(),
    "view": torch.arange(12).reshape(3, 4).t(),
    "nested": {"empty": {}, "list": [], "tuple": ()},
}


def same(first: object, second: object) -> bool:
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return (
            isinstance(second, dict) and list(first) == list(second) and all(same(first[k], second[k]) for k in first)
        )
    if isinstance(first, list | tuple):
        return type(first) is type(second) and len(first) == len(second) and all(map(same, first, second))
    return type(first) is type(second) and first == second


def test_trees_come_back_as_they_were(tmp_path: Path) -> None:
    save_checkpoint(TREE, tmp_path / "step-00000001")
    assert same(load_checkpoint(tmp_path / "step-00000001"), TREE)
    form, tensors = flatten(TREE)
    assert same(unflatten(json.loads(json.dumps(form)), tensors), TREE)


def test_shared_and_large_numbers_survive(tmp_path: Path) -> None:
    shared = torch.randn(5)
    save_checkpoint({"one": shared, "two": shared[:2], "number": 2**62 + 1}, tmp_path / "step-00000001")
    loaded = load_checkpoint(tmp_path / "step-00000001")
    assert torch.equal(loaded["two"], shared[:2])
    assert loaded["number"] == 2**62 + 1


def test_only_plain_values_are_written(tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match="has a complex"):
        save_checkpoint({"number": 1j}, tmp_path / "step-00000001")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("file", ["tensors.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "missing"])
def test_every_damage_is_noticed(tmp_path: Path, file: str, damage: str) -> None:
    folder = tmp_path / "step-00000001"
    save_checkpoint(TREE, folder)
    path = folder / file
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) * 2 // 3] ^= 1
        path.write_bytes(content)
    with pytest.raises(BadWeights, match="step-00000001"):
        load_checkpoint(folder)


def test_newest_valid_names_what_it_skips(tmp_path: Path) -> None:
    for step in (2, 10, 9):
        save_checkpoint({"step": step}, checkpoint_folder(tmp_path, step))
    (checkpoint_folder(tmp_path, 10) / "state.json").write_text("{}")
    (tmp_path / "step-notes").mkdir()
    found = list(newest_valid(tmp_path))
    assert [(folder.name, damage is None) for folder, damage in found] == [
        ("step-00000010", False),
        ("step-00000009", True),
    ]


def test_prune_keeps_the_newest_and_removes_leftovers(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_checkpoint({"step": step}, checkpoint_folder(tmp_path, step))
    (tmp_path / "step-00000004.tmp").mkdir()
    (tmp_path / "model").mkdir()
    prune(tmp_path, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "step-00000002", "step-00000003"]
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000003", "step-00000002"]


def test_a_full_disk_leaves_earlier_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint({"step": 1}, checkpoint_folder(tmp_path, 1))

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("imagesmith.training.checkpoint.flush", full)
    with pytest.raises(TrainingFailed, match=r"No space left.*untouched"):
        save_checkpoint({"step": 2}, checkpoint_folder(tmp_path, 2))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert load_checkpoint(checkpoint_folder(tmp_path, 1)) == {"step": 1}


def test_lightning_plugin_writes_directories(tmp_path: Path) -> None:
    plugin = DirectoryCheckpointIO()
    plugin.save_checkpoint(TREE, tmp_path / "step-00000001")
    assert same(plugin.load_checkpoint(tmp_path / "step-00000001"), TREE)
    assert same(plugin.load_checkpoint(tmp_path / "step-00000001", map_location="cpu"), TREE)
    plugin.remove_checkpoint(tmp_path / "step-00000001")
    assert not (tmp_path / "step-00000001").exists()


_WRITER = """
import sys, torch
from pathlib import Path
from imagesmith.training.checkpoint import checkpoint_folder, save_checkpoint, prune
root = Path(sys.argv[1])
first = int(sys.argv[2])
print("ready", flush=True)
for step in range(first, first + 10000):
    save_checkpoint({"step": step, "weights": torch.full((500_000,), float(step))}, checkpoint_folder(root, step))
    prune(root, 2)
"""


@pytest.mark.slow
def test_killed_while_saving_the_newest_whole_one_loads(tmp_path: Path) -> None:
    last = 0
    for attempt in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path), str(last + 1)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.15 + 0.037 * attempt)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        found = [folder for folder, damage in newest_valid(tmp_path) if damage is None]
        if checkpoints(tmp_path):
            state = load_checkpoint(found[0])
            assert float(state["weights"][0]) == float(state["weights"][-1]) == state["step"] >= last
            assert found[0] == checkpoints(tmp_path)[0]
            last = state["step"]
    assert last > 0

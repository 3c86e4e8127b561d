"""A whole training on tiny packs: what it writes, and that a break changes nothing."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from imagesmith.core.errors import BadInput, TrainingFailed
from imagesmith.training import vision
from imagesmith.training.checkpoint import checkpoints, load_checkpoint
from imagesmith.training.recipe import make_recipe
from imagesmith.training.run import resume, run
from imagesmith.training.segment import SegmentTask
from imagesmith.training.task import Ticket
from imagesmith.training.tasks import make_task

Values = Callable[..., dict[str, Any]]


class Stopped(Exception):
    """Stands for a power cut."""


def fingerprint(tree: Any) -> str:
    """Hash a checkpoint's values, bit by bit."""
    if isinstance(tree, torch.Tensor):
        return hashlib.sha256(tree.numpy().tobytes()).hexdigest()
    if isinstance(tree, dict):
        return "{" + ",".join(f"{key!r}:{fingerprint(value)}" for key, value in sorted(tree.items(), key=str)) + "}"
    if isinstance(tree, list | tuple):
        return "[" + ",".join(map(fingerprint, tree)) + "]"
    return repr(tree)


def of_training(checkpoint: dict[str, Any]) -> dict[str, str]:
    """Return what must be equal after any break: weights, optimizer, average, schedule, place in the data."""
    names = ("state_dict", "optimizer_states", "callbacks", "lr_schedulers", "cursor", "global_step")
    return {name: fingerprint(checkpoint[name]) for name in names}


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave flushing out: it is tested where checkpoints are, and takes most of the time here."""
    monkeypatch.setattr("imagesmith.training.checkpoint.flush", lambda path: None)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int, int]]:
    """Record the ticket of every example made."""
    tickets: list[tuple[int, int, int, int]] = []
    original = SegmentTask.example

    def record(self: SegmentTask, ticket: Any) -> Any:
        tickets.append(tuple(ticket))
        return original(self, ticket)

    monkeypatch.setattr(SegmentTask, "example", record)
    return tickets


def interrupt_at(step: int) -> Callable[[vision.Progress], None]:
    def watch(progress: vision.Progress) -> None:
        if progress.step == step:
            raise Stopped

    return watch


def train_with_breaks(values: dict[str, Any], out: Path, breaks: list[int]) -> None:
    """Train, dying at each of the steps and resuming."""
    recipe = make_recipe(values)
    for number, step in enumerate(breaks):
        with pytest.raises(Stopped):
            run(recipe, out, progress=interrupt_at(step)) if number == 0 else resume(out, progress=interrupt_at(step))
    resume(out)


def final(out: Path) -> dict[str, Any]:
    return load_checkpoint(checkpoints(out)[0])


@pytest.mark.parametrize("breaks", [[5], [4, 5, 7]], ids=str)
def test_resumed_training_is_bit_equal(
    segment_values: Values, tmp_path: Path, breaks: list[int], seen: list[tuple[int, int, int, int]]
) -> None:
    values = segment_values()
    run(make_recipe(values), tmp_path / "straight")
    straight_tickets = list(seen)
    seen.clear()
    train_with_breaks(values, tmp_path / "broken", breaks)
    assert of_training(final(tmp_path / "straight")) == of_training(final(tmp_path / "broken"))
    # Nothing was seen that the straight run did not see, and nothing was left out.
    assert set(seen) == set(straight_tickets)
    for name in ("train.csv", "validation.csv"):
        rows = [(tmp_path / run_name / name).read_text().splitlines() for run_name in ("straight", "broken")]
        without_time = [[[cell for at, cell in enumerate(row.split(",")) if at != 1] for row in part] for part in rows]
        assert without_time[0] == without_time[1]


def test_resume_is_not_bit_equal_without_the_step_seed(
    segment_values: Values, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: with one global random stream the break shows."""

    def from_the_stream(seed: int, step: int) -> int:
        return int(torch.randint(0, 2**40, ()).item())

    monkeypatch.setattr(vision, "step_seed", from_the_stream)
    values = segment_values()
    run(make_recipe(values), tmp_path / "straight")
    train_with_breaks(values, tmp_path / "broken", [5])
    assert of_training(final(tmp_path / "straight")) != of_training(final(tmp_path / "broken"))


def test_classification_resumes_bit_equal(classify_values: Values, tmp_path: Path) -> None:
    values = classify_values(accumulate=2)
    run(make_recipe(values), tmp_path / "straight")
    train_with_breaks(values, tmp_path / "broken", [5])
    assert of_training(final(tmp_path / "straight")) == of_training(final(tmp_path / "broken"))


def test_measuring_and_logging_do_not_change_the_weights(segment_values: Values, tmp_path: Path) -> None:
    run(make_recipe(segment_values()), tmp_path / "often")
    run(make_recipe(segment_values(validate_every=8, log_every=3, save_every=8)), tmp_path / "seldom")
    often, seldom = final(tmp_path / "often"), final(tmp_path / "seldom")
    assert fingerprint(often["state_dict"]) == fingerprint(seldom["state_dict"])
    assert fingerprint(often["optimizer_states"]) == fingerprint(seldom["optimizer_states"])


def test_workers_do_not_change_the_weights(segment_values: Values, tmp_path: Path) -> None:
    values = segment_values(steps=4)
    run(make_recipe(values), tmp_path / "here")
    run(make_recipe(values, ["data.workers=2"]), tmp_path / "workers")
    run(make_recipe(values, ["data.cache=false"]), tmp_path / "uncached")
    here = fingerprint(final(tmp_path / "here")["state_dict"])
    assert here == fingerprint(final(tmp_path / "workers")["state_dict"])
    assert here == fingerprint(final(tmp_path / "uncached")["state_dict"])


def test_training_learns_and_writes_a_model_folder(segment_values: Values, tmp_path: Path) -> None:
    values = segment_values(steps=60, learning_rate=4e-3, validate_every=20, save_every=30, ema=0.8)
    result = run(make_recipe(values, ["weights_dtype=float16"]), tmp_path)
    assert result.metrics["pixel_accuracy"] > 0.8
    config = json.loads((result.model / "config.json").read_text())
    assert (config["id2label"]["3"], config["model_type"]) == ("dress", "segformer")
    weights = load_file(result.model / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16, torch.int64}
    stated = json.loads((result.model / "metrics.json").read_text())
    assert stated["mean_iou"] == result.metrics["mean_iou"]
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000060", "step-00000030"]
    assert (tmp_path / "recipe.yaml").exists()
    assert list((tmp_path / "tensorboard").glob("events*"))
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".ckpt", ".pt", ".pkl", ".tmp")]


def test_a_damaged_checkpoint_is_passed_over(segment_values: Values, tmp_path: Path) -> None:
    values = segment_values()
    run(make_recipe(values), tmp_path / "straight")
    with pytest.raises(Stopped):
        run(make_recipe(values), tmp_path / "broken", progress=interrupt_at(7))
    newest = checkpoints(tmp_path / "broken")[0]
    file = newest / "tensors.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    result = resume(tmp_path / "broken")
    assert [newest.name in sentence for sentence in result.skipped] == [True]
    assert of_training(final(tmp_path / "straight")) == of_training(final(tmp_path / "broken"))


def test_a_training_that_diverges_keeps_the_last_finite_weights(
    segment_values: Values, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = SegmentTask.loss

    def explode(self: SegmentTask, module: Any, batch: Any, step: int) -> dict[str, torch.Tensor]:
        losses = original(self, module, batch, step)
        return {name: value * float("nan") if step == 5 else value for name, value in losses.items()}

    monkeypatch.setattr(SegmentTask, "loss", explode)
    with pytest.raises(TrainingFailed, match=r"step 6.*last-finite.*learning_rate"):
        run(make_recipe(segment_values()), tmp_path)
    weights = load_file(tmp_path / "last-finite" / "model.safetensors")
    assert all(bool(tensor.isfinite().all()) for tensor in weights.values())


STOPPED = """
import json, signal, sys
from imagesmith.core.errors import Cancelled
from imagesmith.training.recipe import make_recipe
from imagesmith.training.run import run

name, values, out = sys.argv[1:]
signal.signal(signal.SIGINT, signal.default_int_handler)  # background shells switch it off
before = signal.getsignal(signal.SIGINT)


def stop(progress):
    if progress.step == 5:
        signal.raise_signal(getattr(signal, name))


try:
    run(make_recipe(json.loads(values)), out, progress=stop)
except Cancelled as error:
    assert signal.getsignal(signal.SIGINT) is before
    sys.exit(str(error))
"""
"""Run in a process of its own: a signal that goes astray must not end the tests."""


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 1)])
def test_a_stopped_training_goes_on_bit_equal(segment_values: Values, tmp_path: Path, name: str, code: int) -> None:
    values = segment_values()
    run(make_recipe(values), tmp_path / "straight")
    command = [sys.executable, "-c", STOPPED, name, json.dumps(values), str(tmp_path / "broken")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    if name == "SIGTERM":
        assert checkpoints(tmp_path / "broken")[0].name == "step-00000005"
    else:
        assert "train resume" in done.stderr
    resume(tmp_path / "broken")
    assert of_training(final(tmp_path / "straight")) == of_training(final(tmp_path / "broken"))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradients_are_clipped_when_they_are_applied(
    segment_values: Values, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    norms: list[float] = []
    original = torch.optim.AdamW.step

    def record(self: torch.optim.AdamW, closure: Any = None) -> Any:
        def measured() -> Any:
            loss = closure()
            gradients = [p.grad.flatten() for group in self.param_groups for p in group["params"]]
            norms.append(float(torch.cat(gradients).norm()))
            return loss

        return original(self, measured)

    monkeypatch.setattr(torch.optim.AdamW, "step", record)
    for name, limit in (("clipped", 1e-3), ("free", None)):
        values = segment_values(steps=2, precision=precision, clip_norm=limit)
        run(make_recipe(values), tmp_path / name)
    assert norms[:2] == pytest.approx([1e-3, 1e-3], rel=1e-3)
    # Negative control: without a limit they are larger.
    assert min(norms[2:]) > 1e-2


def test_frozen_parts_stand_still(segment_values: Values, tmp_path: Path) -> None:
    values = segment_values(freeze=["encoder"], steps=2, save_every=1)
    run(make_recipe(values), tmp_path)
    first, last = (load_checkpoint(path)["state_dict"] for path in reversed(checkpoints(tmp_path)))
    changed = {name for name in first if not torch.equal(first[name], last[name])}
    assert changed
    assert all("decode_head" in name for name in changed)


def test_init_keeps_the_rows_of_known_labels(segment_values: Values, segment_pack: Path, tmp_path: Path) -> None:
    first = run(make_recipe(segment_values(steps=2)), tmp_path / "first")
    other = tmp_path / "other-pack"
    shutil.copytree(segment_pack, other)
    (other / "labels.json").write_text(json.dumps(["background", "dress", "hat", "right-shoe", "scarf"]))
    values = segment_values(steps=1, learning_rate=1e-12, warmup_steps=0, ema=None)
    values |= {"init": str(first.model), "data": {"path": str(other), "workers": 0}}
    second = run(make_recipe(values), tmp_path / "second")
    old, new = (load_file(path.model / "model.safetensors") for path in (first, second))
    key = "decode_head.classifier.weight"
    assert torch.allclose(new[key][1], old[key][3], atol=1e-6)
    assert torch.allclose(new[key][3], old[key][2], atol=1e-6)
    assert not torch.allclose(new[key][2], old[key][2], atol=1e-3)
    name = "segformer.encoder.block.0.0.mlp.dense1.weight"
    assert torch.allclose(new[name], old[name], atol=1e-6)


def test_resume_does_not_need_the_model_it_began_from(segment_values: Values, tmp_path: Path) -> None:
    first = run(make_recipe(segment_values(steps=1, warmup_steps=0)), tmp_path / "first")
    values = segment_values(steps=4) | {"init": str(first.model)}
    run(make_recipe(values), tmp_path / "straight")
    with pytest.raises(Stopped):
        run(make_recipe(values), tmp_path / "broken", progress=interrupt_at(3))
    shutil.rmtree(first.model)
    resume(tmp_path / "broken")
    assert of_training(final(tmp_path / "straight")) == of_training(final(tmp_path / "broken"))


def test_an_unreadable_photograph_is_replaced_by_the_next(
    segment_values: Values, segment_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = tmp_path / "pack"
    shutil.copytree(segment_pack, pack)
    (pack / "images" / "03.png").write_bytes(b"no picture")
    (pack / "images" / "08.png").write_bytes(b"no picture")
    values = segment_values(steps=2) | {"data": {"path": str(pack), "workers": 0}}
    with pytest.raises(BadInput, match=r"1 of 10 photographs cannot be used.*03\.png"):
        run(make_recipe(values), tmp_path / "strict")
    monkeypatch.setattr("imagesmith.training.data.TOLERATED_SHARE", 0.6)
    task = make_task(make_recipe(values))
    task.prepare()
    assert [pair.image.name for pair in task.validation] == ["00.png"]
    bad = [pair.image.name for pair in task.train].index("03.png")
    tickets = [Ticket(0, 0, 5, bad), Ticket(0, 0, 5, bad + 1)]
    first, second = (task.example(ticket) for ticket in tickets)
    assert np.array_equal(first.image, second.image)
    assert run(make_recipe(values), tmp_path / "tolerant").metrics["pixel_accuracy"] >= 0


def test_other_data_is_refused_on_resume(segment_values: Values, segment_pack: Path, tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    shutil.copytree(segment_pack, pack)
    values = segment_values() | {"data": {"path": str(pack), "workers": 0}}
    with pytest.raises(Stopped):
        run(make_recipe(values), tmp_path / "run", progress=interrupt_at(4))
    (pack / "masks" / "03.png").unlink()
    with pytest.raises(BadInput, match="has changed"):
        resume(tmp_path / "run")


def test_a_folder_with_a_training_is_not_overwritten(segment_values: Values, tmp_path: Path) -> None:
    run(make_recipe(segment_values(steps=1, warmup_steps=0)), tmp_path)
    with pytest.raises(BadInput, match="already holds a training"):
        run(make_recipe(segment_values(steps=1, warmup_steps=0)), tmp_path)
    with pytest.raises(BadInput, match="no training to resume"):
        resume(tmp_path / "nothing")

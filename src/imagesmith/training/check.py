"""Look for what is wrong before hours are spent: the data, the memory a step needs, the time a training takes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from imagesmith.core.errors import ImagesmithError
from imagesmith.training.data import TicketSampler
from imagesmith.training.precision import mixed
from imagesmith.training.recipe import VisionRecipe
from imagesmith.training.run import Resolve, as_folder, start_network
from imagesmith.training.start import freeze, parameter_groups
from imagesmith.training.task import Task
from imagesmith.training.tasks import make_task

Severity = Literal["error", "warning", "note"]
_TRIES = 2


@dataclass(frozen=True)
class Finding:
    """One thing worth knowing: an error stops a training, a warning may spoil it, a note is only told."""

    severity: Severity
    message: str


@dataclass(frozen=True)
class CheckReport:
    """What was found, and what the training will need."""

    findings: tuple[Finding, ...]
    parameters: int = 0
    """Numbers the network learns."""
    memory_bytes: int = 0
    """Weights, gradients, optimizer, average and what the largest step keeps for its gradient."""
    seconds: float = 0.0
    """Estimate of the whole training on this machine, without measuring and saving."""

    @property
    def ok(self) -> bool:
        """Tell whether a training could start."""
        return not any(finding.severity == "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        findings = [{"severity": finding.severity, "message": finding.message} for finding in self.findings]
        return {
            "ok": self.ok,
            "findings": findings,
            "parameters": self.parameters,
            "memory_bytes": self.memory_bytes,
            "seconds": self.seconds,
        }

    def text(self) -> str:
        """Return the report as lines for a person."""
        lines = [f"{finding.severity}: {finding.message}" for finding in self.findings]
        if self.parameters:
            lines.append(
                f"plan: {self.parameters / 1e6:.2f} M parameters, about {self.memory_bytes / 1e9:.2f} GB of memory, "
                f"about {self.seconds / 60:.1f} minutes"
            )
        lines.append("The training can start." if self.ok else "The training cannot start.")
        return "\n".join(lines)


def check(recipe: VisionRecipe, *, resolve: Resolve | None = None) -> CheckReport:
    """Look at a recipe's data and try one step of every stage; nothing is written."""
    try:
        task = make_task(recipe)
        findings = [Finding(severity, message) for severity, message in task.check()]  # type: ignore[arg-type]
        if any(finding.severity == "error" for finding in findings):
            return CheckReport(tuple(findings))
        task.prepare()
        network, _ = start_network(recipe, task, resolve or as_folder)
        freeze(network, recipe.train.freeze, task.parts)
        parameter_groups(network, 1.0, 0.0, recipe.train.learning_rates, task.parts)
    except ImagesmithError as error:
        return CheckReport((Finding("error", str(error)),))
    return _plan(recipe, task, network, findings)


def _plan(recipe: VisionRecipe, task: Task, network: nn.Module, findings: list[Finding]) -> CheckReport:
    """Try a step of every stage and add up what the training needs."""
    settings = recipe.train
    learning = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in network.parameters())
    # Weights; then gradient, two moments and the average of what learns. All in float32.
    fixed = 4 * (total + learning * (3 + (settings.ema is not None)))
    seconds, kept, before = 0.0, 0, 0.0
    for stage in settings.stages:
        first = round(before * settings.steps)
        took, saved = _try_step(task, network, recipe, first)
        seconds += took * settings.accumulate * (stage.until - before) * settings.steps
        kept, before = max(kept, saved), stage.until
    return CheckReport(tuple(findings), learning, fixed + kept, seconds)


def _try_step(task: Task, network: nn.Module, recipe: VisionRecipe, step: int) -> tuple[float, int]:
    """Run forward and backward: seconds of the faster try (the first one warms up), and bytes autograd kept."""
    sampler = TicketSampler(task.epoch_order, recipe.train, step)
    batch = task.collate([task.example(ticket) for ticket in next(iter(sampler))])
    kept: dict[int, int] = {}
    held = 0

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    network.train()
    seconds = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.train.seed)
        for _ in range(_TRIES):
            started = time.perf_counter()
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), mixed(recipe.train.precision):
                loss = task.loss(network, batch, step)["loss"]
            loss.backward()
            seconds.append(time.perf_counter() - started)
            held = sum(kept.values())
            kept.clear()
    network.zero_grad(set_to_none=True)
    return min(seconds), held

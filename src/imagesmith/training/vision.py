"""The engine: one Lightning module and three callbacks teach every understanding task.

Randomness inside a step (dropout, stochastic depth, mixing) comes from torch's generator, seeded by (seed, step)
before each loss; so nothing random has to be saved, and measuring or logging cannot change the weights.
"""

from __future__ import annotations

import csv
import functools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from imagesmith.core.errors import TrainingFailed
from imagesmith.training.checkpoint import checkpoint_folder, prune
from imagesmith.training.data import LOSS_STREAM, Cursor, advance
from imagesmith.training.folder import write_model_folder
from imagesmith.training.precision import mixed
from imagesmith.training.recipe import VisionRecipe
from imagesmith.training.settings import TrainSettings
from imagesmith.training.start import MovingAverage, hold_frozen_in_eval, parameter_groups, rate_factor
from imagesmith.training.task import Task


@dataclass(frozen=True)
class Progress:
    """One moment of a training, for whoever watches."""

    step: int
    steps: int
    loss: float
    seconds: float
    """Since this process began to train."""
    seconds_left: float
    """At the pace so far."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """What was measured at this step; empty between measurements."""

    def __str__(self) -> str:
        measured = "".join(f", {name} {value:.4g}" for name, value in self.figures.items())
        left = self.seconds_left / 60
        return f"step {self.step} of {self.steps}: loss {self.loss:.4f}{measured} ({left:.0f} minutes left)"


Watch = Callable[[Progress], None]


def step_seed(seed: int, step: int) -> int:
    """Return the seed of one micro step, a function of the run's seed and the step alone."""
    return int(np.random.SeedSequence((seed, LOSS_STREAM, step)).generate_state(1, np.uint64)[0] >> np.uint64(1))


class VisionModule(lightning.LightningModule):
    """A thin shell around a task and its network."""

    def __init__(self, task: Task, recipe: VisionRecipe, network: nn.Module, origin: Mapping[str, Any]) -> None:
        super().__init__()
        self.task, self.settings, self.network, self.origin = task, recipe.train, network, origin
        self.cursor = Cursor()
        self.last_loss = math.nan
        self.parts: dict[str, float] = {}

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        torch.manual_seed(step_seed(self.settings.seed, batch_idx))
        self.network.train()
        hold_frozen_in_eval(self.network)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        losses = self.task.loss(self.network, batch, self.global_step)
        # One host copy for all parts.
        values = torch.stack([value.detach().float() for value in losses.values()]).tolist()
        self.parts = dict(zip(losses, values, strict=True))
        self.last_loss = self.parts["loss"]
        if not math.isfinite(self.last_loss):
            raise NotFinite(f"the loss became {self.last_loss}")
        return losses["loss"]

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        # Clipped here and not by Lightning, whose clipping skips fused optimizers under mixed precision.
        gradients = [parameter for parameter in self.network.parameters() if parameter.grad is not None]
        norm = torch.nn.utils.clip_grad_norm_(gradients, self.settings.clip_norm or math.inf)
        if not torch.isfinite(norm):
            raise NotFinite("a gradient is not finite")

    def configure_optimizers(self) -> Any:
        settings = self.settings
        groups = parameter_groups(
            self.network, settings.learning_rate, settings.weight_decay, settings.learning_rates, self.task.parts
        )
        optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, functools.partial(rate_at, settings))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["cursor"] = list(self.cursor)
        checkpoint.update(self.origin)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.cursor = Cursor(*checkpoint["cursor"])


def rate_at(settings: TrainSettings, step: int) -> float:
    """Return the factor of the learning rate at a step (from 0)."""
    factor = rate_factor(step, settings.steps, settings.warmup_steps, settings.schedule, settings.power)
    return factor * settings.stage_at(step).rate


class NotFinite(Exception):
    """Signals from inside a step that it must not be applied."""


class Averaging(Callback):
    """Keeps the moving average of the weights."""

    def __init__(self, decay: float | None) -> None:
        self.decay = decay
        self.average: MovingAverage | None = None
        self._loaded: dict[str, Tensor] = {}

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: VisionModule) -> None:
        if self.decay is not None:
            self.average = MovingAverage(pl_module.network, self.decay)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: VisionModule) -> None:
        if self.average is not None and self._loaded:
            device = pl_module.device
            self.average.values = {name: tensor.to(device) for name, tensor in self._loaded.items()}
            self._loaded = {}

    def after_step(self, network: nn.Module, step: int) -> None:
        if self.average is not None:
            self.average.update(network, step)

    def swap(self, network: nn.Module) -> None:
        if self.average is not None:
            self.average.swap(network)

    def state_dict(self) -> dict[str, Any]:
        return {} if self.average is None else dict(self.average.values)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = dict(state_dict)


class Keeper(Callback):
    """After each step: average, measure, keep the best model folder and the last checkpoints, write the logs."""

    def __init__(
        self, task: Task, recipe: VisionRecipe, config: Mapping[str, Any], out: Path, averaging: Averaging,
        watch: Watch | None,
    ) -> None:  # fmt: skip
        self.task, self.recipe, self.config, self.out = task, recipe, config, out
        self.averaging, self.watch = averaging, watch
        self.best: float | None = None
        self.best_step = 0
        self.figures: dict[str, float] = {}
        self.started, self.first_step = time.monotonic(), 0
        self.finite_state: Path | None = None
        self.exception: BaseException | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_step": self.best_step, "figures": self.figures}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.best_step, self.figures = (state_dict[name] for name in ("best", "best_step", "figures"))

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.started, self.first_step = time.monotonic(), trainer.global_step

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: VisionModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        settings = self.recipe.train
        if (batch_idx + 1) % settings.accumulate:
            return
        step = trainer.global_step
        pl_module.cursor = advance(pl_module.cursor, settings.batch_size_at(step - 1), self.task.epoch_order)
        self.averaging.after_step(pl_module.network, step - 1)
        last = step == settings.steps
        measured: dict[str, float] = {}
        if step % settings.validate_every == 0 or last:
            measured = self._measure(trainer, pl_module, step)
        if step % settings.log_every == 0 or measured:
            self._log(trainer, pl_module, step, measured)
        if step % settings.save_every == 0 or last or trainer.received_sigterm:
            self.save(trainer, step)

    def save(self, trainer: lightning.Trainer, step: int) -> Path:
        """Write a checkpoint and drop the oldest."""
        folder = checkpoint_folder(self.out, step)
        trainer.save_checkpoint(folder)
        prune(self.out, self.recipe.train.keep_last)
        return folder

    def _measure(self, trainer: lightning.Trainer, module: VisionModule, step: int) -> dict[str, float]:
        """Measure the averaged weights, and keep them where they are the best so far."""
        network = module.network
        self.averaging.swap(network)
        network.eval()
        try:
            with mixed(self.recipe.train.precision, str(module.device)):
                kept = self.task.finished(network)
                figures = self.task.evaluate(kept, str(module.device))
            value = figures[self.task.monitor]
            if math.isfinite(value) and (self.best is None or value > self.best):
                self.best, self.best_step, self.figures = value, step, figures
                metrics = {"step": step, **figures}
                write_model_folder(self.out / "model", kept.state_dict(), self.config, self.recipe, metrics)
        finally:
            network.train()
            self.averaging.swap(network)
        return figures

    def _log(self, trainer: lightning.Trainer, module: VisionModule, step: int, measured: Mapping[str, float]) -> None:
        seconds = time.monotonic() - self.started
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        row: dict[str, float] = {"step": step, "seconds": round(seconds, 1), "learning_rate": rate, **module.parts}
        append_row(self.out / "train.csv", row)
        if measured:
            append_row(self.out / "validation.csv", {"step": step, **measured})
        for logger in trainer.loggers:
            logger.log_metrics({**row, **{f"validation/{name}": value for name, value in measured.items()}}, step)
        if self.watch is not None:
            left = seconds / max(step - self.first_step, 1) * (self.recipe.train.steps - step)
            self.watch(Progress(step, self.recipe.train.steps, module.last_loss, seconds, left, dict(measured)))

    def on_exception(self, trainer: lightning.Trainer, pl_module: VisionModule, exception: BaseException) -> None:
        self.exception = exception
        if isinstance(exception, NotFinite):
            # The step was not applied, so the weights are the last finite ones.
            pl_module.zero_grad(set_to_none=True)
            self.averaging.swap(pl_module.network)
            state = self.task.finished(pl_module.network).state_dict()
            metrics = {"step": trainer.global_step, **self.figures}
            self.finite_state = self.out / "last-finite"
            write_model_folder(self.finite_state, state, self.config, self.recipe, metrics)


def append_row(path: Path, row: Mapping[str, float]) -> None:
    """Add a line to a CSV file, with a header where the file is new."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(row)
        writer.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in row.values()])


def cut_rows(path: Path, last_step: int) -> None:
    """Drop the lines of a CSV file that lie after a step, which a resumed training writes again."""
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *(row for row in rows if row and int(row[0]) <= last_step)])


def explain(error: NotFinite, step: int, kept: Path | None) -> TrainingFailed:
    """Turn the signal into a sentence with a remedy."""
    where = f' The last finite weights are in "{kept}".' if kept else ""
    return TrainingFailed(
        f"Training stopped at step {step + 1}: {error}.{where} Lower train.learning_rate or use train.precision=fp32."
    )

"""The seam between the engine and what is taught: one object per task, no Lightning in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

Batch = Mapping[str, Any]
"""What a network sees in one step: tensors by name (all on one device), or lists of them."""


class Ticket(NamedTuple):
    """Names one training example; everything random in it follows from (seed, epoch, position)."""

    step: int
    """Global step it is made for, which decides the picture size."""
    epoch: int
    position: int
    """Place in the epoch's order."""
    photograph: int
    """Which one of the training part."""


@runtime_checkable
class Task(Protocol):
    """Teach one kind of network.

    The engine asks for examples (in worker processes), collates them, moves the tensors to the device, computes the
    loss, and now and then measures. A task holds its data and its recipe and no other state, so that any process
    can answer for any ticket. Everything random comes from the ticket or from the torch generator, which the engine
    seeds by (seed, step) before every loss.
    """

    monitor: str
    """Figure of `evaluate` that chooses the best weights; larger is better."""
    labels: tuple[str, ...]
    parts: Mapping[str, tuple[str, ...]]
    """Patterns over parameter names by the words that `freeze` and `learning_rates` know."""

    def prepare(self) -> None:
        """Read the data once, before workers are started, so that they share it."""
        ...

    def manifest(self) -> list[Path]:
        """Return the files the training depends on."""
        ...

    def config(self) -> dict[str, Any]:
        """Return the network's configuration as its config.json will say it, labels included."""
        ...

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """Build the network with random weights."""
        ...

    def finished(self, module: nn.Module) -> nn.Module:
        """Return the network to measure and keep, sharing weights: without what only training needs."""
        ...

    def epoch_order(self, epoch: int) -> NDArray[np.int64]:
        """Return which photographs an epoch shows, in order; a pure function of (seed, epoch)."""
        ...

    def example(self, ticket: Ticket) -> Any:
        """Make one training example; runs in a worker."""
        ...

    def collate(self, examples: Sequence[Any]) -> Batch:
        """Join examples into a batch; runs in a worker."""
        ...

    def loss(self, module: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:
        """Return 0-dim tensors: "loss", which is minimised, and its parts, which are logged."""
        ...

    def evaluate(self, module: nn.Module, device: str) -> dict[str, float]:
        """Measure a network in evaluation mode on the validation part."""
        ...

    def check(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with the data: ("error" or "warning" or "note", one sentence)."""
        ...

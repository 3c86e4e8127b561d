"""Compare an exported model with the torch module it came from, on inputs of several sizes and batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from imagesmith.core.errors import EngineFailed
from imagesmith.core.protocols import Array

LIMIT = 1e-4
"""Largest error allowed, as a share of the largest absolute value of the output."""
BATCHES = (1, 2, 3)

Run = Callable[[Array], dict[str, Array]]
"""Pixel values (N, 3, H, W) to named outputs."""


@dataclass(frozen=True)
class ParityCase:
    """One comparison: an input's name and shape (N, H, W), and for the worst output its error and its scale."""

    name: str
    shape: tuple[int, int, int]
    max_abs: float
    scale: float

    @property
    def share(self) -> float:
        """Return the error as a share of the output's largest value."""
        return self.max_abs / max(self.scale, 1e-12)


@dataclass(frozen=True)
class ParityReport:
    """What comparing an export with PyTorch gave."""

    cases: tuple[ParityCase, ...]
    limit: float = LIMIT

    @property
    def worst(self) -> ParityCase:
        """Return the case with the largest error relative to its output."""
        return max(self.cases, key=lambda case: case.share)

    @property
    def passed(self) -> bool:
        """Tell whether every error is within the limit; one that is no number is not."""
        return all(case.share <= self.limit for case in self.cases)

    def sentence(self) -> str:
        """Say how large the largest error is, and where."""
        worst = self.worst
        return (
            f"largest error {worst.max_abs:.2e} on outputs up to {worst.scale:.3g} ({worst.share:.1e} of it, "
            f"limit {self.limit:.0e}), on {worst.name} {worst.shape}, over {len(self.cases)} inputs."
        )

    def require(self, what: str) -> None:
        """Raise `EngineFailed` unless the export passed."""
        if not self.passed:
            raise EngineFailed(f"{what} differs from PyTorch and was not written: {self.sentence()}")


def check_inputs(sizes_hw: Sequence[tuple[int, int]], seed: int = 0) -> Iterator[tuple[str, Array]]:
    """Yield named inputs (N, 3, H, W) float32: noise at every size and batch, then flat, striped and shaded pictures.

    >>> [(name, values.shape) for name, values in check_inputs([(8, 16)])][:2]
    [('noise', (1, 3, 8, 16)), ('noise', (2, 3, 8, 16))]
    """
    rng = np.random.default_rng(seed)
    for height, width in sizes_hw:
        for batch in BATCHES:
            yield "noise", rng.standard_normal((batch, 3, height, width), dtype=np.float32)
    height, width = sizes_hw[0]
    blank = np.zeros((1, 3, height, width), np.float32)
    yield "zeros", blank
    yield "white", blank + 2.5
    stripes = np.where(np.arange(width) % 8 < 4, np.float32(-2), np.float32(2))
    yield "stripes", blank + stripes
    shade = np.linspace(-2, 2, height, dtype=np.float32)[:, None] + np.linspace(-1, 1, width, dtype=np.float32)
    yield "shade", blank + shade


def compare(module: nn.Module, run: Run, inputs: Iterator[tuple[str, Array]]) -> ParityReport:
    """Run both on every input and measure the largest absolute difference per input.

    `module` takes `pixel_values` and returns a dict of tensors; `run` is the export.
    """
    cases = []
    for name, values in inputs:
        with torch.inference_mode():
            expected = {key: value.float().numpy() for key, value in module(torch.from_numpy(values)).items()}
        found = run(values)
        batch, _, height, width = values.shape
        pairs = [(_difference(found[key], value), float(np.abs(value).max())) for key, value in expected.items()]
        error, scale = max(pairs, key=lambda pair: pair[0] / max(pair[1], 1e-12))
        cases.append(ParityCase(name, (batch, height, width), error, scale))
    return ParityReport(tuple(cases))


def _difference(found: Array, expected: Array) -> float:
    if found.shape != expected.shape:
        return float("inf")
    # NaN would win no comparison and so pass unseen.
    return float(np.nan_to_num(np.abs(found - expected), nan=np.inf).max())

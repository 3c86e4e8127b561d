"""A network in training, seen as an engine: it is measured by the very code that serves photographs later."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from imagesmith.core.protocols import Array


class ModuleEngine:
    """Run a torch module behind the engine contract."""

    name = "training"
    inputs: tuple[str, ...] = ("pixel_values",)

    def __init__(self, module: nn.Module, device: str) -> None:
        self._module, self._device = module, device

    @torch.no_grad()
    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run float32 arrays through the module; answers are float32 whatever it computes in."""
        tensors = {name: torch.from_numpy(values).to(self._device) for name, values in inputs.items()}
        return {name: value.float().cpu().numpy() for name, value in self._module(**tensors).items()}

    def close(self) -> None:
        """Keep the module: it belongs to the training."""

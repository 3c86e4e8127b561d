"""PyTorch as an engine: a module built by the dotted name of its architecture, weights mapped from the file."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from imagesmith.core.errors import BadWeights, EngineFailed
from imagesmith.core.protocols import Array
from imagesmith.core.specs import BUILDERS, ModelSpec
from imagesmith.models.checkpoint import read_state
from imagesmith.models.keymap import compare_keys, native_state

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
INPUTS = {"detr": ("pixel_values", "pixel_mask")}
"""What a network takes beside `pixel_values`."""


class TorchEngine:
    """Run a torch module as an `Engine`; made by `open_torch`.

    `module` takes tensors by name and returns a dict of tensors. In bf16 and fp16 the matrix products and
    convolutions run in that type, normalisation and softmax in float32.
    """

    name = "torch"

    def __init__(
        self, module: nn.Module, inputs: tuple[str, ...], device: str = "cpu", precision: str = "fp32"
    ) -> None:
        self.inputs = inputs
        self._device = _device(device)
        self._dtype = DTYPES[precision]
        self._module: nn.Module | None = _place(module, self._device, self._dtype)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch; arrays in and out are float32 on the host. Raises `EngineFailed`, as when memory ends."""
        if self._module is None:
            raise EngineFailed("This engine is closed; open the model again.")
        reduced = self._dtype is not torch.float32
        try:
            with torch.inference_mode(), torch.autocast(self._device.type, self._dtype, enabled=reduced):
                tensors = {name: self._to_device(value) for name, value in inputs.items() if name in self.inputs}
                outputs = self._module(**tensors)
                return {name: value.float().cpu().numpy() for name, value in outputs.items()}
        except (RuntimeError, NotImplementedError) as error:
            reason = " ".join(str(error).split())[:200]
            raise EngineFailed(f"PyTorch could not run the model on {self._device}: {reason}") from error

    def _to_device(self, array: Array) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array)).to(self._device)
        return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor

    def close(self) -> None:
        """Drop the module and its memory."""
        self._module = None


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise EngineFailed(f'PyTorch has no device "{name}" here; use --device auto or cpu.') from None
    return device


def _place(module: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Fold what can be folded, move, and store the weights of the heavy layers in the type they compute in."""
    for_inference = getattr(module, "for_inference", None)
    module = (for_inference() if callable(for_inference) else module).eval().requires_grad_(False)
    module = module.to(device=device, memory_format=torch.channels_last)
    if dtype is not torch.float32:
        for part in module.modules():
            if isinstance(part, nn.Linear | nn.Conv2d):
                part.to(dtype)
    return module


def open_torch(
    spec: ModelSpec,
    weights: Path,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    threads: int | None = None,
    allow_pickle: bool = False,
) -> TorchEngine:
    """Open a model: build its network, load `weights` (a file, or a folder's file for the general path).

    `threads` sets PyTorch's threads for the whole process. Raises `BadWeights` where the weights are not those of
    this network, `EngineFailed` where the device is missing.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    if spec.architecture == "transformers":
        from imagesmith.engines.general import build_general

        module = build_general(spec, weights.parent)
    else:
        module = build_native(spec, weights, allow_pickle=allow_pickle)
    return TorchEngine(module, INPUTS.get(spec.architecture, ("pixel_values",)), device, precision)


def build_native(spec: ModelSpec, weights: Path, *, allow_pickle: bool = False) -> nn.Module:
    """Build the torch module of a spec in evaluation mode with the file's weights, in float32.

    The module is made without memory of its own and takes the file's mapped pages as its parameters, so that
    float32 weights exist once. Raises `BadWeights`.
    """
    state = native_state(spec.architecture, _tensors(read_state(weights, allow_pickle)))
    try:
        with torch.device("meta"):
            module = builder(spec.architecture).from_config(network_config(spec))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadWeights(f'The configuration of "{spec.name}" builds no {spec.architecture}: {error}') from None
    module = module.eval()
    expected = module.state_dict()
    report = compare_keys(
        {name: tuple(value.shape) for name, value in expected.items()},
        {name: tuple(value.shape) for name, value in state.items()},
    )
    if not report.fits:
        raise BadWeights(report.sentence(str(weights)))
    for name in [name for name in expected if name not in state]:  # counters that old files leave out
        state[name] = torch.zeros(expected[name].shape, dtype=expected[name].dtype)
    module.load_state_dict({name: state[name] for name in expected}, assign=True)
    return module


def builder(architecture: str) -> Any:
    """Return the class that builds an architecture's torch module."""
    module_name, _, attribute = BUILDERS[architecture].partition(":")
    return getattr(importlib.import_module(module_name), attribute)


def network_config(spec: ModelSpec) -> dict[str, Any]:
    """Return the spec's configuration, with as many labels as the spec names where it does not say itself."""
    config = dict(spec.config)
    if spec.labels and not config.get("num_labels") and not config.get("id2label"):
        config["num_labels"] = len(spec.labels)
    return config


def _tensors(arrays: Mapping[str, Array]) -> dict[str, Tensor]:
    """Wrap arrays without copying; floating point of another width becomes float32, in which models compute."""
    tensors: dict[str, Tensor] = {}
    for name in arrays:
        tensor = torch.from_numpy(arrays[name])
        tensors[name] = tensor.float() if tensor.is_floating_point() else tensor
    return tensors

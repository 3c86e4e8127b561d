"""OpenVINO as an engine: slower to open than ONNX Runtime, faster on every picture that follows."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import openvino

from imagesmith.core.errors import BadWeights, EngineFailed
from imagesmith.core.protocols import Array
from imagesmith.core.specs import ModelSpec
from imagesmith.engines.ports import Port, Ports, fill_batch, match_ports
from imagesmith.models.formats import WHAT_IT_IS, sniff

Shapes: TypeAlias = tuple[tuple[str, tuple[int, ...]], ...]
"""The shapes of a run's inputs by name: what a graph is compiled for."""

HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
MOST_SHAPES = 3
"""Graphs compiled for one exact shape that are kept; each holds its own copy of the packed weights."""
MOST_SEEN = 1000
AGAIN = 3
"""Runs of one shape after which a graph compiled for it alone pays (it is 30 to 40 % faster than one for any shape)."""


class OpenVinoEngine:
    """Run a graph with OpenVINO; made by `open_openvino`. Safe to call from several threads, which take turns.

    The first shape and shapes that keep coming get a graph compiled for exactly them; the others share one that
    takes any shape.
    """

    name = "openvino"

    def __init__(self, model: Any, ports: Ports, where: Path, device: str, config: dict[str, Any]) -> None:
        self._model: Any = model
        self._ports = ports
        self._where, self._device, self._config = where, device, config
        self._core = openvino.Core()
        self._exact: OrderedDict[Shapes, Any] = OrderedDict()
        self._any: Any = None
        self._seen: Counter[Shapes] = Counter()
        self._turn = threading.Lock()
        self._free = all(size is None for port in ports.inputs.values() for size in (*port.shape[:1], *port.shape[2:]))
        self.inputs = tuple(ports.inputs)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch; arrays in and out are float32 on the host. Raises `EngineFailed`."""
        with self._turn:
            if self._model is None:
                raise EngineFailed(f"The engine of {self._where} is closed; open the model again.")
            return self._ports.in_batches(inputs, self._run)

    def _run(self, feeds: dict[str, Array]) -> dict[str, Array]:
        try:
            request, count = self._request(feeds)
            size = len(next(iter(feeds.values())))
            filled = {name: fill_batch(array, count) for name, array in feeds.items()}
            results = request.infer(filled)
            return {port.name: results[port.name][:size].copy() for port in self._ports.outputs.values()}
        except RuntimeError as error:
            raise EngineFailed(f"OpenVINO could not run {self._where}: {_reason(error)}.") from None

    def _request(self, feeds: dict[str, Array]) -> tuple[Any, int]:
        """Return what runs these shapes, and the batch size it wants."""
        shapes: Shapes = tuple((name, array.shape) for name, array in feeds.items())
        count = shapes[0][1][0]
        if not self._free:
            self._any = self._any or self._compile(None)
            return self._any, count
        if len(self._seen) > MOST_SEEN:
            self._seen.clear()
        self._seen[shapes] += 1
        known = shapes if shapes in self._exact else self._larger(shapes)
        if known is not None:
            self._exact.move_to_end(known)
            return self._exact[known], known[0][1][0]
        if not self._exact or self._seen[shapes] >= AGAIN:
            self._exact[shapes] = self._compile(shapes)
            while len(self._exact) > MOST_SHAPES:
                self._exact.popitem(last=False)
            return self._exact[shapes], count
        self._any = self._any or self._compile(None)
        return self._any, count

    def _larger(self, shapes: Shapes) -> Shapes | None:
        """Find a graph for the same sizes and a larger batch: the last batch of a folder is filled up, not compiled."""
        if self._seen[shapes] >= AGAIN:
            return None
        for known in self._exact:
            same = all(a[0] == b[0] and a[1][1:] == b[1][1:] for a, b in zip(known, shapes, strict=True))
            if same and known[0][1][0] > shapes[0][1][0]:
                return known
        return None

    def _compile(self, shapes: Shapes | None) -> Any:
        model = self._model.clone()
        if shapes is not None:
            model.reshape({name: openvino.PartialShape(list(shape)) for name, shape in shapes})
        return self._core.compile_model(model, self._device, self._config).create_infer_request()

    def close(self) -> None:
        """Drop the graphs and their memory."""
        with self._turn:
            self._exact.clear()
            self._model = self._any = None


def open_openvino(
    spec: ModelSpec,
    path: Path,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    threads: int | None = None,
) -> OpenVinoEngine:
    """Open an ONNX file (or OpenVINO's own .xml) with OpenVINO; it is compiled at the first picture.

    Raises `EngineFailed` for a device that is missing, `BadWeights` for a file that is no graph of the spec's task.
    """
    kind = sniff(path)
    if kind not in ("onnx", "openvino"):
        raise BadWeights(f"{path} is {WHAT_IT_IS.get(kind, kind)}, but an ONNX model is expected; export it again.")
    core = openvino.Core()
    place = _device(core, device)
    # On processors with bf16 OpenVINO would take it unasked, and labels would no longer be exact.
    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": HINTS[precision]}
    if threads is not None and place == "CPU":
        config["INFERENCE_NUM_THREADS"] = threads
    try:
        model = core.read_model(path)
        inputs, outputs = [_port(value) for value in model.inputs], [_port(value) for value in model.outputs]
    except RuntimeError as error:
        raise BadWeights(f"OpenVINO could not read {path}: {_reason(error)}.") from None
    return OpenVinoEngine(model, match_ports(inputs, outputs, spec.task, path), path, place, config)


def _device(core: Any, device: str) -> str:
    """Return OpenVINO's word for a device."""
    kind, _, index = device.partition(":")
    word = {"cpu": "CPU", "xpu": "GPU", "npu": "NPU"}.get(kind)
    there: list[str] = core.available_devices
    # One graphics card is called GPU, several are GPU.0, GPU.1 ...
    place = next((name for name in (f"{word}.{index or 0}", word) if name in there), None)
    if place is None or (index not in ("", "0") and place == word):
        raise EngineFailed(f"OpenVINO has no device {device} here, only {', '.join(there)}; use --device cpu.")
    return str(place)


def _port(value: Any) -> Port:
    shape = tuple(int(size.get_length()) if size.is_static else None for size in value.partial_shape)
    dtype = np.dtype(value.element_type.to_dtype()).name
    return Port(value.any_name, shape, dtype)


def _reason(error: Exception) -> str:
    """Return the last line of OpenVINO's many: the earlier ones are places in its own source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200].rstrip(". ")

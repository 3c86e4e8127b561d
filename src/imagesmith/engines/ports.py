"""Inputs and outputs of a graph file, matched to the names every engine speaks, whoever exported it.

Our names: `pixel_values` (N, 3, H, W) and `pixel_mask` (N, H, W) in; `logits` and `pred_boxes` out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from imagesmith.core.errors import BadWeights, EngineFailed
from imagesmith.core.protocols import Array
from imagesmith.core.specs import Task

PIXELS, MASK, LOGITS, BOXES = "pixel_values", "pixel_mask", "logits", "pred_boxes"
Run = Callable[[dict[str, Array]], dict[str, Array]]


@dataclass(frozen=True)
class Port:
    """One input or output of a graph: its own name, its shape (None where free) and its NumPy type."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"


@dataclass(frozen=True)
class Ports:
    """A graph's inputs and outputs under our names."""

    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]

    def feeds(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Return the arrays under the graph's names and types; a mask the graph insists on is made of ones."""
        if PIXELS not in arrays:
            raise EngineFailed(f"An engine needs {PIXELS}, but was given only {sorted(arrays)}.")
        pixels = arrays[PIXELS]
        self._check(pixels)
        feeds = {}
        for ours, port in self.inputs.items():
            array = pixels if ours == PIXELS else _mask(arrays.get(MASK), port, pixels)
            feeds[port.name] = np.ascontiguousarray(array, dtype=port.dtype)
        return feeds

    def _check(self, pixels: Array) -> None:
        """Refuse a size that a graph with fixed sizes cannot take; a fixed batch is handled by `in_batches`."""
        shape = self.inputs[PIXELS].shape
        for actual, fixed in zip(pixels.shape[1:], shape[1:], strict=False):
            if fixed is not None and actual != fixed:
                wanted = "x".join(str(size) if size else "any" for size in shape[2:])
                given = "x".join(str(size) for size in pixels.shape[2:])
                raise EngineFailed(
                    f"This model file takes pictures of {wanted} pixels (height x width), not {given}; leave out "
                    "--resolution, or export the model with free sizes."
                )

    def named(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the graph's outputs under our names, as float32."""
        return {ours: np.asarray(outputs[port.name], dtype=np.float32) for ours, port in self.outputs.items()}

    def in_batches(self, arrays: Mapping[str, Array], run: Run) -> dict[str, Array]:
        """Run a batch; a graph with a fixed batch size gets it in pieces, the last one filled up."""
        feeds = self.feeds(arrays)
        size = self.inputs[PIXELS].shape[0] if self.inputs[PIXELS].shape else None
        count = len(arrays[PIXELS])
        if size is None or size == count:
            return self.named(run(feeds))
        pieces = []
        for start in range(0, count, size):
            piece = {name: fill_batch(array[start : start + size], size) for name, array in feeds.items()}
            pieces.append(self.named(run(piece)))
        return {name: np.concatenate([piece[name] for piece in pieces])[:count] for name in self.outputs}


def fill_batch(array: Array, size: int) -> Array:
    """Repeat the last entry until the batch has `size` of them."""
    missing = size - len(array)
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array


def _mask(mask: Array | None, port: Port, pixels: Array) -> Array:
    """Return the mask (1 where the picture is, 0 where it is padded) in the size the graph declares."""
    shape = (len(pixels), *pixels.shape[2:])
    wanted = tuple(fixed or free for fixed, free in zip((None, *port.shape[1:]), shape, strict=False))
    if mask is None:
        return np.ones(wanted, np.float32)
    if mask.shape == wanted:
        return mask
    rows, columns = (np.arange(size) * mask.shape[axis] // size for axis, size in ((1, wanted[1]), (2, wanted[2])))
    reduced: Array = mask[:, rows[:, None], columns[None, :]]
    return reduced


def match_ports(inputs: Sequence[Port], outputs: Sequence[Port], task: Task, where: object) -> Ports:
    """Find out which input and output is which: by name, else by shape. Raises `BadWeights` where that fails.

    >>> ports = match_ports([Port("images", (None, 3, None, None))], [Port("out", (None, 5))], "classify", "a file")
    >>> ports.inputs["pixel_values"].name, ports.outputs["logits"].name
    ('images', 'out')
    """
    found_in = _match_inputs(inputs, where)
    found_out = _match_outputs(outputs, task)
    needed = {LOGITS, BOXES} if task == "detect" else {LOGITS}
    if found_out.keys() != needed:
        names = ", ".join(f"{port.name} {list(port.shape)}" for port in outputs)
        raise BadWeights(
            f"{where} has the outputs {names}, among which {' and '.join(sorted(needed))} cannot be told; export the "
            f"model for {task} with these names."
        )
    return Ports(found_in, found_out)


def _match_inputs(inputs: Sequence[Port], where: object) -> dict[str, Port]:
    named = {port.name: port for port in inputs}
    pictures = [port for port in inputs if len(port.shape) == 4]
    pixels = named.get(PIXELS) or (pictures[0] if len(pictures) == 1 else None)
    rest = [port for port in inputs if port is not pixels]
    masks = [port for port in rest if port.name == MASK or len(port.shape) == 3]
    if pixels is None or len(rest) != len(masks) or len(masks) > 1:
        names = ", ".join(f"{port.name} {list(port.shape)}" for port in inputs)
        raise BadWeights(f"{where} has the inputs {names}, but one picture (N, 3, H, W) is expected; export it again.")
    if len(pixels.shape) == 4 and pixels.shape[1] not in (None, 3):
        raise BadWeights(f"{where} takes pictures of {pixels.shape[1]} channels, but 3 (RGB) are expected.")
    return {PIXELS: pixels} | ({MASK: masks[0]} if masks else {})


def _match_outputs(outputs: Sequence[Port], task: Task) -> dict[str, Port]:
    named = {port.name: port for port in outputs}
    dimensions = {"segment": 4, "classify": 2, "detect": 3}[task]
    fitting = [port for port in outputs if len(port.shape) in (dimensions, 0)]
    found: dict[str, Port] = {}
    if task == "detect":
        boxes = [port for port in fitting if port.shape and port.shape[-1] == 4]
        if BOXES in named:
            found[BOXES] = named[BOXES]
        elif len(boxes) == 1:
            found[BOXES] = boxes[0]
        fitting = [port for port in fitting if port is not found.get(BOXES)]
    if LOGITS in named:
        found[LOGITS] = named[LOGITS]
    elif len(fitting) == 1 or (task != "detect" and len(outputs) == 1):
        found[LOGITS] = fitting[0] if fitting else outputs[0]
    return found

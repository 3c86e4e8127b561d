"""Changes of an ONNX graph that leave its answers alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from imagesmith.core.errors import MissingExtra

LEAST_ELEMENTS = 256
"""Smaller constants stay as they are: a cast would cost more than it saves."""


def halve_weights(model: bytes) -> bytes:
    """Store float32 weights as float16 where that loses nothing, each followed by a cast back to float32.

    The graph computes exactly what it did. Engines fold the casts when they load the file. Raises `MissingExtra`
    without the package onnx.
    """
    try:
        import onnx
    except ImportError:
        raise MissingExtra("Writing half-size ONNX files", "export") from None
    loaded = onnx.load_from_string(model)
    casts = []
    for tensor in loaded.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        array = onnx.numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = array.astype(np.float16)
        if array.size < LEAST_ELEMENTS or not np.array_equal(half.astype(np.float32), array):
            continue
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}_half"))
        casts.append(
            onnx.helper.make_node("Cast", [f"{name}_half"], [name], f"{name}_widen", to=onnx.TensorProto.FLOAT)
        )
    _prepend(loaded.graph, casts)
    onnx.checker.check_model(loaded)
    return bytes(loaded.SerializeToString())


def _prepend(graph: Any, nodes: list[Any]) -> None:
    """Put nodes before all others: a graph lists every node after those it depends on."""
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])

"""Tiny ONNX files and their NumPy twins, so that engines are tested without torch and without weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagesmith.core.specs import ModelSpec, Task

onnx = pytest.importorskip("onnx", reason="tiny graphs are made with the package onnx (extra [torch])")

CLASSES, QUERIES = 5, 7


@dataclass(frozen=True)
class Tiny:
    """A graph file, its spec, and what it must answer."""

    path: Path
    spec: ModelSpec
    expected: Callable[..., dict[str, np.ndarray]]


def write_graph(
    path: Path,
    nodes: Sequence[Any],
    inputs: Mapping[str, tuple[int, Sequence[object]]],
    outputs: Mapping[str, Sequence[object]],
    weights: Mapping[str, np.ndarray],
) -> Path:
    """Write an ONNX file; inputs give their type and shape, a text standing for a free size."""
    from onnx import TensorProto, checker, helper, numpy_helper

    graph = helper.make_graph(
        list(nodes),
        "tiny",
        [helper.make_tensor_value_info(name, kind, list(shape)) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def tiny_spec(task: Task, path: Path, **changes: Any) -> ModelSpec:
    values = {"name": f"tiny-{task}", "task": task, "architecture": "segformer", "source": f"folder:{path.parent}"}
    return ModelSpec.model_validate({**values, "onnx": {"path": path.name}, **changes})


def patches(pixels: np.ndarray, side: int = 4) -> np.ndarray:
    """Cut (N, 3, H, W) into (N, H/side, W/side, 3 * side * side)."""
    count, channels, height, width = pixels.shape
    cut = pixels.reshape(count, channels, height // side, side, width // side, side)
    return cut.transpose(0, 2, 4, 1, 3, 5).reshape(count, height // side, width // side, -1)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def make_segmenter(tmp_path: Path, rng: np.random.Generator) -> Callable[..., Tiny]:
    """Make a graph that labels 4x4 patches by a strided convolution and a relu."""

    def make(
        name: str = "model.onnx",
        *,
        half: bool = False,
        input_name: str = "pixel_values",
        output_name: str = "logits",
        shape: Sequence[object] = ("n", 3, "h", "w"),
    ) -> Tiny:
        from onnx import TensorProto, helper

        weight = rng.standard_normal((CLASSES, 3, 4, 4)).astype(np.float16 if half else np.float32)
        bias = rng.standard_normal(CLASSES).astype(np.float32)
        nodes = [
            helper.make_node("Conv", [input_name, "wide" if half else "w", "b"], ["raw"], strides=[4, 4]),
            helper.make_node("Relu", ["raw"], [output_name]),
        ]
        if half:
            nodes.insert(0, helper.make_node("Cast", ["w"], ["wide"], to=TensorProto.FLOAT))
        path = write_graph(
            tmp_path / name,
            nodes,
            {input_name: (TensorProto.FLOAT, shape)},
            {output_name: ("n", CLASSES, "h4", "w4")},
            {"w": weight, "b": bias},
        )

        def expected(pixel_values: np.ndarray) -> dict[str, np.ndarray]:
            wide = weight.astype(np.float32).reshape(CLASSES, -1)
            logits = np.maximum(patches(pixel_values) @ wide.T + bias, 0)
            return {"logits": logits.transpose(0, 3, 1, 2)}

        return Tiny(path, tiny_spec("segment", path), expected)

    return make


@pytest.fixture
def segmenter(make_segmenter: Callable[..., Tiny]) -> Tiny:
    return make_segmenter()


@pytest.fixture
def make_detector(tmp_path: Path, rng: np.random.Generator) -> Callable[..., Tiny]:
    """Make a graph with a mask input: averages over the unpadded picture lead to logits and boxes."""

    def make(mask_shape: Sequence[object] = ("n", "h", "w"), *, mask_type: str = "FLOAT") -> Tiny:
        from onnx import TensorProto, helper

        to_logits = rng.standard_normal((3, QUERIES * (CLASSES + 1))).astype(np.float32)
        to_boxes = rng.standard_normal((3, QUERIES * 4)).astype(np.float32)
        nodes = [
            helper.make_node("ReduceMean", ["pixel_values"], ["mean"], axes=[2, 3], keepdims=0),
            helper.make_node("Cast", ["pixel_mask"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["mask"], ["share"], axes=[1, 2], keepdims=0),
            helper.make_node("Unsqueeze", ["share", "one"], ["share1"]),
            helper.make_node("Div", ["mean", "share1"], ["features"]),
            helper.make_node("MatMul", ["features", "wl"], ["flat"]),
            helper.make_node("Reshape", ["flat", "ls"], ["logits"]),
            helper.make_node("MatMul", ["features", "wb"], ["rawb"]),
            helper.make_node("Sigmoid", ["rawb"], ["sigb"]),
            helper.make_node("Reshape", ["sigb", "bs"], ["pred_boxes"]),
        ]
        path = write_graph(
            tmp_path / "detector.onnx",
            nodes,
            {
                "pixel_values": (TensorProto.FLOAT, ("n", 3, "h", "w")),
                "pixel_mask": (getattr(TensorProto, mask_type), mask_shape),
            },
            {"logits": ("n", QUERIES, CLASSES + 1), "pred_boxes": ("n", QUERIES, 4)},
            {
                "wl": to_logits,
                "wb": to_boxes,
                "one": np.array([1]),
                "ls": np.array([-1, QUERIES, CLASSES + 1]),
                "bs": np.array([-1, QUERIES, 4]),
            },
        )

        def expected(pixel_values: np.ndarray, pixel_mask: np.ndarray) -> dict[str, np.ndarray]:
            features = pixel_values.mean((2, 3)) / pixel_mask.mean((1, 2))[:, None]
            boxes = 1 / (1 + np.exp(-(features @ to_boxes)))
            return {
                "logits": (features @ to_logits).reshape(-1, QUERIES, CLASSES + 1),
                "pred_boxes": boxes.reshape(-1, QUERIES, 4),
            }

        return Tiny(path, tiny_spec("detect", path, architecture="detr"), expected)

    return make

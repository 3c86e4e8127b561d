"""Fakes for the tasks: engines that answer with known arrays, and photographs of one colour."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from imagesmith.core.specs import ModelSpec, Preprocessing
from imagesmith.image.photo import Photo


class FakeEngine:
    """Answer with what a function of the inputs returns, and remember the shapes that were asked."""

    name = "fake"

    def __init__(
        self, answer: Callable[[Mapping[str, Any]], dict[str, Any]], inputs: tuple[str, ...] = ("pixel_values",)
    ) -> None:
        self.inputs = inputs
        self.answer = answer
        self.shapes: list[tuple[int, ...]] = []
        self.given: list[set[str]] = []
        self.closed = False

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        self.shapes.append(inputs["pixel_values"].shape)
        self.given.append(set(inputs))
        return self.answer(inputs)

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="session")
def fake_engine() -> type[FakeEngine]:
    return FakeEngine


@pytest.fixture(scope="session")
def make_photo() -> Callable[..., Photo]:
    def make(height: int, width: int, *, value: int = 0, name: str = "photo.png") -> Photo:
        return Photo(pixels=np.full((height, width, 3), value, np.uint8), name=name)

    return make


@pytest.fixture(scope="session")
def make_spec() -> Callable[..., ModelSpec]:
    def make(task: str, labels: tuple[str, ...], **fields: Any) -> ModelSpec:
        values: dict[str, Any] = {
            "name": "fake/model",
            "task": task,
            "architecture": {"segment": "segformer", "classify": "vit", "detect": "detr"}[task],
            "source": "folder:/nowhere",
            "labels": labels,
            # Pixel values pass unchanged, so that a fake can read them.
            "preprocessing": Preprocessing(
                longest_edge=64, multiple_of=8, rescale_factor=1.0, mean=(0, 0, 0), std=(1, 1, 1)
            ),
        }
        return ModelSpec(**{**values, **fields})

    return make

"""The contracts on one page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Image: TypeAlias = NDArray[np.uint8]
"""A decoded photograph: (height, width, 3) RGB, uint8, already turned upright."""


class Engine(Protocol):
    """Run one opened model on arrays: named inputs in, named outputs out, all float32 on the host.

    Segmentation: `pixel_values` (N, 3, H, W) -> `logits` (N, C, H/4, W/4). Classification: -> `logits` (N, C).
    Detection: `pixel_values`, and `pixel_mask` (N, H, W) only where `inputs` lists it -> `logits` (N, Q, C + 1) and
    `pred_boxes` (N, Q, 4), centre x, centre y, width, height as shares of the (unpadded) input.
    """

    name: str
    inputs: tuple[str, ...]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]: ...

    def close(self) -> None: ...

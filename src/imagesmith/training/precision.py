"""The arithmetic a training runs in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def mixed(precision: str, device: str = "cpu") -> AbstractContextManager[Any]:
    """Return the context in which a network computes: bf16 where that is safe, or plain float32."""
    if precision == "bf16":
        return torch.autocast(device.partition(":")[0], torch.bfloat16)
    return nullcontext()

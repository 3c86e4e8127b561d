"""imagesmith sees and makes images: segment, classify, detect, and edit a photograph by naming what to change.

Names are loaded when they are first used, so that `import imagesmith` stays under 0.3 s and loads no engine.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "load": "imagesmith.api",
    "segment": "imagesmith.api",
    "classify": "imagesmith.api",
    "detect": "imagesmith.api",
    "edit": "imagesmith.api",
    "train": "imagesmith.api",
    "evaluate": "imagesmith.api",
    "outfit": "imagesmith.api",
    "Model": "imagesmith.api",
    "ImagesmithError": "imagesmith.core.errors",
}

__all__ = [
    "ImagesmithError",
    "Model",
    "__version__",
    "classify",
    "detect",
    "edit",
    "evaluate",
    "load",
    "outfit",
    "segment",
    "train",
]

if TYPE_CHECKING:
    from imagesmith.api import Model, classify, detect, edit, evaluate, load, outfit, segment, train
    from imagesmith.core.errors import ImagesmithError


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'imagesmith' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

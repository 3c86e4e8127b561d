"""What the result records share: checks, comparing names, and reading the photograph they were made from."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from imagesmith.core.errors import BadInput
from imagesmith.core.protocols import Array, Image
from imagesmith.image.photo import Photo

Box: TypeAlias = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels, the last two exclusive."""

_BACKGROUND_NAMES = ("background", "null", "unlabelled", "unlabeled", "void", "n/a", "")


def plain_name(name: str) -> str:
    """Return a label as people compare it: lower case, words divided by single spaces.

    >>> plain_name("Left-shoe"), plain_name("upper_body ")
    ('left shoe', 'upper body')
    """
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())


def is_background(name: str) -> bool:
    """Tell whether a label means "nothing in particular".

    >>> is_background("null"), is_background("dress")
    (True, False)
    """
    return name.strip().lower() in _BACKGROUND_NAMES


def freeze(record: object, *fields: str) -> None:
    """Replace arrays by views that cannot be written to, leaving the caller's own arrays alone."""
    for field in fields:
        values = getattr(record, field)
        if values is not None:
            view = values.view()
            view.flags.writeable = False
            object.__setattr__(record, field, view)


def check_scores(scores: Array, count: int) -> None:
    """Raise `BadInput` unless there are `count` scores between 0 and 1."""
    if scores.shape != (count,):
        raise BadInput(f"Expected {count} scores, one per label, but got an array of shape {scores.shape}.")
    if not ((scores >= 0) & (scores <= 1)).all():
        raise BadInput(f"Expected scores between 0 and 1, but got {scores.min()} to {scores.max()}.")


def pixels_of(photo: Photo | Image, size_hw: tuple[int, int] | None) -> Image:
    """Return the pixels (H, W, 3) of a photograph or an array; `BadInput` where the size is not the one expected."""
    pixels = photo if isinstance(photo, np.ndarray) else photo.pixels
    if size_hw is not None and pixels.shape[:2] != size_hw:
        raise BadInput(
            f"Expected the photograph this result was made from, {size_hw[1]} x {size_hw[0]} pixels, "
            f"but got one of {pixels.shape[1]} x {pixels.shape[0]}."
        )
    return pixels


def color_of(rgb: NDArray[np.uint8]) -> tuple[int, int, int]:
    """Return a colour (3,) as plain integers."""
    return int(rgb[0]), int(rgb[1]), int(rgb[2])

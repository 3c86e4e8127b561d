"""The decoded photograph, and the limits on what may be decoded."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import sqrt

import numpy as np

from imagesmith.core.errors import BadInput, ImageTooLarge
from imagesmith.core.protocols import Array

MEGA = 1_000_000


@dataclass(frozen=True, eq=False)
class Photo:
    """Hold one decoded photograph: upright, 8-bit sRGB, transparency flattened on white.

    `pixels` is (H, W, 3) uint8 and `alpha` (H, W) uint8, or None where all is opaque; both are read-only. `frames`
    counts the frames or pages of the file, `format` names it ("PNG", "JPEG", ..., "array"), and `warnings` are
    sentences about what had to be ignored.
    """

    pixels: Array = field(repr=False)
    name: str = "image"
    alpha: Array | None = field(default=None, repr=False)
    frames: int = 1
    format: str = "array"
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 3 or self.pixels.shape[2] != 3 or not self.pixels.size:
            raise BadInput(
                f"a Photo's pixels must be (height, width, 3) uint8, not {self.pixels.shape} {self.pixels.dtype}; "
                "decode_image accepts other arrays."
            )
        if self.alpha is not None and (self.alpha.dtype != np.uint8 or self.alpha.shape != self.pixels.shape[:2]):
            raise BadInput(f"a Photo's alpha must be {self.pixels.shape[:2]} uint8, not {self.alpha.shape}.")
        object.__setattr__(self, "pixels", _read_only(self.pixels))
        object.__setattr__(self, "alpha", None if self.alpha is None else _read_only(self.alpha))

    @property
    def height(self) -> int:
        """Return the number of rows."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Return the number of columns."""
        return int(self.pixels.shape[1])

    @property
    def size_hw(self) -> tuple[int, int]:
        """Return height and width."""
        return self.height, self.width


@dataclass(frozen=True)
class Limits:
    """Bound what may be decoded; everything is checked on the header, before any pixel.

    `side` is in pixels, `decoded_bytes` what the decoder may hold (8 bytes per pixel are counted), `file_bytes` the
    size of the file itself. Left at None, these grow with `megapixels` from their usual 16384 pixels, 200 MB and
    256 MB, and never fall below them.

    >>> Limits().longest_side, Limits(megapixels=100).longest_side
    (16384, 32768)
    """

    megapixels: float = 25.0
    side: int | None = None
    decoded_bytes: int | None = None
    file_bytes: int | None = None

    @property
    def growth(self) -> float:
        """Return by how much more than the usual 25 megapixels are allowed; at least 1."""
        return max(1.0, self.megapixels / 25)

    @property
    def longest_side(self) -> int:
        """Return the longest side allowed, in pixels."""
        return self.side if self.side is not None else round(16_384 * sqrt(self.growth))

    @property
    def most_decoded(self) -> int:
        """Return how many bytes the decoder may hold."""
        return self.decoded_bytes if self.decoded_bytes is not None else round(200 * MEGA * self.growth)

    @property
    def largest_file(self) -> int:
        """Return how many bytes a file may have."""
        return self.file_bytes if self.file_bytes is not None else round(256 * MEGA * self.growth)

    def check(self, width: int, height: int) -> None:
        """Raise `ImageTooLarge` where a picture of this size is over a limit; the message is the reason only."""
        size = f"it has {width} x {height} pixels ({width * height / MEGA:.4g} megapixels)"
        remedy = "make it smaller, or raise max_megapixels"
        if width * height > self.megapixels * MEGA:
            raise ImageTooLarge(f"{size}, above the limit of {self.megapixels:g} megapixels; {remedy}")
        if max(width, height) > self.longest_side:
            raise ImageTooLarge(f"{size}, above the limit of {self.longest_side} pixels for one side; {remedy}")
        if width * height * 8 > self.most_decoded:
            raise ImageTooLarge(f"{size}, above the limit of {self.most_decoded / MEGA:g} MB decoded; {remedy}")

    def check_file(self, length: int) -> None:
        """Raise `ImageTooLarge` where a file of this many bytes is over the limit."""
        if length > self.largest_file:
            raise ImageTooLarge(
                f"its file has more than {self.largest_file / MEGA:.0f} MB, the limit; make it smaller, or raise "
                "max_megapixels"
            )


def _read_only(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view

"""One tree of errors; each knows its exit code and its HTTP status.

Every message is one sentence a person can act on: what was expected, what was found, what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class ImagesmithError(Exception):
    """Raise this (or a child) for anything the user can understand and mend.

    The command line prints the message and leaves with `exit_code`; the server answers with `http_status`.
    """

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500


class BadInput(ImagesmithError):
    """Refuse a value, an option or a file that does not fit."""

    exit_code: ClassVar[int] = 2
    http_status: ClassVar[int] = 422


class BadImage(BadInput):
    """Refuse an image file; the message names the file and the reason."""

    exit_code: ClassVar[int] = 1


class ImageTooLarge(BadImage):
    """Refuse an image whose header claims more than the limits allow."""

    http_status: ClassVar[int] = 413


class UnsupportedImage(BadImage):
    """Refuse content that is no allowed image format."""

    http_status: ClassVar[int] = 415


class UnknownRegion(BadInput):
    """Say that a named region is not in the photograph, and what is."""

    http_status: ClassVar[int] = 404


class UnknownModel(BadInput):
    """Say that no model has this name, and which are near."""

    http_status: ClassVar[int] = 404


class WeightsMissing(ImagesmithError):
    """Say that a known model's files are not here and could not be fetched."""

    exit_code: ClassVar[int] = 3
    http_status: ClassVar[int] = 424


class BadWeights(ImagesmithError):
    """Refuse a weights file: damaged, hostile, pickled, or of another architecture."""

    exit_code: ClassVar[int] = 3
    http_status: ClassVar[int] = 415


class HubError(ImagesmithError):
    """Say why the model hub did not give what was asked for."""

    exit_code: ClassVar[int] = 3
    http_status: ClassVar[int] = 502


class MissingExtra(ImagesmithError):
    """Name the optional part that is not installed, and the command that installs it."""

    exit_code: ClassVar[int] = 4
    http_status: ClassVar[int] = 501

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f'{what} needs the extra [{extra}]; install it with: pip install "imagesmith[{extra}]"')
        self.extra = extra


class EngineFailed(ImagesmithError):
    """Say that an engine or a device is missing or failed while it ran a model."""

    exit_code: ClassVar[int] = 5
    http_status: ClassVar[int] = 503


class TrainingFailed(ImagesmithError):
    """Say why a training stopped, and where its last good weights are."""

    exit_code: ClassVar[int] = 6


class Cancelled(ImagesmithError):
    """Stop because the user asked to."""

    exit_code: ClassVar[int] = 130
    http_status: ClassVar[int] = 499


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return " Did you mean ...?" for the nearest known words, or an empty string.

    >>> did_you_mean("skrit", ["skirt", "hair"])
    ' Did you mean "skirt"?'
    >>> did_you_mean("qqq", ["skirt", "hair"])
    ''
    """
    near = difflib.get_close_matches(word.lower(), list(known), n=2, cutoff=0.6)
    if not near:
        return ""
    quoted = " or ".join(f'"{name}"' for name in near)
    return f" Did you mean {quoted}?"

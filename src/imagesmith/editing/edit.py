"""Edit a photograph: find the region, apply the operations, and write down what was done."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imagesmith.core.errors import BadInput, did_you_mean
from imagesmith.core.protocols import Array
from imagesmith.core.protocols import Image as Pixels
from imagesmith.core.requests import EditRequest
from imagesmith.editing import operations
from imagesmith.editing.color import color_names, is_color, parse_color
from imagesmith.editing.expressions import parse_region
from imagesmith.editing.regions import Region, See, resolve_region
from imagesmith.image.decode import Photo
from imagesmith.image.masks import feather, grow
from imagesmith.image.metadata import save_image

TONES = ("brightness", "contrast", "saturation", "temperature")
ORDER = ("recolor", *TONES, "blur", "pixelate", "background", "cut_out")
"""The order in which several operations of one request are applied; the four tones are one step."""


@dataclass(frozen=True, eq=False)
class Edited:
    """An edited photograph.

    `pixels` (H, W, 3) uint8; `alpha` (H, W) uint8, or None where all is opaque; `mask` (H, W) float32, 1 in the region
    and 0 outside, with its soft edge; `record`, ready for JSON, says what was done.
    """

    pixels: Pixels
    alpha: Array | None
    mask: Array
    record: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return the record of what was done."""
        return self.record

    def save(self, path: str | os.PathLike[str], quality: int = 95) -> Path:
        """Write PNG, JPEG or WebP, by suffix, with the record inside; raises `BadInput` for a cut-out as JPEG."""
        return save_image(path, self.pixels, alpha=self.alpha, record=self.record, quality=quality)


def edit(
    photo: Photo, request: EditRequest, see: See, *, background_photo: Photo | None = None, version: str = ""
) -> Edited:
    """Change the named region of a photograph as the request says, in the order of `ORDER`.

    `background_photo` is the picture that `request.background` names, where that is no colour. Where the soft edge
    ends, every pixel that is not to change stays bit-equal: outside the region, or, when the background is replaced
    or cut away, inside it.

    Raises:
        BadInput: no operation is given, two of them exclude each other, or a colour or the region cannot be read.
        UnknownRegion: the region is not in the photograph.
    """
    check_request(request, has_picture=background_photo is not None)
    region = resolve_region(request.region, photo, see, person=request.person)
    mask = grow(region.mask, request.grow) if request.grow else region.mask
    if not mask.any():
        raise BadInput(f'Nothing is left of "{request.region}" when it shrinks by {-request.grow} pixels; shrink less.')
    soft = feather(mask, request.feather)
    pixels = _inside(photo.pixels, mask, soft, request)
    pixels, alpha = _around(pixels, photo, soft, request, background_photo)
    return Edited(pixels, alpha, soft, _record(photo, request, region, version))


def check_request(request: EditRequest, *, has_picture: bool) -> None:
    """Raise `BadInput` for what is wrong with a request before any model runs."""
    parse_region(request.region)
    if not _wanted(request):
        names = ", ".join(ORDER)
        raise BadInput(f'There is nothing to do with "{request.region}": give at least one of {names}.')
    if request.recolor is not None:
        parse_color(request.recolor)
    if request.background is not None and request.cut_out:
        raise BadInput("cut_out leaves no background to put anything on; give either background or cut_out.")
    if request.background is not None and not has_picture and not is_color(request.background):
        near = did_you_mean(request.background, color_names())
        raise BadInput(f'The background "{request.background}" is neither a colour nor a picture that was read.{near}')


def _wanted(request: EditRequest) -> list[str]:
    return [name for name in ORDER if getattr(request, name) not in (None, False)]


def _inside(pixels: Pixels, mask: Array, soft: Array, request: EditRequest) -> Pixels:
    """Apply what changes the region itself; `mask` (H, W) bool is the region, `soft` its soft edge."""
    strength = np.float32(request.strength)
    if request.recolor is not None:
        pixels = operations.recolor(pixels, soft * strength, parse_color(request.recolor))
    tones = {name: value for name in TONES if (value := getattr(request, name)) is not None}
    if tones:
        pixels = operations.tone(pixels, soft * strength, **tones)
    if request.blur is not None:
        # What is blurred is meant to be hidden: all of the region changes fully, the soft edge lies outside it.
        outer = np.maximum(feather(grow(mask, request.feather / 2 + 0.5), request.feather), mask)
        pixels = operations.blur(pixels, outer * strength, request.blur, mask)
    if request.pixelate is not None:
        pixels = operations.pixelate(pixels, mask * strength, request.pixelate)
    return pixels


def _around(
    pixels: Pixels, photo: Photo, soft: Array, request: EditRequest, picture: Photo | None
) -> tuple[Pixels, Array | None]:
    """Replace or cut away what is around the region; return pixels and alpha."""
    if request.background is not None:
        background = np.array(parse_color(request.background)) if picture is None else picture.pixels
        if picture is not None:
            background = operations.fit_cover(background, photo.height, photo.width)
        opaque = soft if photo.alpha is None else soft * (photo.alpha / np.float32(255))
        return operations.replace_background(pixels, opaque, background, request.strength), None
    if request.cut_out:
        pixels, alpha = operations.cut_out(pixels, soft, request.strength)
        return pixels, alpha if photo.alpha is None else np.minimum(alpha, photo.alpha)
    return pixels, photo.alpha


def _record(photo: Photo, request: EditRequest, region: Region, version: str) -> dict[str, Any]:
    """Return what was done, ready for JSON; paths of this machine are cut to file names."""
    asked = request.model_dump(mode="json", exclude_defaults=True, exclude={"schema_version"})
    for name in ("background", "model"):
        if isinstance(asked.get(name), str):
            asked[name] = _without_folders(asked[name])
    notes = list(region.notes)
    if request.pixelate is not None and request.feather > 0:
        notes.append("squares have hard edges; feather does not apply to pixelate")
    return {
        "task": "edit",
        "made_by": f"imagesmith {version}".strip(),
        "image": Path(photo.name).name,
        "request": asked,
        "operations": _wanted(request),
        "region": {"text": request.region, "share": region.share, "box_xyxy": list(region.box_xyxy or ())},
        "models": [_without_folders(model) for model in region.models],
        "notes": notes,
    }


def _without_folders(name: str) -> str:
    """Return the last part of an absolute or relative path; names such as "starter/clothes" stay."""
    return Path(name).name if Path(name).is_absolute() or name.startswith((".", "~")) or Path(name).exists() else name

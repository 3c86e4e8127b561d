"""Read and write preprocessor_config.json: every variant that image processors and feature extractors have written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imagesmith.core.errors import BadWeights
from imagesmith.core.specs import Preprocessing, Resample

LARGEST_SIDE = 16_384

RESAMPLE: dict[object, Resample] = {
    0: "nearest",
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
    # Pillow's box and hamming filters have no counterpart here; bilinear is the nearest in width.
    4: "bilinear",
    5: "bilinear",
    "nearest": "nearest",
    "lanczos": "lanczos",
    "bilinear": "bilinear",
    "bicubic": "bicubic",
}
"""Pillow's resampling codes, as the files have them."""

_PROCESSORS = {"segformer": "SegformerImageProcessor", "vit": "ViTImageProcessor", "detr": "DetrImageProcessor"}
_HALF = (0.5, 0.5, 0.5)
DEFAULTS: dict[str, Preprocessing] = {
    "segformer": Preprocessing(height=512, width=512),
    "vit": Preprocessing(height=224, width=224, mean=_HALF, std=_HALF),
    "detr": Preprocessing(shortest_edge=800, longest_edge=1333),
    "transformers": Preprocessing(height=224, width=224),
}
"""What each architecture's own processor does where the file does not say."""


def preprocessing_from(
    values: Mapping[str, Any], architecture: str, image_size: Any, where: Path | str
) -> Preprocessing:
    """Turn the content of a preprocessor_config.json (or nothing) into a `Preprocessing`.

    `image_size` is what config.json says the network was made for, used where no size is given. Centre crops are not
    taken: the whole photograph is stretched to the crop's size instead, so that nothing at its edge is lost.

    >>> preprocessing_from({"size": 800, "max_size": 1333}, "detr", None, "here").longest_edge
    1333
    """
    default = DEFAULTS[architecture]
    size = _size(values, architecture, where) or _from_image_size(image_size, architecture, where)
    if size is None:
        size = {name: getattr(default, name) for name in ("height", "width", "shortest_edge", "longest_edge")}
    mean, std = values.get("image_mean", default.mean), values.get("image_std", default.std)
    if values.get("do_normalize") is False:
        mean, std = (0.0,) * 3, (1.0,) * 3
    factor = values.get("rescale_factor", 1 / 255) if values.get("do_rescale") is not False else 1.0
    std = _triple(std, "image_std", where)
    if min(std) <= 0:
        raise BadWeights(f"{where}: image_std is {std}, but three positive numbers are expected; correct it.")
    return Preprocessing(
        **size,
        multiple_of=_side(values.get("size_divisor") or 1, "size_divisor", where),
        resample=_resample(values.get("resample"), where),
        rescale_factor=_number(factor, "rescale_factor", where),
        mean=_triple(mean, "image_mean", where),
        std=std,
    )


def _size(values: Mapping[str, Any], architecture: str, where: Path | str) -> dict[str, int] | None:
    """Return the sizing fields for every form of `size`, or None where the file does not resize."""
    if values.get("do_resize") is False:
        return None
    size = values.get("size")
    if values.get("do_center_crop") and values.get("crop_size"):
        size = values["crop_size"]
    if size is None:
        return None
    if isinstance(size, list) and len(size) == 2:
        size = {"height": size[0], "width": size[1]}
    if isinstance(size, int | float):
        if architecture == "detr":
            limit = values.get("max_size") or 1333
            return {"shortest_edge": _side(size, "size", where), "longest_edge": _side(limit, "max_size", where)}
        return {"height": _side(size, "size", where), "width": _side(size, "size", where)}
    if not isinstance(size, Mapping):
        raise BadWeights(f"{where}: size is {str(size)[:60]!r}, but a number or an object is expected; correct it.")
    given = {key: _side(value, f"size.{key}", where) for key, value in size.items() if value is not None}
    if {"height", "width"} <= given.keys():
        return {"height": given["height"], "width": given["width"]}
    if {"max_height", "max_width"} <= given.keys():
        return {"longest_edge": min(given["max_height"], given["max_width"])}
    if "shortest_edge" in given and "longest_edge" not in given and architecture in ("segformer", "vit"):
        # Written by a conversion of the old "size": 512, which these processors always took for both sides.
        return {"height": given["shortest_edge"], "width": given["shortest_edge"]}
    edges = {key: given[key] for key in ("shortest_edge", "longest_edge") if key in given}
    if not edges:
        raise BadWeights(f"{where}: size has the keys {sorted(size)[:6]}, of which none is known; correct it.")
    return edges


def _from_image_size(image_size: Any, architecture: str, where: Path | str) -> dict[str, int] | None:
    """A ViT's table of positions is made for one size; SegFormer's image_size is a leftover that means nothing."""
    if architecture not in ("vit", "transformers") or not isinstance(image_size, int | list):
        return None
    height, width = image_size if isinstance(image_size, list) and len(image_size) == 2 else (image_size, image_size)
    return {"height": _side(height, "image_size", where), "width": _side(width, "image_size", where)}


def _side(value: Any, key: str, where: Path | str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= LARGEST_SIDE:
        raise BadWeights(f"{where}: {key} is {str(value)[:40]!r}, but 1 to {LARGEST_SIDE} pixels are expected.")
    return int(value)


def _number(value: Any, key: str, where: Path | str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadWeights(f"{where}: {key} is {str(value)[:40]!r}, but a number is expected; correct it.")
    return float(value)


def _triple(value: Any, key: str, where: Path | str) -> tuple[float, float, float]:
    values = list(value) if isinstance(value, list | tuple) else [value]
    if len(values) == 1:
        values *= 3
    if len(values) != 3:
        raise BadWeights(f"{where}: {key} has {len(values)} entries, but one for each of red, green, blue is expected.")
    red, green, blue = (_number(item, key, where) for item in values)
    return red, green, blue


def _resample(value: Any, where: Path | str) -> Resample:
    if value is None:
        return "bilinear"
    key = value.rpartition(".")[2].lower() if isinstance(value, str) else value
    if isinstance(key, bool) or not isinstance(key, str | int) or key not in RESAMPLE:
        raise BadWeights(f"{where}: resample is {str(value)[:40]!r}, but a code from 0 to 5 is expected; correct it.")
    return RESAMPLE[key]


def preprocessor_config(preprocessing: Preprocessing, architecture: str) -> dict[str, Any]:
    """Return what a preprocessor_config.json must say for this preprocessing; `preprocessing_from` reads it back.

    >>> preprocessor_config(Preprocessing(height=64, width=32), "segformer")["size"]
    {'height': 64, 'width': 32}
    """
    edges = ("height", "width", "shortest_edge", "longest_edge")
    size = {name: getattr(preprocessing, name) for name in edges if getattr(preprocessing, name) is not None}
    codes = {name: code for code, name in RESAMPLE.items() if isinstance(code, int) and code < 4}
    config: dict[str, Any] = {
        "do_resize": True,
        "size": size,
        "resample": codes[preprocessing.resample],
        "do_rescale": True,
        "rescale_factor": preprocessing.rescale_factor,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
    }
    if architecture in _PROCESSORS:
        config["image_processor_type"] = _PROCESSORS[architecture]
    if preprocessing.multiple_of != 1:
        config["size_divisor"] = preprocessing.multiple_of
    return config

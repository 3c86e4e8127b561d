"""Finish trained starter models: write model.onnx and SHA256SUMS, and show that every engine gives the same answer.

    python starters/finish.py                          # every model of the package
    python starters/finish.py path/to/models/clothes   # one

model.onnx holds the weights in half precision and computes in single precision. It is written only where it answers as
PyTorch does; the same is then checked on a real photograph, in ONNX Runtime and in OpenVINO.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from imagesmith.core.protocols import Array
from imagesmith.core.specs import ModelSpec
from imagesmith.engines.onnx import open_onnx
from imagesmith.engines.openvino import open_openvino
from imagesmith.engines.torch import open_torch
from imagesmith.exporting.export import export_onnx
from imagesmith.image.geometry import target_size, to_input
from imagesmith.models.folder import SUMS, infer
from imagesmith.models.safe import sha256_of

MODELS = Path(__file__).parent / "src" / "imagesmith_starters" / "models"
SUMMED = ("config.json", "preprocessor_config.json", "model.safetensors", "model.onnx")
LARGEST_FILE = 8 * 2**20
LARGEST_TOTAL = 60 * 10**6
LIMIT = 1e-4
"""Largest difference between engines, as a share of the output's largest value."""


def photograph() -> Array:
    """Return scikit-image's astronaut (512, 512, 3) uint8, a public domain photograph."""
    from skimage import data

    return np.asarray(data.astronaut())


def finish_starter(folder: Path) -> list[str]:
    """Write a model's ONNX file and checksums; return one line per check.

    `folder` holds config.json, preprocessor_config.json and model.safetensors. Raises `EngineFailed` where an export
    differs, `SystemExit` where an engine differs on the photograph or a file is too large.
    """
    spec = infer(folder)
    weights, onnx = folder / "model.safetensors", folder / "model.onnx"
    lines = [f"export: {export_onnx(spec, weights, onnx, half=True).sentence()}"]
    lines += compare_engines(spec, weights, onnx)
    sums = [f"{sha256_of(folder / name)}  {name}" for name in SUMMED if (folder / name).is_file()]
    (folder / SUMS).write_text("\n".join(sums) + "\n")
    for path in sorted(folder.iterdir()):
        if path.stat().st_size > LARGEST_FILE:
            raise SystemExit(f"{path} has {path.stat().st_size:,} bytes; at most {LARGEST_FILE:,} are allowed.")
    return lines


def compare_engines(spec: ModelSpec, weights: Path, onnx: Path) -> list[str]:
    """Run the photograph through every engine; return each one's difference from PyTorch and its time."""
    photo = photograph()
    size_hw = target_size(*photo.shape[:2], spec.preprocessing)
    inputs = {"pixel_values": to_input(photo, spec.preprocessing, size_hw)[None]}
    expected = open_torch(spec, weights).run(inputs)
    lines = []
    for name, opened in (("onnxruntime", open_onnx(spec, onnx)), ("openvino", open_openvino(spec, onnx))):
        opened.run(inputs)
        start = time.perf_counter()
        found = opened.run(inputs)
        took = time.perf_counter() - start
        share = largest_share(found, expected)
        lines.append(f"{name}: {share:.1e} of the output's scale at {size_hw}, {took * 1000:.0f} ms")
        if not share <= LIMIT:
            raise SystemExit(f"{spec.name}: {name} differs from PyTorch by {share:.1e} on the photograph.")
    return lines


def largest_share(found: Mapping[str, Array], expected: Mapping[str, Array]) -> float:
    """Return the largest difference of any output, as a share of that output's largest value."""
    return max(float(np.abs(found[name] - value).max() / np.abs(value).max()) for name, value in expected.items())


def main(arguments: list[str]) -> None:
    """Finish the folders named, or all; then show the package's size."""
    folders = [Path(argument) for argument in arguments] or sorted(path.parent for path in MODELS.glob("*/config.json"))
    for folder in folders:
        print(folder.name)
        for line in finish_starter(folder):
            print("  " + line)
    total = sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file())
    print(f"all models together: {total / 1e6:.1f} MB")
    if total > LARGEST_TOTAL:
        raise SystemExit(f"The package may hold {LARGEST_TOTAL / 1e6:.0f} MB.")


if __name__ == "__main__":
    main(sys.argv[1:])

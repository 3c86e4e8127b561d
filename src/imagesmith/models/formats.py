"""Formats of weights files, told by content; and the sentences that refuse one."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

from imagesmith.core.errors import BadWeights

Format = Literal[
    "safetensors", "pickle", "onnx", "openvino", "json", "npz", "zip", "tar", "gguf", "hdf5", "lfs", "html", "empty",
    "unknown",
]  # fmt: skip

WHAT_IT_IS: dict[Format, str] = {
    "pickle": "a pickle, which can run code when it is opened",
    "onnx": "an ONNX model",
    "openvino": "an OpenVINO model",
    "json": "a JSON text",
    "npz": "a NumPy archive",
    "zip": "a zip archive",
    "tar": "a tar archive",
    "gguf": "a GGUF model",
    "hdf5": "an HDF5 (TensorFlow or Keras) file",
    "lfs": "a Git LFS pointer, not the file itself",
    "html": "a web page, not weights",
    "empty": "empty",
    "unknown": "of no known format",
}


def sniff(path: str | Path) -> Format:
    """Tell a weights file's format by its content; the name plays no part. Raises `BadWeights` if it is unreadable."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(1024)
            size = file.seek(0, 2)
            file.seek(max(size - 1, 0))
            last = file.read(1)
    except OSError as error:
        raise BadWeights(f"{path} cannot be read ({error.strerror}); give an existing weights file.") from None
    if not head:
        return "empty"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _sniff_zip(path)
    starts: tuple[tuple[bytes, Format], ...] = (
        (b"GGUF", "gguf"),
        (b"\x89HDF", "hdf5"),
        (b"version https://git-lfs", "lfs"),
    )
    for start, kind in starts:
        if head.startswith(start):
            return kind
    if head[8:9] == b"{":
        return "safetensors"
    if head[0] == 0x80 and len(head) > 1 and head[1] <= 5:
        return "pickle"
    text = head.lstrip().lower()
    if text.startswith(b"<?xml") and b"<net" in text:
        return "openvino"
    if text.startswith((b"<!doctype", b"<html")):
        return "html"
    if text.startswith((b"{", b"[")):
        return "json"
    if head[257:262] == b"ustar":
        return "tar"
    # A protobuf whose first field is a small ir_version, followed by another length-delimited field.
    if head[0] == 0x08 and len(head) > 2 and 0 < head[1] < 32 and head[2] & 7 == 2:
        return "onnx"
    if head[:1] in b"(]}cli" and last == b".":  # pickle protocols 0 and 1 have no signature
        return "pickle"
    return "unknown"


def _sniff_zip(path: Path) -> Format:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return "zip"
    if any(name.endswith(".pkl") for name in names):
        return "pickle"
    return "npz" if names and all(name.endswith(".npy") for name in names) else "zip"


def bad(path: Path, reason: str) -> BadWeights:
    """Refuse a damaged or hostile file."""
    return BadWeights(f"{path} is refused: {reason}; download it again from a source you trust.")


def refusal(path: Path, kind: Format) -> BadWeights:
    """Refuse a file for its format."""
    if kind == "pickle":
        return BadWeights(
            f"{path} is {WHAT_IT_IS['pickle']}; use a .safetensors file, or --allow-pickle to load plain tensors only."
        )
    return BadWeights(f"{path} is {WHAT_IT_IS.get(kind, kind)}; weights must be a safetensors file.")

"""Weights files: told apart by content, checked before they are believed, memory-mapped, never unpickled unasked.

This is the only file of the project that may open a pickle, and only with torch's `weights_only=True`.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from imagesmith.core.errors import BadWeights, MissingExtra
from imagesmith.core.protocols import Array
from imagesmith.models.formats import bad, refusal, sniff
from imagesmith.models.safe import inside, safe_name

__all__ = ["SafetensorsFile", "TensorEntry", "open_safetensors", "read_state", "shard_names", "sniff"]

HEADER_BYTES = 10 * 2**20
TENSORS = 20_000
DIMENSIONS = 16
SHARDS = 1_000
ZIP_RATIO = 100
ZIP_MEMBERS = 10_000
ZIP_BYTES = 64 * 2**30

DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),  # NumPy has no bfloat16: its bits, widened to float32 when read
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies in the data part of a safetensors file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class SafetensorsFile(Mapping[str, Array]):
    """A checked safetensors file: names to arrays, read lazily from a private memory map.

    Arrays share the map (written values stay in memory, never in the file); bfloat16 is widened to float32.
    """

    def __init__(self, path: Path, entries: dict[str, TensorEntry], metadata: dict[str, str], offset: int) -> None:
        self.path, self.entries, self.metadata = path, entries, metadata
        size = max((entry.stop for entry in entries.values()), default=0)
        # A map cannot be empty; a file may hold only tensors without elements.
        self._data = np.memmap(path, np.uint8, "c", offset, (size,)) if size else np.zeros(0, np.uint8)

    def __getitem__(self, name: str) -> Array:
        entry = self.entries[name]
        dtype = DTYPES[entry.dtype]
        data = self._data[entry.start : entry.stop]
        if data.ctypes.data % dtype.itemsize:
            data = data.copy()
        array: Array = data.view(np.ndarray).view(dtype).reshape(entry.shape)
        if entry.dtype == "BF16":
            array = (array.astype(np.uint32) << 16).view(np.float32)
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return every tensor's shape without reading any."""
        return {name: entry.shape for name, entry in self.entries.items()}


def open_safetensors(path: str | Path) -> SafetensorsFile:
    """Check a safetensors file's header and map the file; nothing but the header is read.

    Raises `BadWeights` for another format, a header over 10 MB, more than 20,000 tensors, a name given twice,
    tensors that overlap, leave holes or do not fill the file.
    """
    path = Path(path)
    kind = sniff(path)
    if kind != "safetensors":
        raise refusal(path, kind)
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > HEADER_BYTES:
            raise bad(path, f"its header claims {length:,} bytes, and at most {HEADER_BYTES:,} are read")
        if length > size - 8:
            raise bad(path, f"its header claims {length:,} bytes, but the file has {size:,}; it is cut off")
        header = file.read(length)
    # Counted in the bytes, so that an oversized table is refused before it costs the time to parse it.
    if header.count(b'"data_offsets"') > TENSORS:
        raise bad(path, f"it lists more than {TENSORS:,} tensors")
    table = _parse(path, header)
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise bad(path, "its metadata is no table of texts")
    if len(table) > TENSORS:
        raise bad(path, f"it lists {len(table):,} tensors, and at most {TENSORS:,} are read")
    entries = {name: _entry(path, name, value) for name, value in table.items()}
    _check_layout(path, entries, size - 8 - length)
    return SafetensorsFile(path, entries, metadata, 8 + length)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f'"{twice[:100]}" is given twice')
    return table


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    """Read a JSON table, refusing a name that occurs twice at any depth."""
    try:
        table = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except RecursionError:
        raise bad(path, "its table is nested too deeply") from None
    except ValueError as error:
        raise bad(path, f"its table is not valid JSON ({str(error)[:200]})") from None
    if not isinstance(table, dict):
        raise bad(path, "its table is not a JSON object")
    return table


def _entry(path: Path, name: str, value: Any) -> TensorEntry:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise bad(path, f'the entry of "{name[:100]}" is not a dtype, a shape and two offsets')
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise bad(path, f'"{name[:100]}" has the unknown dtype {str(dtype)[:40]!r}')
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or not all(type(number) is int and number >= 0 for number in numbers):
            raise bad(path, f'the shape or the offsets of "{name[:100]}" are no list of sizes')
    if len(offsets) != 2 or len(shape) > DIMENSIONS:
        raise bad(path, f'"{name[:100]}" has {len(offsets)} offsets and {len(shape)} dimensions')
    start, stop = offsets
    expected = math.prod(shape) * DTYPES[dtype].itemsize
    if stop - start != expected:
        raise bad(path, f'"{name[:100]}" needs {expected:.6g} bytes by its shape but has {stop - start:.6g}')
    return TensorEntry(dtype, tuple(shape), start, stop)


def _check_layout(path: Path, entries: dict[str, TensorEntry], size: int) -> None:
    """Every byte of the data belongs to exactly one tensor."""
    position = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
        if entry.start != position:
            problem = "overlaps another tensor" if entry.start < position else "leaves a hole before it"
            raise bad(path, f'"{name[:100]}" {problem}')
        position = entry.stop
    if position != size:
        raise bad(path, f"its tensors take {position:,} bytes but the file holds {size:,}")


class _Shards(Mapping[str, Array]):
    """Several safetensors files read as one."""

    def __init__(self, files: dict[str, SafetensorsFile], where: dict[str, str]) -> None:
        self.files, self.where = files, where

    def __getitem__(self, name: str) -> Array:
        return self.files[self.where[name]][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.where)

    def __len__(self) -> int:
        return len(self.where)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: self.files[file].entries[name].shape for name, file in self.where.items()}


def shard_names(path: str | Path) -> list[str]:
    """Return the file names a `*.index.json` spreads its weights over, each checked to lie beside it."""
    return sorted(set(_weight_map(Path(path)).values()))


def _weight_map(path: Path) -> dict[str, str]:
    if path.stat().st_size > HEADER_BYTES:
        raise bad(path, f"an index holds at most {HEADER_BYTES:,} bytes")
    table = _parse(path, path.read_bytes()).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise BadWeights(f"{path} holds no weight_map; weights must be a safetensors file or its index.")
    if len(table) > TENSORS:
        raise bad(path, f"it lists {len(table):,} tensors, and at most {TENSORS:,} are read")
    where = {name: safe_name(file) for name, file in table.items()}
    if len(set(where.values())) > SHARDS:
        raise bad(path, f"it lists more than {SHARDS:,} files")
    return where


def _open_shards(path: Path) -> _Shards:
    where = _weight_map(path)
    files = {name: open_safetensors(inside(path.parent, name)) for name in sorted(set(where.values()))}
    for tensor, name in where.items():
        if tensor not in files[name].entries:
            raise bad(path, f'it says that "{tensor[:100]}" is in {name}, which does not hold it')
    return _Shards(files, where)


def read_state(path: str | Path, allow_pickle: bool = False) -> Mapping[str, Array]:
    """Open the weights at `path`: a safetensors file, the index of a sharded one, or (if allowed) a pickle.

    Arrays are memory-mapped where the file is safetensors. Raises `BadWeights` with one sentence otherwise.
    """
    path = Path(path)
    kind = sniff(path)
    if kind == "safetensors":
        return open_safetensors(path)
    if kind == "json":
        return _open_shards(path)
    if kind == "pickle" and allow_pickle:
        return _load_pickle(path)
    raise refusal(path, kind)


def _check_zip(path: Path) -> None:
    """Refuse an archive that would unpack to far more than it is, or that names places outside itself."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise bad(path, f"its archive is damaged ({str(error)[:100]})") from None
    if len(members) > ZIP_MEMBERS:
        raise bad(path, f"its archive has {len(members):,} members, and at most {ZIP_MEMBERS:,} are read")
    total = sum(member.file_size for member in members)
    if total > ZIP_BYTES or total > ZIP_RATIO * max(path.stat().st_size, 1):
        raise bad(path, f"its archive of {path.stat().st_size:,} bytes would unpack to {total:,}")
    for member in members:
        parts = PurePosixPath(member.filename.replace("\\", "/"))
        is_link = (member.external_attr >> 16) & 0o170000 == 0o120000
        if parts.is_absolute() or ".." in parts.parts or is_link:
            raise bad(path, f"its archive names {member.filename[:100]!r}, outside itself")


def _load_pickle(path: Path) -> dict[str, Array]:
    """Load plain tensors from a pickle with torch's restricted unpickler, which calls nothing the file names."""
    try:
        import torch
    except ImportError:
        raise MissingExtra("Loading a pickle", "torch") from None
    if zipfile.is_zipfile(path):
        _check_zip(path)
    try:
        with path.open("rb") as file:  # given a path, torch would go by its suffix
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - a hostile file can make the unpickler raise nearly anything
        reason = str(error).strip().split("\n")[0][:150]
        raise bad(path, f"it holds more than plain tensors, or is damaged ({type(error).__name__}: {reason})") from None
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict):
        raise bad(path, f"it holds a {type(loaded).__name__} where a table of weights is expected")
    state: dict[str, Array] = {}
    for name, value in loaded.items():
        if isinstance(name, str) and isinstance(value, torch.Tensor):
            tensor = value.detach()
            state[name] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    if not state:
        raise bad(path, "it holds no weights")
    return state

"""Weights files: honest ones are read exactly, hostile ones refused quickly, without running anything."""

from __future__ import annotations

import json
import pickle
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from imagesmith.core.errors import BadWeights
from imagesmith.models import checkpoint
from imagesmith.models.checkpoint import open_safetensors, read_state, shard_names, sniff

pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol")

ARRAYS = {
    "half": np.arange(6, dtype=np.float16).reshape(2, 3),
    "single": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4),
    "count": np.array(7, dtype=np.int64),
    "none": np.zeros((0, 5), np.float32),
    "flags": np.array([True, False, True]),
}


class Canary:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.write_text, (self.target, "was here"))


def safetensors_bytes(header: dict | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(start: int, stop: int, shape: list | None = None, dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": [(stop - start) // 4] if shape is None else shape, "data_offsets": [start, stop]}


def test_reads_what_the_reference_library_wrote(tmp_path):
    path = tmp_path / "weights.bin"  # the name plays no part
    save_file(ARRAYS, path, metadata={"format": "pt"})
    state = read_state(path)
    assert set(state) == set(ARRAYS)
    assert len(state) == len(ARRAYS)
    for name, expected in ARRAYS.items():
        assert state[name].dtype == expected.dtype
        assert state.shapes()[name] == expected.shape
        np.testing.assert_array_equal(state[name], expected)
    assert state.metadata == {"format": "pt"}


def test_arrays_share_a_private_map(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file(ARRAYS, path)
    before = path.read_bytes()
    state = open_safetensors(path)
    assert np.shares_memory(state["single"], state["single"])
    state["single"][:] = 5
    assert path.read_bytes() == before


def test_bfloat16_is_widened_exactly(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    values = torch.randn(5, 7).to(torch.bfloat16)
    save_torch({"w": values}, tmp_path / "b.safetensors")
    np.testing.assert_array_equal(read_state(tmp_path / "b.safetensors")["w"], values.float().numpy())


def test_unaligned_data_is_read_exactly(tmp_path):
    header = {"flag": entry(0, 1, [1], "U8"), "value": entry(1, 9)}
    data = b"\x07" + np.array([1.5, -2.5], "<f4").tobytes()
    (tmp_path / "u").write_bytes(safetensors_bytes(header, data))
    value = read_state(tmp_path / "u")["value"]
    assert value.tolist() == [1.5, -2.5]
    assert value.ctypes.data % 4 == 0


def many_tensors(count: int) -> bytes:
    header = {f"{index}": entry(0, 0, [0]) for index in range(count)}
    return safetensors_bytes(header)


DOUBLED = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
HOSTILE = {
    "length 2^63": (safetensors_bytes(b"{}", length=2**63), "claims"),
    "longer than the file": (safetensors_bytes(b"{}", length=1000), "cut off"),
    "11 MB header": (safetensors_bytes(b"{" + b" " * (11 * 2**20) + b"}"), "at most"),
    "60,000 tensors": (many_tensors(60_000), "more than 20,000"),
    "name twice": (safetensors_bytes(DOUBLED, b"1234"), "twice"),
    "deep nesting": (safetensors_bytes(b'{"a":' + b"[" * 5_000_000), "nested"),
    "huge number": (safetensors_bytes(b'{"a":' + b"9" * 100_000 + b"}"), "JSON"),
    "not UTF-8": (safetensors_bytes(b'{"\xff\xfe":1}'), "JSON"),
    "overlap": (safetensors_bytes({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12)), "overlaps"),
    "hole": (safetensors_bytes({"a": entry(0, 4), "b": entry(8, 12)}, bytes(12)), "hole"),
    "bytes left over": (safetensors_bytes({"a": entry(0, 4)}, bytes(400)), "holds 400"),
    "data missing": (safetensors_bytes({"a": entry(0, 400)}, bytes(4)), "holds 4"),
    "shape overflow": (safetensors_bytes({"a": entry(0, 4, [2**62, 2**62])}, bytes(4)), "needs"),
    "backwards": (safetensors_bytes({"a": entry(8, 4, [1])}, bytes(8)), "needs"),
    "negative": (safetensors_bytes({"a": entry(-4, 0, [1])}), "list of sizes"),
    "boolean size": (safetensors_bytes({"a": entry(0, 4, [True])}, bytes(4)), "list of sizes"),
    "unknown dtype": (safetensors_bytes({"a": entry(0, 4, [1], "OBJ")}, bytes(4)), "dtype"),
    "extra field": (safetensors_bytes({"a": {**entry(0, 4), "x": 1}}, bytes(4)), "entry"),
    "1,000 dimensions": (safetensors_bytes({"a": entry(0, 4, [1] * 1000)}, bytes(4)), "dimensions"),
    "metadata": (safetensors_bytes({"__metadata__": {"a": [1]}}), "metadata"),
    "empty": (b"", "empty"),
    "text": (b"hello there, I am weights", "no known format"),
    "web page": (b"<!DOCTYPE html><html>404</html>", "web page"),
    "lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "LFS"),
    "numpy object": (b"\x93NUMPY\x01\x00v\x00{'descr': '|O'", "no known format"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_headers_are_refused_quickly(case, tmp_path):
    content, words = HOSTILE[case]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    start = time.process_time()
    with pytest.raises(BadWeights, match=words) as caught:
        read_state(path)
    assert time.process_time() - start < 0.5
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model.ckpt", "model.pt"])
@pytest.mark.parametrize("protocol", [0, 2, 5, "torch", "torch old"])
def test_pickles_never_run(name, protocol, tmp_path):
    torch = pytest.importorskip("torch")
    canary, path = tmp_path / "canary", tmp_path / name
    payload = {"weight": torch.zeros(2), "evil": Canary(canary)}
    if isinstance(protocol, int):
        path.write_bytes(pickle.dumps(Canary(canary), protocol))
    else:
        torch.save(payload, path, _use_new_zipfile_serialization=protocol == "torch")
    assert sniff(path) == "pickle"
    start = time.process_time()
    with pytest.raises(BadWeights, match="can run code"):
        read_state(path)
    assert time.process_time() - start < 0.5
    with pytest.raises(BadWeights, match="plain tensors"):
        read_state(path, allow_pickle=True)
    assert not canary.exists()


def test_the_canary_sings_when_unpickled(tmp_path):
    canary = tmp_path / "canary"
    pickle.loads(pickle.dumps(Canary(canary)))  # noqa: S301 - shows that the canary works
    assert canary.exists()


def test_allowed_pickles_give_the_same_arrays(tmp_path):
    torch = pytest.importorskip("torch")
    weights = {"a": torch.randn(3, 4), "b": torch.randn(2).to(torch.bfloat16), "step": torch.tensor(3)}
    torch.save({"state_dict": weights, "epoch": 3}, tmp_path / "model.safetensors")
    state = read_state(tmp_path / "model.safetensors", allow_pickle=True)
    assert set(state) == set(weights)
    for name, value in weights.items():
        np.testing.assert_array_equal(state[name], value.float().numpy() if name == "b" else value.numpy())


@pytest.mark.parametrize(
    ("member", "content", "words"),
    [
        ("archive/data/0", b"\0" * 30_000_000, "unpack"),
        ("../../outside", b"x", "outside itself"),
        ("/etc/outside", b"x", "outside itself"),
        ("..\\outside", b"x", "outside itself"),
    ],
)
def test_hostile_archives_are_refused(member, content, words, tmp_path):
    path = tmp_path / "model.bin"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        archive.writestr(member, content)
    with pytest.raises(BadWeights, match=words):
        read_state(path, allow_pickle=True)


def test_too_many_members_are_refused(tmp_path):
    path = tmp_path / "model.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"")
        for index in range(checkpoint.ZIP_MEMBERS):
            archive.writestr(str(index), b"")
    with pytest.raises(BadWeights, match="members"):
        read_state(path, allow_pickle=True)


def write_shards(folder: Path, weight_map: dict) -> Path:
    save_file({"a": ARRAYS["half"]}, folder / "model-1.safetensors")
    save_file({"b": ARRAYS["single"]}, folder / "model-2.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


def test_shards_read_as_one(tmp_path):
    index = write_shards(tmp_path, {"a": "model-1.safetensors", "b": "model-2.safetensors"})
    state = read_state(index)
    np.testing.assert_array_equal(state["b"], ARRAYS["single"])
    assert sorted(state) == ["a", "b"]
    assert state.shapes()["a"] == (2, 3)
    assert shard_names(index) == ["model-1.safetensors", "model-2.safetensors"]


@pytest.mark.parametrize(
    "name",
    [
        "../secret.safetensors",
        "/etc/passwd",
        "..",
        ".",
        "",
        "a/../b.safetensors",
        "..\\x",
        "C:x",
        "a\0b",
        7,
        None,
        "x" * 300,
    ],
)
def test_shard_names_stay_in_their_folder(name, tmp_path):
    (tmp_path / "model").mkdir()
    save_file({"a": ARRAYS["half"]}, tmp_path / "secret.safetensors")
    index = write_shards(tmp_path / "model", {"a": name})
    for read in (read_state, shard_names):
        with pytest.raises(BadWeights, match="no plain name"):
            read(index)


def test_a_shard_must_hold_what_the_index_says(tmp_path):
    with pytest.raises(BadWeights, match="does not hold it"):
        read_state(write_shards(tmp_path, {"b": "model-1.safetensors"}))
    with pytest.raises(BadWeights, match="weight_map"):
        read_state(write_shards(tmp_path, {}))


def test_a_pickled_shard_is_refused(tmp_path):
    index = write_shards(tmp_path, {"a": "model-1.safetensors"})
    canary = tmp_path / "canary"
    (tmp_path / "model-1.safetensors").write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(BadWeights, match="can run code"):
        read_state(index, allow_pickle=True)
    assert not canary.exists()


def test_a_link_leads_to_the_same_checks(tmp_path):
    canary = tmp_path / "canary"
    (tmp_path / "blob").write_bytes(pickle.dumps(Canary(canary)))
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "blob")
    with pytest.raises(BadWeights, match="can run code"):
        read_state(tmp_path / "model.safetensors")
    assert not canary.exists()


def test_missing_and_unreadable_files_are_named(tmp_path):
    with pytest.raises(BadWeights, match="cannot be read"):
        read_state(tmp_path / "nothing.safetensors")
    with pytest.raises(BadWeights, match="cannot be read"):
        read_state(tmp_path)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\x08\x08\x12\x07pytorch", "onnx"),
        (b'<?xml version="1.0"?>\n<net name="x" version="11">', "openvino"),
        (b'{"weight_map": {}}', "json"),
        (b"GGUF\x03\x00\x00\x00", "gguf"),
        (b"\x89HDF\r\n\x1a\n", "hdf5"),
        (b"PK\x03\x04 broken", "zip"),
        (bytes(257) + b"ustar" + bytes(250), "tar"),
    ],
)
def test_formats_are_told_by_content(content, kind, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert sniff(path) == kind


def test_mutated_files_never_raise_anything_else(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({name: ARRAYS[name] for name in ("half", "single")}, path)
    original = path.read_bytes()
    rng = np.random.default_rng(0)
    read = 0
    for _ in range(400):
        data = bytearray(original)
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            data[place] = rng.integers(256)
        path.write_bytes(data[: rng.integers(1, len(data) + 1)] if rng.random() < 0.3 else data)
        try:
            state = read_state(path, allow_pickle=True)
        except BadWeights:
            continue
        assert sum(array.nbytes for array in state.values()) == 12 + 48
        read += 1
    assert 0 < read < 400  # flips in the data alone are legal

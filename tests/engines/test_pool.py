"""The pool with fakes (what it opens, shares, evicts) and once with the real engines."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagesmith.core.errors import EngineFailed, MissingExtra, WeightsMissing
from imagesmith.core.requests import EngineOptions, SegmentRequest
from imagesmith.core.specs import ModelSpec
from imagesmith.engines import pool as pool_module
from imagesmith.engines.hardware import Device, Hardware, Library
from imagesmith.engines.pool import COST_FACTOR, WORKING_BYTES, EnginePool

SIZE = 1000
COST = COST_FACTOR * SIZE + WORKING_BYTES
PIXELS = {"pixel_values": np.zeros((1, 3, 4, 4), np.float32)}


def hardware(devices: tuple[str, ...] = (), libraries: tuple[str, ...] = ("onnx",)) -> Hardware:
    found = tuple(Library(name, name in libraries, ("cpu", *devices), "test") for name in ("torch", "onnx", "openvino"))
    here = tuple(Device(kind, 0, kind, "test") for kind in ("cpu", *devices))
    return Hardware("Linux", "x86_64", "cpu", 2, 2, 2**34, (), here, found)


class FakeEngine:
    """Count what happens to it."""

    name = "onnx"
    inputs = ("pixel_values",)

    def __init__(self, log: Log, spec: ModelSpec) -> None:
        self.log, self.label, self.closed, self.running = log, spec.name, False, 0
        log.events.append(f"open {self.label}")

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        if self.closed:
            raise AssertionError("a closed engine was run")
        self.running += 1
        time.sleep(self.log.seconds)
        if self.closed:
            raise AssertionError("an engine was closed while it ran")
        self.running -= 1
        return {"logits": np.zeros(1, np.float32)}

    def close(self) -> None:
        assert not self.running
        self.closed = True
        self.log.events.append(f"close {self.label}")


class Log:
    def __init__(self) -> None:
        self.events: list[str] = []
        self.seconds = 0.0
        self.failures: dict[str, Exception] = {}
        self.arguments: list[dict[str, Any]] = []

    def open(self, spec: ModelSpec, path: Path, **arguments: Any) -> FakeEngine:
        self.arguments.append({"path": path, **arguments})
        if failure := self.failures.get(arguments.get("device", "cpu")):
            raise failure
        return FakeEngine(self, spec)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    """Every engine opens as a fake; the names of the openers are patched, not the pool."""
    log = Log()

    class Module:
        open_fake = staticmethod(log.open)

    monkeypatch.setattr(pool_module.importlib, "import_module", lambda name: Module)
    monkeypatch.setattr(
        pool_module, "OPENERS", dict.fromkeys(("torch", "onnx", "openvino"), ("fake", "open_fake", "cpu"))
    )
    return log


@pytest.fixture
def make_spec(tmp_path: Path) -> Callable[..., ModelSpec]:
    def make(name: str, *, file: str = "model.onnx", size: int = SIZE, **changes: Any) -> ModelSpec:
        folder = tmp_path / name
        folder.mkdir()
        (folder / file).write_bytes(b"\x08\x08\x12" + b"x" * (size - 3))
        values = {"name": name, "task": "segment", "architecture": "segformer", "source": f"folder:{folder}"}
        kind = "onnx" if file.endswith(".onnx") else "weights"
        return ModelSpec.model_validate({**values, kind: {"path": file}, **changes})

    return make


def test_one_model_opens_once(log: Log, make_spec: Any) -> None:
    spec = make_spec("a")
    with EnginePool(hardware=hardware()) as pool:
        first, second = pool.open(spec), pool.open(spec, EngineOptions(device="cpu"))
        first.run(PIXELS)
        second.run(PIXELS)
        assert log.events == ["open a"]
        pool.open(spec, EngineOptions(threads=2))  # another session, so another engine
        assert log.events == ["open a", "open a"]
        assert first.inputs == ("pixel_values",)
    assert log.events[2:] == ["close a", "close a"]


def test_a_file_that_changed_is_opened_anew(log: Log, make_spec: Any, tmp_path: Path) -> None:
    spec = make_spec("a")
    with EnginePool(hardware=hardware()) as pool:
        pool.open(spec)
        (tmp_path / "a" / "model.onnx").write_bytes(b"\x08\x08\x12trained further")
        pool.open(spec)
    assert log.events.count("open a") == 2


def test_the_least_recently_used_is_evicted_and_comes_back(log: Log, make_spec: Any) -> None:
    specs = [make_spec(name) for name in "abc"]
    with EnginePool(2 * COST, hardware=hardware()) as pool:
        a, b, c = (pool.open(spec) for spec in specs[:2] + specs[2:])
        assert log.events == ["open a", "open b", "close a", "open c"]
        assert pool.open_engines == 2
        b.run(PIXELS)
        a.run(PIXELS)  # its handle still works: opened again, and c, used longest ago, makes room
        assert log.events[4:] == ["close c", "open a"]
        b.run(PIXELS)
        assert log.events[6:] == []
        assert pool.open_engines == 2
        c.close()


def test_a_model_larger_than_the_budget_still_opens(log: Log, make_spec: Any) -> None:
    with EnginePool(COST // 2, hardware=hardware()) as pool:
        pool.open(make_spec("a")).run(PIXELS)
        pool.open(make_spec("b")).run(PIXELS)
    assert log.events == ["open a", "close a", "open b", "close b"]


def test_running_engines_are_never_closed(log: Log, make_spec: Any) -> None:
    """Eight threads over four models and room for one: the fakes complain if they are closed while they run."""
    log.seconds = 0.002
    specs = [make_spec(name) for name in "abcd"]
    failures: list[BaseException] = []
    with EnginePool(COST, hardware=hardware()) as pool:
        handles = [pool.open(spec) for spec in specs]

        def work(index: int) -> None:
            try:
                for turn in range(20):
                    handles[(index + turn) % 4].run(PIXELS)
            except BaseException as error:  # noqa: BLE001 - carried to the test's own thread
                failures.append(error)

        threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
    assert sum(event.startswith("open") for event in log.events) == sum(e.startswith("close") for e in log.events)


def test_two_threads_open_one_model_once(log: Log, make_spec: Any) -> None:
    spec = make_spec("a")
    with EnginePool(hardware=hardware()) as pool:
        threads = [threading.Thread(target=pool.open, args=(spec,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert log.events == ["open a"]


def test_closing_handles_frees_the_engine(log: Log, make_spec: Any) -> None:
    spec = make_spec("a")
    with EnginePool(hardware=hardware()) as pool:
        first, second = pool.open(spec), pool.open(spec)
        first.close()
        first.close()
        second.run(PIXELS)
        assert log.events == ["open a"]
        second.close()
        assert log.events == ["open a", "close a"]
        with pytest.raises(EngineFailed, match="closed"):
            second.run(PIXELS)


def test_a_closed_pool_says_so(log: Log, make_spec: Any) -> None:
    spec = make_spec("a")
    pool = EnginePool(hardware=hardware())
    handle = pool.open(spec)
    pool.close()
    pool.close()
    with pytest.raises(EngineFailed, match="pool of engines is closed"):
        handle.run(PIXELS)
    with pytest.raises(EngineFailed, match="pool of engines is closed"):
        pool.open(spec)


def test_a_failed_opening_leaves_nothing_behind(log: Log, make_spec: Any) -> None:
    spec = make_spec("a")
    log.failures["cpu"] = EngineFailed("no")
    with EnginePool(hardware=hardware()) as pool:
        with pytest.raises(EngineFailed):
            pool.open(spec)
        assert pool._slots == {}
        log.failures.clear()
        pool.open(spec).run(PIXELS)


def test_auto_falls_back_to_the_processor_with_one_warning(
    log: Log, make_spec: Any, caplog: pytest.LogCaptureFixture
) -> None:
    log.failures["cuda:0"] = EngineFailed("the driver is too old.")
    with EnginePool(hardware=hardware(("cuda",))) as pool, caplog.at_level(logging.WARNING, "imagesmith"):
        for name in "ab":
            assert pool.open(make_spec(name)).choice.device == "cpu"
        with pytest.raises(EngineFailed, match="driver is too old"):
            pool.open(make_spec("c"), EngineOptions(device="cuda"))
    assert [record.message for record in caplog.records] == ["the driver is too old; using cpu instead."]


def test_weights_are_converted_where_no_onnx_file_is(log: Log, make_spec: Any, tmp_path: Path) -> None:
    spec = make_spec("a", file="model.safetensors")
    calls: list[tuple[Any, ...]] = []

    def convert(spec: ModelSpec, weights: Path, kind: str, **options: Any) -> Path:
        calls.append((weights.name, kind, options))
        out = tmp_path / "converted.onnx"
        out.write_bytes(b"\x08\x08\x12")
        return out

    both = hardware(libraries=("torch", "onnx"))
    with EnginePool(convert=convert, hardware=both) as pool:
        assert pool.open(spec).name == "torch"
        assert calls == []
        assert log.arguments[-1]["path"].name == "model.safetensors"
        assert pool.open(spec, photos=100).name == "onnx"
        assert log.arguments[-1]["path"] == tmp_path / "converted.onnx"
        pool.open(spec, EngineOptions(engine="onnx"))
        assert len(calls) == 1
        assert len(log.arguments) == 2
    with EnginePool(convert=convert, hardware=both) as pool:
        pool.open(spec, SegmentRequest(engine="onnx", allow_pickle=True))
    assert calls == [("model.safetensors", "onnx", {}), ("model.safetensors", "onnx", {"allow_pickle": True})]
    with EnginePool(hardware=both) as pool:
        assert pool.open(spec).name == "torch"
        with pytest.raises(WeightsMissing, match="no ONNX file"):
            pool.open(spec, EngineOptions(engine="onnx"))
    with EnginePool(hardware=hardware()) as pool, pytest.raises(MissingExtra, match=r"imagesmith\[torch\]"):
        pool.open(spec)


def test_a_failed_conversion_falls_back_to_torch(log: Log, make_spec: Any, caplog: pytest.LogCaptureFixture) -> None:
    spec = make_spec("a", file="model.safetensors")

    def convert(*_: Any, **__: Any) -> Path:
        raise MissingExtra("Converting a model", "torch")

    both = hardware(libraries=("torch", "onnx"))
    with EnginePool(convert=convert, hardware=both) as pool, caplog.at_level(logging.WARNING, "imagesmith"):
        assert pool.open(spec, photos=100).name == "torch"
        with pytest.raises(MissingExtra):
            pool.open(spec, EngineOptions(engine="onnx"))
    assert len(caplog.records) == 1


def test_amd_answers_to_torch_by_its_other_name(log: Log, make_spec: Any) -> None:
    spec = make_spec("a", file="model.safetensors")
    with EnginePool(hardware=hardware(("rocm",), ("torch",))) as pool:
        pool.open(spec)
    assert log.arguments[-1]["device"] == "cuda:0"


def test_a_missing_library_names_its_extra(make_spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")

    monkeypatch.setattr(pool_module.importlib, "import_module", fail)
    with EnginePool(hardware=hardware()) as pool, pytest.raises(MissingExtra, match=r"imagesmith\[cpu\]"):
        pool.open(make_spec("a"))


def test_with_real_engines(segmenter: Any, rng: np.random.Generator) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    pixels = rng.standard_normal((2, 3, 16, 8)).astype(np.float32)
    expected = segmenter.expected(pixels)["logits"]
    with EnginePool() as pool:
        for photos, name in ((1, "onnx"), (1000, "openvino")):
            engine = pool.open(segmenter.spec, photos=photos)
            assert engine.name == name
            np.testing.assert_allclose(engine.run({"pixel_values": pixels})["logits"], expected, rtol=1e-5, atol=1e-5)
        assert pool.open_engines == 2
    assert pool.open_engines == 0

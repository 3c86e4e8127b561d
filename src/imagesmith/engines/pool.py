"""The only cache of open models: opens them on demand, shares them, evicts the least recently used by memory."""

from __future__ import annotations

import importlib
import itertools
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imagesmith.core.errors import EngineFailed, ImagesmithError, MissingExtra
from imagesmith.core.protocols import Array, Engine
from imagesmith.core.requests import EngineOptions
from imagesmith.core.specs import ModelSpec
from imagesmith.engines.choice import Choice, Formats, choose
from imagesmith.engines.hardware import Hardware, find_hardware
from imagesmith.models import files, hub

Convert = Callable[..., Path]
"""`convert(spec, weights, "onnx")` turns weights into a file of that kind and returns where it lies, cached; called
with `allow_pickle=True` where a person allowed it."""

OPENERS = {
    "torch": ("imagesmith.engines.torch", "open_torch", "torch"),
    "onnx": ("imagesmith.engines.onnx", "open_onnx", "cpu"),
    "openvino": ("imagesmith.engines.openvino", "open_openvino", "cpu"),
}
"""Engine -> module, function, and the extra that brings its library."""

COST_FACTOR, WORKING_BYTES = 3, 2**27
"""Memory of an open model: three times its file (fp32 weights, twice the file where that holds fp16, and the copy
libraries pack for their kernels) and what a picture needs on its way. Measured at 512x512: SegFormer-B0 138 to 222 MB,
B2 574 to 591, ViT-B/16 at 224x224 933 to 1092; this says 167, 413 and 1109."""
DEFAULT_BUDGET = 4 * 2**30
_log = logging.getLogger("imagesmith")


@dataclass(eq=False)
class _Slot:
    """One model as it is to be opened; its engine comes and goes with the budget."""

    open: Callable[[], Engine]
    cost: int
    engine: Engine | None = None
    inputs: tuple[str, ...] = ()
    running: int = 0
    handles: int = 0
    used: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while the engine is opened, so that two callers do not open it twice."""


class PooledEngine:
    """An engine lent by a pool: if the pool had to close it for others, the next run opens it again."""

    def __init__(self, pool: EnginePool, slot: _Slot, choice: Choice) -> None:
        self._pool = pool
        self._slot: _Slot | None = slot
        self.name = choice.engine
        self.choice = choice
        self.inputs = slot.inputs

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch; see `Engine`."""
        if self._slot is None:
            raise EngineFailed("This engine is closed; open the model again.")
        engine = self._pool._borrow(self._slot)
        try:
            return engine.run(inputs)
        finally:
            self._pool._give_back(self._slot)

    def close(self) -> None:
        """Give the engine back; its memory is freed when nobody else has it."""
        slot, self._slot = self._slot, None
        if slot is not None:
            self._pool._release(slot)


class EnginePool:
    """Open, share and evict engines within a memory budget. Safe to use from several threads; close it after use.

    `convert` turns weights into an ONNX file where only torch could read them; without it such models run on torch.
    `budget_bytes` defaults to half of this machine's memory.
    """

    def __init__(
        self,
        budget_bytes: int | None = None,
        convert: Convert | None = None,
        *,
        hardware: Hardware | None = None,
        offline: bool | None = None,
        cache: Path | None = None,
        progress: hub.Progress | None = None,
    ) -> None:
        self._budget = budget_bytes
        self._convert = convert
        self._hardware = hardware
        self._offline, self._cache, self._progress = offline, cache, progress
        self._slots: dict[tuple[Any, ...], _Slot] = {}
        self._converted: dict[tuple[Any, ...], Path] = {}
        self._lock = threading.RLock()
        self._clock = itertools.count(1)
        self._warned: set[str] = set()
        self._closed = False

    @property
    def hardware(self) -> Hardware:
        """What this machine has; looked at once."""
        with self._lock:
            self._hardware = self._hardware or find_hardware()
            return self._hardware

    def choice(self, spec: ModelSpec, options: EngineOptions, *, photos: int | None = None) -> Choice:
        """Decide what would run a model, without opening it."""
        has_onnx, from_weights = self._sources(spec, options)
        formats = Formats(
            onnx=False if from_weights else has_onnx,
            weights=files.has(spec, "weights", allow_pickle=_allows_pickle(options), cache=self._cache),
            can_convert=self._can_convert,
        )
        return choose(spec, options, self.hardware, formats=formats, photos=photos)

    def open(self, spec: ModelSpec, options: EngineOptions | None = None, *, photos: int | None = None) -> PooledEngine:
        """Return an engine for a model: one that is open already, or a new one.

        `photos` is how many pictures will follow, where it is known: many repay an engine that starts slower.
        What "auto" cannot start falls back to the processor with one warning. Raises `EngineFailed`,
        `MissingExtra`, `WeightsMissing`, `BadWeights` or `HubError`.
        """
        options = options or EngineOptions()
        while True:
            choice = self.choice(spec, options, photos=photos)
            for warning in choice.warnings:
                self._warn(warning)
            try:
                return self._handle(spec, options, choice)
            except (EngineFailed, MissingExtra) as error:
                change = self._fallback(options, choice)
                if change is None:
                    raise
                self._warn(f"{str(error).rstrip('.')}; using {' '.join(change.values())} instead.")
                options = options.model_copy(update=change)

    def _fallback(self, options: EngineOptions, choice: Choice) -> dict[str, str] | None:
        """Return what to change where something left to "auto" could not be started; None where nothing was."""
        if choice.device != "cpu" and options.device == "auto" and options.provider is None:
            return {"device": "cpu"}
        if choice.engine != "torch" and options.engine == "auto" and options.provider is None and self._can_convert:
            return {"engine": "torch"}
        return None

    @property
    def _can_convert(self) -> bool:
        return self._convert is not None and self.hardware.library("torch").installed

    def _handle(self, spec: ModelSpec, options: EngineOptions, choice: Choice) -> PooledEngine:
        path = self._file(spec, options, choice)
        stamp = path.stat()
        key = (
            *(choice.engine, choice.device, choice.provider, choice.precision, choice.threads),
            *(spec.task, spec.architecture, str(path), stamp.st_mtime_ns, stamp.st_size),
        )
        with self._lock:
            if self._closed:
                raise EngineFailed("This pool of engines is closed; make a new one.")
            slot = self._slots.get(key)
            if slot is None:
                opener = self._opener(spec, options, choice, path)
                slot = self._slots[key] = _Slot(opener, cost_of(path))
            slot.handles += 1
        try:
            self._borrow(slot)
            self._give_back(slot)
        except ImagesmithError:
            self._release(slot)
            raise
        return PooledEngine(self, slot, choice)

    def _sources(self, spec: ModelSpec, options: EngineOptions) -> tuple[bool | None, bool]:
        """Tell whether a model has an ONNX file, and whether one is rather made from its weights."""
        has_onnx = files.has(spec, "onnx", cache=self._cache)
        has_weights = files.has(spec, "weights", allow_pickle=_allows_pickle(options), cache=self._cache)
        # A stranger's ONNX file of a native architecture lacks the folded head and is several times slower.
        ours_is_faster = files.hub_id(spec) is not None and spec.architecture != "transformers"
        return has_onnx, self._can_convert and (not has_onnx or (ours_is_faster and has_weights is not False))

    def _file(self, spec: ModelSpec, options: EngineOptions, choice: Choice) -> Path:
        """Return the file the chosen engine opens, fetched or converted where need be."""
        _, from_weights = self._sources(spec, options)
        if choice.engine != "torch" and not from_weights:
            return files.locate(spec, "onnx", offline=self._offline, cache=self._cache, progress=self._progress)
        weights = files.locate(
            spec,
            "weights",
            allow_pickle=_allows_pickle(options),
            offline=self._offline,
            cache=self._cache,
            progress=self._progress,
        )
        if choice.engine == "torch" or self._convert is None:
            return weights
        extra = {"allow_pickle": True} if _allows_pickle(options) else {}
        # Conversions are found by the hash of the weights, and hashing them costs more than a picture.
        stamp = weights.stat()
        key = (str(weights), stamp.st_mtime_ns, stamp.st_size, spec.model_dump_json(), *extra)
        found = self._converted.get(key)
        if found is None or not found.is_file():
            found = self._converted[key] = self._convert(spec, weights, "onnx", **extra)
        return found

    def _opener(self, spec: ModelSpec, options: EngineOptions, choice: Choice, path: Path) -> Callable[[], Engine]:
        arguments: dict[str, Any] = {
            "device": choice.device,
            "precision": choice.precision,
            "threads": choice.threads,
        }
        if choice.engine == "onnx":
            arguments["provider"] = choice.provider
        if choice.engine == "torch":
            # AMD's build of torch answers to NVIDIA's name.
            arguments["device"] = choice.device.replace("rocm", "cuda")
            arguments["allow_pickle"] = _allows_pickle(options)
        module, function, extra = OPENERS[choice.engine]

        def open_engine() -> Engine:
            try:
                opener = getattr(importlib.import_module(module), function)
            except ImportError as error:
                if error.name and error.name.startswith("imagesmith"):
                    raise
                raise MissingExtra(f"The engine {choice.engine}", extra) from None
            engine: Engine = opener(spec, path, **arguments)
            return engine

        return open_engine

    def _borrow(self, slot: _Slot) -> Engine:
        """Return the slot's engine, opened if need be, and keep it open until it is given back."""
        with self._lock:
            if self._closed:
                raise EngineFailed("This pool of engines is closed; make a new one.")
            slot.used = next(self._clock)
            slot.running += 1
        try:
            with slot.lock:
                if slot.engine is None:
                    self._make_room(slot)
                    slot.engine = slot.open()
                    slot.inputs = slot.engine.inputs
                return slot.engine
        except BaseException:
            self._give_back(slot)
            raise

    def _give_back(self, slot: _Slot) -> None:
        with self._lock:
            slot.running -= 1
            if slot.running == 0 and (self._closed or slot.handles == 0):
                self._shut(slot)

    def _make_room(self, wanted: _Slot) -> None:
        """Close idle engines, least recently used first, until the wanted one fits (or none is left)."""
        with self._lock:
            others = [slot for slot in self._slots.values() if slot is not wanted]
            total = wanted.cost + sum(slot.cost for slot in others if slot.engine is not None or slot.running)
            for slot in sorted(others, key=lambda slot: slot.used):
                if total <= self.budget:
                    return
                if slot.engine is not None and slot.running == 0:
                    self._shut(slot)
                    total -= slot.cost

    @property
    def budget(self) -> int:
        """Bytes of engines this pool keeps open."""
        if self._budget is None:
            memory = self.hardware.memory_bytes
            self._budget = memory // 2 if memory else DEFAULT_BUDGET
        return self._budget

    @property
    def open_engines(self) -> int:
        """How many engines are open now."""
        with self._lock:
            return sum(1 for slot in self._slots.values() if slot.engine is not None)

    def _shut(self, slot: _Slot) -> None:
        if slot.engine is not None:
            slot.engine.close()
            slot.engine = None

    def _release(self, slot: _Slot) -> None:
        with self._lock:
            slot.handles -= 1
            if slot.handles == 0:
                self._slots = {key: other for key, other in self._slots.items() if other is not slot}
                if slot.running == 0:
                    self._shut(slot)

    def _warn(self, sentence: str) -> None:
        """Say something once."""
        with self._lock:
            if sentence in self._warned:
                return
            self._warned.add(sentence)
        _log.warning("%s", sentence)

    def close(self) -> None:
        """Close every engine; those that are running close when they are done."""
        with self._lock:
            self._closed = True
            for slot in self._slots.values():
                if slot.running == 0:
                    self._shut(slot)
            self._slots = {}

    def __enter__(self) -> EnginePool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _allows_pickle(options: EngineOptions) -> bool:
    return bool(getattr(options, "allow_pickle", False))


def cost_of(path: Path) -> int:
    """Estimate the bytes an open model takes, by its file and the data beside it (external data, .bin, shards)."""
    beside = (path.with_suffix(".bin"), path.with_name(f"{path.name}_data"), path.with_name(f"{path.name}.data"))
    shards = path.parent.glob("*.safetensors") if path.name.endswith(".index.json") else ()
    size = sum(part.stat().st_size for part in (path, *beside, *shards) if part.is_file())
    return COST_FACTOR * size + WORKING_BYTES

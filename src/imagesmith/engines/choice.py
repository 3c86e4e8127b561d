"""Which engine, device and precision run a model, and why: one pure function over what the machine has."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from imagesmith.core.errors import BadInput, EngineFailed, MissingExtra, did_you_mean
from imagesmith.core.requests import EngineOptions
from imagesmith.core.specs import ModelSpec
from imagesmith.engines.hardware import Hardware

MANY = 8
"""Photographs from which OpenVINO's slower start is paid back. Measured side by side on two busy cores, SegFormer-B0
at 512x512 from a bare process to the first answer: ONNX Runtime 0.7-1.0 s, OpenVINO 1.2-1.6 s (import 0.1 s longer,
opening and compiling 0.4 s longer); each further picture 160-360 ms against 110-230 ms. The gap at the start is made
up after 4 to 8 pictures; for SegFormer-B2 and ViT-B/16, whose graphs compile for seconds, after about as many."""

DEVICES = ("auto", "cpu", "cuda", "rocm", "xpu", "mps", "directml")
_TITLES = {"torch": "PyTorch", "onnx": "ONNX Runtime", "openvino": "OpenVINO"}
_EXTRAS = {"torch": "torch", "onnx": "cpu", "openvino": "cpu"}


@dataclass(frozen=True)
class Formats:
    """What files of a model can be had; None where only the hub knows."""

    onnx: bool | None = None
    weights: bool | None = None
    can_convert: bool = False
    """Whether weights can be turned into an ONNX file here."""


@dataclass(frozen=True)
class Choice:
    """What runs a model."""

    engine: str
    device: str
    """cpu, cuda:0, mps ..."""
    provider: str | None
    """Of ONNX Runtime; None for the other engines."""
    precision: str
    threads: int | None
    reasons: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def choose(
    spec: ModelSpec,
    options: EngineOptions,
    hardware: Hardware,
    *,
    formats: Formats | None = None,
    photos: int | None = None,
) -> Choice:
    """Decide engine, device, provider and precision, with a sentence for each reason.

    `photos` is how many pictures will follow, where it is known. What is named and missing raises `EngineFailed` or
    `MissingExtra`; what is left to "auto" falls back and says so in `warnings`.
    """
    formats = formats or Formats()
    kind, index = parse_device(options.device)
    reasons: list[str] = []
    warnings: list[str] = []
    kind = _kind(kind, index, options, hardware, warnings)
    engine = _engine(spec, options, hardware, formats, kind, photos, reasons)
    if options.device == "auto" and kind != "cpu":
        reasons.append(f"device {kind}: the fastest that is here and that {_TITLES[engine]} was built for")
    if engine == "onnx":
        provider = options.provider or kind
        if provider not in hardware.library("onnx").devices:
            had = ", ".join(hardware.library("onnx").devices)
            raise EngineFailed(
                f"ONNX Runtime has no {provider} provider here, only {had}; install the package that brings it, "
                "or leave out --provider."
            )
    else:
        provider = None
    precision = _precision(options, hardware, engine, kind, provider, reasons)
    device = kind if kind in ("cpu", "mps") else f"{kind}:{index}"
    threads = options.threads or _threads(hardware, reasons)
    return Choice(engine, device, provider, precision, threads, tuple(reasons), tuple(warnings))


def parse_device(text: str) -> tuple[str, int]:
    """Split a device into kind and index; raises `BadInput`.

    >>> parse_device("cuda:1"), parse_device("auto")
    (('cuda', 1), ('auto', 0))
    """
    kind, colon, index = text.strip().lower().partition(":")
    if kind not in DEVICES or (colon and not re.fullmatch(r"\d{1,3}", index)):
        near = did_you_mean(kind, DEVICES)
        raise BadInput(f'There is no kind of device "{text[:40]}".{near} Use one of {", ".join(DEVICES)}, or cuda:1.')
    return kind, int(index or 0)


def _kind(kind: str, index: int, options: EngineOptions, hardware: Hardware, warnings: list[str]) -> str:
    """Return the kind of device to use; a named one must be there and some allowed engine must be built for it."""
    if options.provider in ("cuda", "tensorrt", "directml") and kind == "auto":
        kind = "cuda" if options.provider != "directml" else "directml"
    engines = [options.engine] if options.engine != "auto" else ["torch", "onnx", "openvino"]
    engines = ["onnx"] if options.provider else engines
    able = {name for name in engines if hardware.library(name).installed}
    if kind == "auto":
        present = [device.kind for device in hardware.devices if device.kind != "cpu"]
        usable = [found for found in present if any(found in hardware.library(name).devices for name in able)]
        # Integrated Intel graphics are seldom faster than their processor, so they are used only when named.
        usable = [found for found in usable if found != "xpu" or "xpu" in hardware.library("torch").devices]
        unused = [device for device in hardware.devices if device.kind not in ("cpu", "xpu", *usable)]
        if unused and not usable and options.provider is None:
            warnings.append(
                f"{unused[0].name} is here, but no installed engine was built for it; using the processor. "
                "See: imagesmith doctor"
            )
        return usable[0] if usable and options.provider is None else "cpu"
    if not hardware.has(kind, index):
        had = ", ".join(
            f"{device.kind}:{device.index}" if device.kind != "cpu" else "cpu" for device in hardware.devices
        )
        raise EngineFailed(
            f"The device {kind}:{index} is not here, only {had}; leave out --device, or name one of them."
        )
    if able and not any(kind in hardware.library(name).devices for name in able):
        built = "; ".join(f"{_TITLES[name]} {hardware.library(name).reason}" for name in sorted(able))
        raise EngineFailed(
            f"No installed engine can use {kind} ({built}); install one built for it, or use --device cpu."
        )
    return kind


def _engine(
    spec: ModelSpec,
    options: EngineOptions,
    hardware: Hardware,
    formats: Formats,
    kind: str,
    photos: int | None,
    reasons: list[str],
) -> str:
    wanted = "onnx" if options.provider and options.engine == "auto" else options.engine
    if options.provider and wanted != "onnx":
        raise BadInput(f"--provider is for ONNX Runtime, but the engine is {wanted}; leave one of them out.")
    there = {name for name in _TITLES if hardware.library(name).installed}
    if wanted != "auto":
        if wanted not in there:
            raise MissingExtra(f"The engine {_TITLES[wanted]}", _EXTRAS[wanted])
        reasons.append(f"engine {wanted}: asked for")
        return wanted
    if not there:
        raise MissingExtra("Running a model", "cpu")
    fitting = {name for name in there if kind in hardware.library(name).devices}
    graphs = fitting & {"onnx", "openvino"}
    graph_is_had = formats.onnx is not False or (formats.can_convert and "torch" in there)
    if spec.architecture == "transformers" and not formats.onnx:
        if "torch" not in fitting:
            raise MissingExtra(f'"{spec.name}", which is no SegFormer, ViT or DETR,', "torch")
        reasons.append("engine torch: a network without a native module goes through transformers")
        return "torch"
    if kind != "cpu" and "torch" in fitting and formats.weights is not False:
        reasons.append(f"engine torch: built for {kind}")
        return "torch"
    if options.precision == "bf16" and "openvino" in graphs and graph_is_had:
        reasons.append("engine openvino: computes in bf16 on this processor")
        return "openvino"
    converting_pays = "torch" not in fitting or (photos or 0) >= MANY
    if graphs and graph_is_had and options.precision != "fp16" and (formats.onnx is not False or converting_pays):
        return _graph_engine(graphs, photos, reasons)
    if "torch" not in fitting:
        raise MissingExtra(f"{spec.name} has no ONNX file, and converting its weights", "torch")
    reasons.append(f"engine torch: the model has no ONNX file; making one (--engine onnx) pays from {MANY} photographs")
    return "torch"


def _graph_engine(graphs: set[str], photos: int | None, reasons: list[str]) -> str:
    if "openvino" in graphs and (photos or 0) >= MANY:
        reasons.append(f"engine openvino: fastest per photograph, and {photos} photographs repay its slower start")
        return "openvino"
    if "onnx" in graphs:
        reasons.append("engine onnx: starts fastest, which counts for few photographs")
        return "onnx"
    reasons.append("engine openvino: ONNX Runtime is not installed")
    return "openvino"


def _precision(
    options: EngineOptions, hardware: Hardware, engine: str, kind: str, provider: str | None, reasons: list[str]
) -> str:
    if options.precision == "auto":
        reasons.append("precision fp32: labels are exact; faster ones are chosen by name")
        return "fp32"
    if kind == "cpu" and options.precision == "fp16":
        raise EngineFailed(
            "fp16 on a processor is about 20 times slower than fp32; use --precision fp32, or bf16 where doctor "
            "lists it."
        )
    if kind == "cpu" and options.precision == "bf16" and "bf16" not in hardware.features:
        raise EngineFailed("This processor does not compute in bf16; use --precision fp32.")
    arm = hardware.machine.lower() in ("arm64", "aarch64")
    onnx_can = (provider == "tensorrt" and options.precision == "fp16") or (provider == "cpu" and arm)
    if engine == "onnx" and options.precision != "fp32" and not onnx_can:
        raise EngineFailed(
            f"ONNX Runtime does not compute in {options.precision} here; use --engine openvino or torch, or "
            "--precision fp32."
        )
    reasons.append(f"precision {options.precision}: asked for")
    return options.precision


def _threads(hardware: Hardware, reasons: list[str]) -> int | None:
    """Name the thread count only where a container allows fewer cores than the libraries would count."""
    if hardware.cores >= hardware.seen_cores:
        return None
    reasons.append(f"{hardware.cores} threads: this container's share of {hardware.seen_cores} cores")
    return hardware.cores

"""ONNX Runtime as an engine."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as native

from imagesmith.core.errors import BadWeights, EngineFailed
from imagesmith.core.protocols import Array
from imagesmith.core.specs import ModelSpec
from imagesmith.engines.ports import Port, Ports, match_ports
from imagesmith.models.formats import WHAT_IT_IS, sniff

PROVIDERS: dict[str, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
PACKAGES: dict[str, str] = {
    "cuda": "onnxruntime-gpu",
    "tensorrt": "onnxruntime-gpu",
    "directml": "onnxruntime-directml",
    "openvino": "onnxruntime-openvino",
}
"""Which package brings a provider the plain one lacks."""

_FAILURES: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    *(kind for kind in vars(native).values() if isinstance(kind, type) and issubclass(kind, Exception)),
)
_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
_TYPES |= {"tensor(int64)": "int64", "tensor(int32)": "int32", "tensor(bool)": "bool", "tensor(uint8)": "uint8"}


class OnnxEngine:
    """Run an ONNX file with ONNX Runtime; made by `open_onnx`. Safe to call from several threads."""

    name = "onnx"

    def __init__(self, session: Any, ports: Ports, where: Path) -> None:
        self._session: Any = session
        self._ports = ports
        self._where = where
        self._wanted = [port.name for port in ports.outputs.values()]
        self.inputs = tuple(ports.inputs)
        self.provider: str = session.get_providers()[0]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch; arrays in and out are float32 on the host. Raises `EngineFailed`."""
        if self._session is None:
            raise EngineFailed(f"The engine of {self._where} is closed; open the model again.")
        return self._ports.in_batches(inputs, self._run)

    def _run(self, feeds: dict[str, Array]) -> dict[str, Array]:
        try:
            return dict(zip(self._wanted, self._session.run(self._wanted, feeds), strict=True))
        except _FAILURES as error:
            raise EngineFailed(f"ONNX Runtime could not run {self._where}: {one_line(error)}.") from None

    def close(self) -> None:
        """Drop the session and its memory."""
        self._session = None


def open_onnx(
    spec: ModelSpec,
    path: Path,
    *,
    device: str = "cpu",
    provider: str | None = None,
    precision: str = "fp32",
    threads: int | None = None,
) -> OnnxEngine:
    """Open an ONNX file. Weights stored in fp16 are widened as the file opens and computed in fp32.

    Raises `EngineFailed` for a provider or precision this installation lacks, `BadWeights` for a file that is no
    ONNX graph of the spec's task.
    """
    kind = sniff(path)
    if kind != "onnx":
        raise BadWeights(f"{path} is {WHAT_IT_IS.get(kind, kind)}, but an ONNX model is expected; export it again.")
    provider = provider or device.partition(":")[0]
    chosen = _provider_list(provider, device, precision)
    try:
        session = onnxruntime.InferenceSession(str(path), _session_options(threads, precision), providers=chosen)
    except _FAILURES as error:
        raise EngineFailed(f"ONNX Runtime could not open {path}: {one_line(error)}.") from None
    # Where a provider's own libraries are missing, ONNX Runtime goes on with the CPU and only logs it.
    if session.get_providers()[0] != PROVIDERS[provider]:
        raise EngineFailed(
            f"ONNX Runtime could not start its {provider} provider (drivers or libraries are missing); use "
            "--provider cpu, or leave --provider and --device out."
        )
    session.disable_fallback()
    inputs = [_port(value) for value in session.get_inputs()]
    outputs = [_port(value) for value in session.get_outputs()]
    return OnnxEngine(session, match_ports(inputs, outputs, spec.task, path), path)


def available_providers() -> tuple[str, ...]:
    """Return the providers of this installation by our names."""
    there = onnxruntime.get_available_providers()
    return tuple(name for name, theirs in PROVIDERS.items() if theirs in there)


def _provider_list(provider: str, device: str, precision: str) -> list[Any]:
    there = available_providers()
    if provider not in PROVIDERS:
        raise EngineFailed(f"ONNX Runtime cannot run on {provider}; use --engine torch for it, or --device cpu.")
    if provider not in there:
        package = PACKAGES.get(provider)
        how = f"install {package} in place of onnxruntime" if package else "it exists on macOS only"
        raise EngineFailed(
            f"ONNX Runtime has no {provider} provider here, only {', '.join(there)}; {how}, or leave out --provider."
        )
    computes = {"fp32"} | ({"fp16"} if provider == "tensorrt" else set())
    if provider == "cpu" and platform.machine().lower() in ("arm64", "aarch64"):
        computes.add("bf16")
    if precision not in computes:
        raise EngineFailed(
            f"ONNX Runtime does not compute in {precision} with its {provider} provider here; use --engine openvino "
            "or torch for it, or --precision fp32."
        )
    options: dict[str, str] = {}
    if provider in ("cuda", "tensorrt", "directml"):
        options["device_id"] = device.partition(":")[2] or "0"
    if provider == "tensorrt":
        options["trt_fp16_enable"] = "1" if precision == "fp16" else "0"
        return [(PROVIDERS["tensorrt"], options), PROVIDERS["cuda"], PROVIDERS["cpu"]]
    listed: list[Any] = [(PROVIDERS[provider], options)]
    return listed if provider == "cpu" else [*listed, PROVIDERS["cpu"]]


def _session_options(threads: int | None, precision: str) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what matters is raised as one sentence
    options.inter_op_num_threads = 1
    if threads is not None:
        options.intra_op_num_threads = threads
    # Waiting threads sleep instead of spinning: on two busy cores SegFormer-B0 took 155 ms instead of 256.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if precision == "bf16":
        options.add_session_config_entry("mlas.enable_gemm_fastmath_arm64_bfloat16", "1")
    return options


def _port(value: Any) -> Port:
    shape = tuple(size if isinstance(size, int) and size > 0 else None for size in value.shape or ())
    return Port(value.name, shape, _TYPES.get(value.type, "float32"))


def one_line(error: Exception, limit: int = 200) -> str:
    """Return a library's message as one short line without the full stop."""
    return " ".join(str(error).split())[:limit].rstrip(". ") or type(error).__name__

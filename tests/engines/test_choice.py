"""Every way to decide where a model runs, on pretended machines."""

from __future__ import annotations

from typing import Any

import pytest

from imagesmith.core.errors import BadInput, EngineFailed, MissingExtra
from imagesmith.core.requests import EngineOptions
from imagesmith.core.specs import ModelSpec
from imagesmith.engines.choice import MANY, Choice, Formats, choose, parse_device
from imagesmith.engines.hardware import Device, Hardware, Library

SPEC = ModelSpec(name="m", task="segment", architecture="segformer", source="folder:/m")
GENERAL = SPEC.model_copy(update={"architecture": "transformers"})
ALL = {"torch": ("cpu",), "onnx": ("cpu",), "openvino": ("cpu", "xpu")}
BOTH = Formats(onnx=True, weights=True, can_convert=True)


def hardware(
    libraries: dict[str, tuple[str, ...]] | None = None,
    devices: tuple[str, ...] = (),
    features: tuple[str, ...] = ("avx2", "bf16"),
    **fields: Any,
) -> Hardware:
    libraries = ALL if libraries is None else libraries
    values: dict[str, Any] = {"cores": 8, "seen_cores": 8, "machine": "x86_64", **fields}
    counts: dict[str, int] = {}
    found = [Device("cpu", 0, "A processor", "test")]
    for kind in devices:
        found.append(Device(kind, counts.get(kind, 0), f"A {kind} device", "test"))
        counts[kind] = counts.get(kind, 0) + 1
    return Hardware(
        system="Linux",
        processor="A processor",
        memory_bytes=2**34,
        features=features,
        devices=tuple(found),
        libraries=tuple(
            Library(name, name in libraries, libraries.get(name, ()), "a reason")
            for name in ("torch", "onnx", "openvino")
        ),
        **values,
    )


def decide(machine: Hardware | None = None, spec: ModelSpec = SPEC, formats: Formats = BOTH, **options: Any) -> Choice:
    photos = options.pop("photos", None)
    return choose(spec, EngineOptions(**options), machine or hardware(), formats=formats, photos=photos)


def test_few_photographs_start_fast_and_many_run_fast() -> None:
    assert decide().engine == "onnx"
    assert decide(photos=MANY - 1).engine == "onnx"
    assert decide(photos=MANY).engine == "openvino"
    assert (decide().device, decide().provider, decide().precision) == ("cpu", "cpu", "fp32")
    assert any("starts fastest" in reason for reason in decide().reasons)


def test_auto_takes_what_is_installed() -> None:
    assert decide(hardware({"openvino": ("cpu",)})).engine == "openvino"
    assert decide(hardware({"torch": ("cpu",)})).engine == "torch"
    with pytest.raises(MissingExtra, match=r"imagesmith\[cpu\]"):
        decide(hardware({}))


def test_without_an_onnx_file() -> None:
    weights_only = Formats(onnx=False, weights=True)
    assert decide(formats=weights_only).engine == "torch"
    convertible = Formats(onnx=False, weights=True, can_convert=True)
    assert decide(formats=convertible).engine == "torch"
    assert decide(formats=convertible, photos=MANY).engine == "openvino"
    assert decide(formats=convertible, engine="onnx").engine == "onnx"
    light = hardware({"onnx": ("cpu",), "openvino": ("cpu",)})
    with pytest.raises(MissingExtra, match=r"has no ONNX file.*imagesmith\[torch\]"):
        decide(light, formats=weights_only)
    assert decide(light, formats=Formats()).engine == "onnx"  # only the hub knows; the download will tell


def test_networks_without_a_native_module() -> None:
    assert decide(spec=GENERAL, formats=Formats(onnx=False, weights=True, can_convert=True)).engine == "torch"
    assert decide(spec=GENERAL).engine == "onnx"  # the model brings a graph of its own
    with pytest.raises(MissingExtra, match=r"imagesmith\[torch\]"):
        decide(hardware({"onnx": ("cpu",)}), spec=GENERAL, formats=Formats(onnx=False, weights=True))


def test_named_engines_must_be_installed() -> None:
    for engine in ALL:
        assert decide(engine=engine).engine == engine
        with pytest.raises(MissingExtra):
            decide(hardware({name: kinds for name, kinds in ALL.items() if name != engine}), engine=engine)


def test_a_gpu_is_used_where_an_engine_can() -> None:
    torch_cuda = hardware({**ALL, "torch": ("cpu", "cuda")}, ("cuda", "cuda"))
    assert (decide(torch_cuda).engine, decide(torch_cuda).device) == ("torch", "cuda:0")
    assert decide(torch_cuda, device="cuda:1").device == "cuda:1"
    assert decide(torch_cuda, device="cpu").device == "cpu"
    onnx_cuda = hardware({"onnx": ("cpu", "cuda")}, ("cuda",))
    assert (decide(onnx_cuda).engine, decide(onnx_cuda).provider) == ("onnx", "cuda")
    apple = hardware({"torch": ("cpu", "mps"), "onnx": ("cpu", "coreml")}, ("mps",))
    assert (decide(apple).engine, decide(apple).device) == ("torch", "mps")
    amd = hardware({"torch": ("cpu", "rocm")}, ("rocm",))
    assert decide(amd).device == "rocm:0"
    windows = hardware({"onnx": ("cpu", "directml")}, ("directml",))
    assert decide(windows).provider == "directml"


def test_a_gpu_nobody_can_use_is_one_warning() -> None:
    chosen = decide(hardware(devices=("cuda",)))
    assert chosen.device == "cpu"
    assert len(chosen.warnings) == 1
    assert "A cuda device is here, but no installed engine was built for it" in chosen.warnings[0]
    assert decide(hardware(devices=("cuda",)), device="cpu").warnings == ()
    assert decide(hardware(devices=("xpu",))).warnings == ()  # integrated graphics are no loss


def test_a_named_device_that_is_missing_is_an_error() -> None:
    with pytest.raises(EngineFailed, match="cuda:0 is not here, only cpu"):
        decide(device="cuda")
    with pytest.raises(EngineFailed, match="cuda:1 is not here, only cpu, cuda:0"):
        decide(hardware({**ALL, "torch": ("cpu", "cuda")}, ("cuda",)), device="cuda:1")
    with pytest.raises(EngineFailed, match="No installed engine can use cuda"):
        decide(hardware(devices=("cuda",)), device="cuda")
    with pytest.raises(EngineFailed, match="No installed engine can use cuda"):
        decide(hardware({**ALL, "torch": ("cpu", "cuda")}, ("cuda",)), device="cuda", engine="openvino")


def test_providers() -> None:
    with pytest.raises(EngineFailed, match="cuda:0 is not here"):
        decide(provider="cuda")
    with pytest.raises(EngineFailed, match="no coreml provider here, only cpu"):
        decide(provider="coreml")
    with pytest.raises(BadInput, match="--provider is for ONNX Runtime"):
        decide(provider="cpu", engine="torch")
    assert decide(provider="cpu", photos=1000).engine == "onnx"
    nvidia = hardware({**ALL, "onnx": ("cpu", "cuda", "tensorrt")}, ("cuda",))
    assert (decide(nvidia, provider="tensorrt").provider, decide(nvidia, provider="tensorrt").device) == (
        "tensorrt",
        "cuda:0",
    )
    assert decide(nvidia, provider="tensorrt", precision="fp16").precision == "fp16"
    assert decide(nvidia, provider="cpu").device == "cpu"


def test_precision() -> None:
    assert decide(precision="bf16").engine == "openvino"
    assert decide(hardware({"torch": ("cpu",)}), precision="bf16").engine == "torch"
    with pytest.raises(EngineFailed, match="does not compute in bf16"):
        decide(hardware(features=("avx2",)), precision="bf16")
    with pytest.raises(EngineFailed, match="20 times slower"):
        decide(precision="fp16")
    with pytest.raises(EngineFailed, match="ONNX Runtime does not compute in bf16"):
        decide(engine="onnx", precision="bf16")
    assert decide(hardware(machine="aarch64"), engine="onnx", precision="bf16").precision == "bf16"
    gpu = hardware({**ALL, "torch": ("cpu", "cuda")}, ("cuda",))
    assert decide(gpu, precision="fp16").precision == "fp16"


def test_threads() -> None:
    assert decide().threads is None
    assert decide(threads=3).threads == 3
    assert decide(hardware(cores=2, seen_cores=64)).threads == 2


@pytest.mark.parametrize("text", ["gpu", "cuda:", "cuda:x", "", "cuda:1:2"])
def test_devices_that_are_none(text: str) -> None:
    with pytest.raises(BadInput, match="kind of device"):
        parse_device(text)

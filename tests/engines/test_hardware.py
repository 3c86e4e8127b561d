"""The machine is asked through a probe, so that machines we do not have can be pretended."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from imagesmith.engines.hardware import Probe, find_hardware

ZEN4 = "model name\t: AMD EPYC\nflags\t\t: fpu avx2 avx512f avx512_vnni avx512_bf16\n"
TORCH = (
    "from typing import Optional\n__version__ = '2.13.0'\ncuda: Optional[str] = {cuda}\nhip: Optional[str] = {hip}\n"
)


def machine(
    texts: Mapping[str, str] | None = None,
    commands: Mapping[str, str] | None = None,
    packages: tuple[str, ...] = (),
    present: tuple[str, ...] = (),
    **fields: Any,
) -> Probe:
    texts = {"/proc/cpuinfo": ZEN4, "/proc/meminfo": "MemTotal:  16000000 kB\n", **(texts or {})}
    return Probe(
        read=texts.get,
        exists=lambda path: path in present or path in texts,
        run=lambda command: (commands or {}).get(command[0]),
        package=lambda name: Path("/site") / name if name in packages else None,
        version=lambda name: "1.0" if name in packages else None,
        system=fields.get("system", "Linux"),
        machine=fields.get("machine", "x86_64"),
    )


def test_processor_memory_and_features() -> None:
    found = find_hardware(machine())
    assert found.processor == "AMD EPYC"
    assert found.memory_bytes == 16_000_000 * 1024
    assert found.features == ("avx2", "avx512", "vnni", "bf16")
    assert [device.kind for device in found.devices] == ["cpu"]
    assert not any(library.installed for library in found.libraries)
    assert 'pip install "imagesmith[cpu]"' in found.library("onnx").reason


def test_an_old_processor_has_no_features() -> None:
    found = find_hardware(machine({"/proc/cpuinfo": "model name : Old\nflags : fpu sse2\n"}))
    assert found.features == ()


def test_a_containers_share_counts() -> None:
    limits = {"/sys/fs/cgroup/cpu.max": "100000 100000\n", "/sys/fs/cgroup/memory.max": "1073741824\n"}
    found = find_hardware(machine(limits))
    assert found.cores == 1
    assert found.memory_bytes == 2**30
    unlimited = {"/sys/fs/cgroup/cpu.max": "max 100000\n", "/sys/fs/cgroup/memory.max": "max\n"}
    assert find_hardware(machine(unlimited)).cores == found.seen_cores


def test_nvidia() -> None:
    listed = "0, NVIDIA H200, 143771\n1, NVIDIA H200, 143771\n"
    probe = machine(
        {"/site/torch/version.py": TORCH.format(cuda="'12.8'", hip="None")},
        {"nvidia-smi": listed},
        ("torch", "onnxruntime"),
        ("/site/onnxruntime/capi/libonnxruntime_providers_cuda.so",),
    )
    found = find_hardware(probe)
    assert found.has("cuda", 1)
    assert not found.has("cuda", 2)
    assert found.devices[1].memory_bytes == 143771 * 2**20
    assert found.library("torch").devices == ("cpu", "cuda")
    assert found.library("onnx").devices == ("cpu", "cuda")


def test_amd() -> None:
    nodes = "/sys/class/kfd/kfd/topology/nodes"
    probe = machine(
        {
            f"{nodes}/0/properties": "cpu_cores_count 16\ngfx_target_version 0\n",
            f"{nodes}/1/properties": "gfx_target_version 90010\n",
            "/site/torch/version.py": TORCH.format(cuda="None", hip="'6.4'"),
        },
        packages=("torch",),
        present=("/dev/kfd",),
    )
    found = find_hardware(probe)
    assert [(device.kind, device.name) for device in found.devices[1:]] == [("rocm", "AMD gfx90a")]
    assert found.library("torch").devices == ("cpu", "rocm")


def test_intel_graphics() -> None:
    probe = machine({"/sys/class/drm/card0/device/vendor": "0x8086\n"}, present=("/dev/dri/renderD128",))
    assert find_hardware(probe).has("xpu")


def test_apple() -> None:
    commands = {"sysctl": "hw.optional.arm.FEAT_BF16: 1\n"}
    probe = machine({"/proc/cpuinfo": ""}, commands, ("torch", "onnxruntime"), system="Darwin", machine="arm64")
    found = find_hardware(probe)
    assert found.has("mps")
    assert found.features == ("bf16",)
    assert found.library("torch").devices == ("cpu", "mps")
    assert "coreml" in found.library("onnx").devices


def test_windows() -> None:
    probe = machine(
        packages=("onnxruntime",),
        present=(r"C:\Windows\System32\DirectML.dll", "/site/onnxruntime/capi/DirectML.dll"),
        system="Windows",
        machine="AMD64",
    )
    found = find_hardware(probe)
    assert found.has("directml")
    assert found.library("onnx").devices == ("cpu", "directml")


@pytest.mark.parametrize("answer", ["", "garbage", "No devices were found", "x, y, z", "0, A, B, C"])
def test_odd_answers_of_tools_are_no_device(answer: str) -> None:
    assert len(find_hardware(machine(commands={"nvidia-smi": answer})).devices) == 1


def test_this_machine_without_heavy_imports() -> None:
    code = (
        "import sys; from imagesmith.engines.hardware import find_hardware; found = find_hardware();"
        "assert found.cores >= 1 and found.processor; found.to_dict();"
        "sys.exit(' '.join({'torch', 'onnxruntime', 'openvino', 'numpy'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")

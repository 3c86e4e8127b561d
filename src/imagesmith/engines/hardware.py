"""What this machine has, found without importing torch or an engine: processor, memory, accelerators, libraries."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

TIMEOUT = 10.0


@dataclass(frozen=True)
class Device:
    """Something that can compute: `kind` is cpu, cuda, rocm, xpu, mps or directml."""

    kind: str
    index: int
    name: str
    found_by: str
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Library:
    """An engine's library: is it installed, and which kinds of device was it built for."""

    name: str
    installed: bool
    devices: tuple[str, ...] = ()
    reason: str = ""
    version: str | None = None


@dataclass(frozen=True)
class Hardware:
    """What was found, and why it was believed."""

    system: str
    machine: str
    processor: str
    cores: int
    """Cores this process may use."""
    seen_cores: int
    """Cores a library counts, which does not look at a container's share."""
    memory_bytes: int | None
    """Memory this process may use."""
    features: tuple[str, ...]
    """Of the processor, among avx2, avx512, vnni, bf16, amx."""
    devices: tuple[Device, ...]
    libraries: tuple[Library, ...]

    def library(self, name: str) -> Library:
        return next(library for library in self.libraries if library.name == name)

    def has(self, kind: str, index: int = 0) -> bool:
        """Tell whether a device is there; the index counts within its kind."""
        return any(device.kind == kind and device.index == index for device in self.devices)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as `imagesmith doctor --json` prints them."""
        return asdict(self)


@dataclass(frozen=True)
class Probe:
    """How the machine is asked; tests answer in its place."""

    read: Callable[[str], str | None] = field(default=lambda path: _read(path))
    exists: Callable[[str], bool] = os.path.exists
    run: Callable[[list[str]], str | None] = field(default=lambda command: _run(command))
    package: Callable[[str], Path | None] = field(default=lambda name: _package(name))
    version: Callable[[str], str | None] = field(default=lambda name: _version(name))
    system: str = field(default_factory=platform.system)
    machine: str = field(default_factory=platform.machine)

    @cached_property
    def cpuinfo(self) -> str:
        return self.read("/proc/cpuinfo") or ""


def find_hardware(probe: Probe | None = None) -> Hardware:
    """Look at the machine. Takes a few milliseconds where there is no GPU; nothing heavy is imported."""
    probe = probe or Probe()
    libraries = (_torch(probe), _onnxruntime(probe), _openvino(probe))
    cpu = Device("cpu", 0, _processor(probe), "the operating system", _memory(probe))
    return Hardware(
        system=probe.system,
        machine=probe.machine,
        processor=cpu.name,
        cores=_cores(probe),
        seen_cores=_seen_cores(),
        memory_bytes=cpu.memory_bytes,
        features=_features(probe),
        devices=(cpu, *_nvidia(probe), *_amd(probe), *_intel(probe), *_apple(probe), *_direct(probe)),
        libraries=libraries,
    )


# -- the processor ----------------------------------------------------------------------------------------------------


def _processor(probe: Probe) -> str:
    if match := re.search(r"^model name\s*:\s*(.+)$", probe.cpuinfo, re.MULTILINE):
        return match[1].strip()
    if probe.system == "Darwin":
        return (probe.run(["sysctl", "-n", "machdep.cpu.brand_string"]) or "").strip() or probe.machine
    return platform.processor() or probe.machine


def _features(probe: Probe) -> tuple[str, ...]:
    match = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", probe.cpuinfo, re.MULTILINE)
    flags = set(match[1].split()) if match else set()
    if probe.system == "Darwin":
        listed = probe.run(["sysctl", "hw.optional"]) or ""
        flags |= {"bf16"} if re.search(r"FEAT_BF16: 1", listed) else set()
        flags |= {"avx2"} if re.search(r"avx2_0: 1", listed) else set()
    known = {
        "avx2": {"avx2"},
        "avx512": {"avx512f"},
        "vnni": {"avx512_vnni", "avx_vnni", "i8mm", "asimddp"},
        "bf16": {"avx512_bf16", "amx_bf16", "bf16"},
        "amx": {"amx_tile"},
    }
    return tuple(name for name, names in known.items() if names & flags)


def _seen_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cores(probe: Probe) -> int:
    cores = _seen_cores()
    quota, _, period = (probe.read("/sys/fs/cgroup/cpu.max") or "").strip().partition(" ")
    if quota.isdigit() and period.isdigit() and int(period):
        cores = min(cores, max(1, round(int(quota) / int(period))))
    return cores


def _memory(probe: Probe) -> int | None:
    total: int | None = None
    if match := re.search(r"^MemTotal:\s*(\d+) kB", probe.read("/proc/meminfo") or "", re.MULTILINE):
        total = int(match[1]) * 1024
    elif probe.system == "Darwin":
        text = (probe.run(["sysctl", "-n", "hw.memsize"]) or "").strip()
        total = int(text) if text.isdigit() else None
    limit = (probe.read("/sys/fs/cgroup/memory.max") or "").strip()
    if limit.isdigit():
        total = min(total, int(limit)) if total else int(limit)
    return total


# -- accelerators -----------------------------------------------------------------------------------------------------


def _nvidia(probe: Probe) -> list[Device]:
    listed = probe.run(["nvidia-smi", "--query-gpu=index,name,memory.total", "--format=csv,noheader,nounits"])
    devices = []
    for line in (listed or "").splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 3 and parts[0].isdigit():
            memory = int(parts[2]) * 2**20 if parts[2].isdigit() else None
            devices.append(Device("cuda", int(parts[0]), parts[1], "nvidia-smi", memory))
    return devices


def _amd(probe: Probe) -> list[Device]:
    """ROCm numbers the nodes that have a graphics target; processors have none."""
    if probe.system != "Linux" or not probe.exists("/dev/kfd"):
        return []
    devices: list[Device] = []
    for node in range(64):
        text = probe.read(f"/sys/class/kfd/kfd/topology/nodes/{node}/properties")
        if text is None:
            break
        if match := re.search(r"^gfx_target_version ([1-9]\d*)$", text, re.MULTILINE):
            version = int(match[1])
            name = f"AMD gfx{version // 10000}{version // 100 % 100}{version % 100:x}"
            devices.append(Device("rocm", len(devices), name, "/dev/kfd"))
    return devices


def _intel(probe: Probe) -> list[Device]:
    """Intel's graphics by the driver behind each card."""
    devices: list[Device] = []
    for card in range(8):
        vendor = (probe.read(f"/sys/class/drm/card{card}/device/vendor") or "").strip()
        if vendor == "0x8086" and any(probe.exists(f"/dev/dri/renderD{128 + number}") for number in range(8)):
            devices.append(Device("xpu", len(devices), "Intel graphics", f"/sys/class/drm/card{card}"))
    return devices


def _apple(probe: Probe) -> list[Device]:
    if probe.system == "Darwin" and probe.machine == "arm64":
        return [Device("mps", 0, "Apple GPU", "macOS on Apple silicon")]
    return []


def _direct(probe: Probe) -> list[Device]:
    if probe.system == "Windows" and probe.exists(r"C:\Windows\System32\DirectML.dll"):
        return [Device("directml", 0, "DirectX 12 graphics", "DirectML.dll")]
    return []


# -- libraries --------------------------------------------------------------------------------------------------------


def _torch(probe: Probe) -> Library:
    folder = probe.package("torch")
    if folder is None:
        return Library("torch", False, reason='not installed; pip install "imagesmith[torch]"')
    text = probe.read(str(folder / "version.py")) or ""
    built = {
        kind: bool(re.search(rf"^{word}\b[^=\n]*= ['\"]", text, re.MULTILINE))
        for kind, word in (("cuda", "cuda"), ("rocm", "hip"), ("xpu", "xpu"))
    }
    kinds = ["cpu", *(kind for kind, there in built.items() if there)]
    if probe.system == "Darwin" and probe.machine == "arm64":
        kinds.append("mps")
    return Library("torch", True, tuple(kinds), f"built for {', '.join(kinds)}", probe.version("torch"))


def _onnxruntime(probe: Probe) -> Library:
    folder = probe.package("onnxruntime")
    if folder is None:
        return Library("onnx", False, reason='not installed; pip install "imagesmith[cpu]"')
    files = {
        "cuda": ("libonnxruntime_providers_cuda.so", "onnxruntime_providers_cuda.dll"),
        "tensorrt": ("libonnxruntime_providers_tensorrt.so", "onnxruntime_providers_tensorrt.dll"),
        "openvino": ("libonnxruntime_providers_openvino.so", "onnxruntime_providers_openvino.dll"),
        "directml": ("DirectML.dll",),
    }
    kinds = ["cpu"]
    kinds += [kind for kind, names in files.items() if any(probe.exists(str(folder / "capi" / n)) for n in names)]
    if probe.system == "Darwin":
        kinds.append("coreml")
    versions = (probe.version(f"onnxruntime{ending}") for ending in ("", "-gpu", "-directml", "-openvino"))
    version = next((version for version in versions if version), None)
    return Library("onnx", True, tuple(kinds), f"has the providers {', '.join(kinds)}", version)


def _openvino(probe: Probe) -> Library:
    folder = probe.package("openvino")
    if folder is None:
        return Library("openvino", False, reason='not installed; pip install "imagesmith[cpu]"')
    kinds = ("cpu", "xpu")
    return Library("openvino", True, kinds, "runs on Intel, AMD and ARM processors", probe.version("openvino"))


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _run(command: list[str]) -> str | None:
    """Return what a command prints, None where it is missing, fails or hangs."""
    program = shutil.which(command[0])
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *command[1:]],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _package(name: str) -> Path | None:
    """Return a package's folder without importing it."""
    if name in sys.modules and getattr(sys.modules[name], "__file__", None):
        return Path(str(sys.modules[name].__file__)).parent
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    places = list(found.submodule_search_locations or ()) if found else []
    return Path(places[0]) if places else None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None

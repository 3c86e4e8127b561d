"""What every benchmark shares: sides that run in turn, medians with their spread, versions, and JSON for history.

A machine is never quiet, and its speed drifts by a factor of two: only ratios of sides that ran in turn (A B A B)
in one process mean something, so that is all this prints as a claim. Beside the time on the clock stands the time
the processors spent on this process and its children, which other programs lengthen far less: where the two ratios
disagree, the machine was too busy.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Side:
    """One way to do the work; `prepare` (not timed) runs before every round."""

    name: str
    run: Callable[[], object]
    prepare: Callable[[], object] = lambda: None


@dataclass
class Case:
    """One comparison: seconds per side, in rounds, and the ratios that are claimed from them."""

    title: str
    seconds: dict[str, list[float]] = field(default_factory=dict)
    processor: dict[str, list[float]] = field(default_factory=dict)
    """Processor seconds, all threads and children together."""
    ratios: dict[str, float] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


def take_turns(title: str, sides: Sequence[Side], rounds: int, warmups: int = 1) -> Case:
    """Run the sides in turn, after `warmups` runs of each that are not counted."""
    case = Case(title, {side.name: [] for side in sides}, {side.name: [] for side in sides})
    for _ in range(warmups):
        for side in sides:
            side.prepare()
            side.run()
    for number in range(1, rounds + 1):
        for side in sides:
            side.prepare()
            start, worked = time.perf_counter(), processor_seconds()
            side.run()
            case.seconds[side.name].append(time.perf_counter() - start)
            case.processor[side.name].append(processor_seconds() - worked)
            took = case.seconds[side.name][-1]
            print(f"{title}: round {number} of {rounds}, {side.name}: {_time(took)}", file=sys.stderr, flush=True)
    return case


def processor_seconds() -> float:
    """Return the processor time of this process and of its children that ended."""
    return sum(os.times()[:4])


def claim(case: Case, name: str, slow: str, fast: str) -> float:
    """Record how many times faster `fast` is than `slow`, by medians."""
    case.ratios[name] = statistics.median(case.seconds[slow]) / statistics.median(case.seconds[fast])
    work = statistics.median(case.processor[slow]) / max(statistics.median(case.processor[fast]), 1e-9)
    case.notes[f"processor time {name}"] = f"{work:.1f} x"
    return case.ratios[name]


def show(case: Case) -> None:
    """Print one case: every side with median and spread, what was noted, and the ratios last."""
    print(f"\n{case.title}")
    width = max(len(name) for name in case.seconds)
    for name, seconds in case.seconds.items():
        low, high = min(seconds), max(seconds)
        middle = statistics.median(seconds)
        work = _time(statistics.median(case.processor[name]))
        spread = f"({_time(low)} to {_time(high)}, {len(seconds)} rounds)"
        print(f"  {name.ljust(width)}  {_time(middle):>9}   {spread:<36} processor {work:>9}")
    for name, value in case.notes.items():
        print(f"  {name}: {value}")
    for name, ratio in case.ratios.items():
        print(f"  ratio {name}: {ratio:.1f} x")


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of what took part; a package that is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in ("imagesmith", "numpy", *packages):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def machine() -> dict[str, Any]:
    """Describe the machine, and how busy it is with other work."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"processor": _processor(), "cores": os.cpu_count(), "load": load, "system": platform.system()}


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def parser(description: str, rounds: int) -> argparse.ArgumentParser:
    """Return a parser with the options every benchmark has."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--rounds", type=int, default=rounds, help=f"counted runs of each side ({rounds})")
    options.add_argument("--json", type=Path, help="also append the figures to this file, one JSON object per line")
    return options


def finish(name: str, cases: Sequence[Case], used: Mapping[str, str], path: Path | None) -> None:
    """Print the cases and keep them: a file of JSON lines is a history."""
    print(f"{name}: {', '.join(f'{package} {version}' for package, version in used.items())}")
    about = machine()
    print(f"on {about['processor']}, {about['cores']} cores, load {about['load']}")
    for case in cases:
        show(case)
    if path is None:
        return
    record = {
        "benchmark": name,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": about,
        "versions": dict(used),
        "cases": [vars(case) for case in cases],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")

"""Label a 1080p photograph from coarse logits: exact upsampling by convexity against upsampling every logit.

    python benchmarks/bench_upsample.py [--json PATH]

The full way is what `transformers`' `post_process_semantic_segmentation` does (torch bilinear, then argmax), with its
default number of threads. Labels must be equal on every pixel, or the benchmark fails.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from imagesmith.vision.upsample import upsample_labels

CASES = {
    "clothes, 18 classes": (18, (128, 128), (1080, 1920), 16),
    "clothes, 18 classes, fine detail": (18, (128, 128), (1080, 1920), 8),
    "clothes, 59 classes": (59, (96, 64), (1920, 1080), 12),
}


def logits_like_a_network(classes: int, grid_hw: tuple[int, int], detail: int) -> np.ndarray:
    """Make smooth regions about `detail` lattice points wide, with a little noise."""
    random = np.random.default_rng(0)
    coarse = random.normal(0, 4, (1, classes, grid_hw[0] // detail, grid_hw[1] // detail)).astype(np.float32)
    smooth = torch.nn.functional.interpolate(torch.from_numpy(coarse), size=grid_hw, mode="bicubic")[0].numpy()
    return smooth + random.normal(0, 0.05, smooth.shape).astype(np.float32)


def full_way(logits: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    values = torch.from_numpy(logits)[None]
    full = torch.nn.functional.interpolate(values, size=size_hw, mode="bilinear", align_corners=False)
    return full[0].argmax(dim=0).numpy()


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def compare(name: str, rounds: int) -> dict[str, object]:
    classes, grid_hw, size_hw, detail = CASES[name]
    logits = logits_like_a_network(classes, grid_hw, detail)
    wrong = int((upsample_labels(logits, size_hw) != full_way(logits, size_hw)).sum())
    if wrong:
        raise SystemExit(f"{name}: {wrong} pixels differ from torch's labels; the method must be exact.")
    ours, full = [], []
    for _ in range(rounds):  # in turn, so that a busy machine slows both
        ours.append(seconds(lambda: upsample_labels(logits, size_hw)) * 1e3)
        full.append(seconds(lambda: full_way(logits, size_hw)) * 1e3)
    ratio = statistics.median(full) / statistics.median(ours)
    print(f"{name}, {grid_hw[0]}x{grid_hw[1]} to {size_hw[0]}x{size_hw[1]}: 0 pixels differ")
    for label, values in (("every logit (torch)", full), ("by convexity (NumPy)", ours)):
        print(f"  {label:22s} median {statistics.median(values):7.1f} ms   {min(values):.1f} to {max(values):.1f}")
    print(f"  ratio {ratio:.1f} x")
    return {"case": name, "full_ms": full, "ours_ms": ours, "different_pixels": wrong, "ratio": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    versions = {"torch": torch.__version__, "numpy": np.__version__, "threads": torch.get_num_threads()}
    print(f"{platform.machine()}, {versions}")
    cases = [compare(name, options.rounds) for name in CASES]
    ratio = float(cases[0]["ratio"])  # type: ignore[arg-type]
    if options.json:
        report = {"benchmark": "upsample", "versions": versions, "cases": cases, "ratio": ratio}
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    print(f"ratio {ratio:.1f} x (first case)")


if __name__ == "__main__":
    main()

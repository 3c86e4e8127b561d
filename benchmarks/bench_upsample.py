"""Label a full-size photograph from coarse logits: exact upsampling by convexity against upsampling every logit.

    python benchmarks/bench_upsample.py [--json PATH]

"every logit" is what transformers' `post_process_semantic_segmentation` does (torch bilinear, then argmax), with
torch's default threads; ours is NumPy on one thread. Labels must be equal on every pixel, or the benchmark fails.
"""

from __future__ import annotations

import numpy as np
import torch
from harness import Case, Side, claim, finish, parser, take_turns, versions

from imagesmith.vision.upsample import upsample_labels

CASES = {
    "18 classes, 128x128 to 1080x1920": (18, (128, 128), (1080, 1920), 16),
    "18 classes, 128x128 to 1080x1920, twice as finely cut": (18, (128, 128), (1080, 1920), 8),
    "59 classes, 96x64 to 1920x1080": (59, (96, 64), (1920, 1080), 12),
    "18 classes, 128x128 to 540x960": (18, (128, 128), (540, 960), 16),
}
"""Classes, size of the logits, size of the photograph, and about how many lattice points wide a region is."""


def logits_like_a_network(classes: int, grid_hw: tuple[int, int], detail: int) -> np.ndarray:
    """Make smooth regions about `detail` lattice points wide, with a little noise."""
    random = np.random.default_rng(0)
    coarse = random.normal(0, 4, (1, classes, grid_hw[0] // detail, grid_hw[1] // detail)).astype(np.float32)
    smooth = torch.nn.functional.interpolate(torch.from_numpy(coarse), size=grid_hw, mode="bicubic")[0].numpy()
    return smooth + random.normal(0, 0.05, smooth.shape).astype(np.float32)


def label_every_logit(logits: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    values = torch.from_numpy(logits)[None]
    full = torch.nn.functional.interpolate(values, size=size_hw, mode="bilinear", align_corners=False)
    return full[0].argmax(dim=0).numpy()


def compare(title: str, rounds: int) -> Case:
    classes, grid_hw, size_hw, detail = CASES[title]
    logits = logits_like_a_network(classes, grid_hw, detail)
    wrong = int((upsample_labels(logits, size_hw) != label_every_logit(logits, size_hw)).sum())
    if wrong:
        raise SystemExit(f"{title}: {wrong} pixels differ from torch's labels; the method must be exact.")
    sides = [
        Side("every logit (torch)", lambda: label_every_logit(logits, size_hw)),
        Side("by convexity (NumPy)", lambda: upsample_labels(logits, size_hw)),
    ]
    case = take_turns(title, sides, rounds)
    case.notes["pixels that differ"] = wrong
    claim(case, "exact labels", sides[0].name, sides[1].name)
    return case


def main() -> None:
    options = parser("Exact label upsampling against upsampling every logit.", rounds=9).parse_args()
    cases = [compare(title, options.rounds) for title in CASES]
    finish("upsample", cases, versions("torch"), options.json)


if __name__ == "__main__":
    main()

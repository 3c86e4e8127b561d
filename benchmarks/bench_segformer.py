"""SegFormer-B2 from a 1080p JPEG to one mask per class, against transformers' pipeline; and the network alone.

    python benchmarks/bench_segformer.py [--no-best] [--json PATH]

Random weights at the real size, 18 labels, preprocessing to 512 x 512. Both sides start from the same file and end
with a full-size mask for every class that is in the photograph. The claims are 8 x with exact fp32 and 12 x with
bf16, against the pipeline's default; the ratios to torch.compile, in fp32 and bf16, are printed beside them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import transformers
from harness import Case, claim, finish, parser, take_turns, versions
from real_size import (
    OURS,
    OURS_BF16,
    PEER_BEST,
    PEER_COMPILED,
    PEER_DEFAULT,
    network_sides,
    ours,
    peers,
    pipeline,
    segformer_b2,
    workplace,
    write_photo,
)

import imagesmith


def equal_labels(folder: str, photo: str) -> float:
    """Return the share of the photograph's pixels that both sides give the same label."""
    result = imagesmith.segment(photo, model=folder, engine="openvino", precision="fp32")
    theirs = np.full(result.labels_hw.shape, 255)
    names = list(result.names)
    for row in pipeline("image-segmentation", folder)(photo):
        theirs[np.asarray(row["mask"]) > 0] = names.index(row["label"])
    return float((theirs == result.labels_hw).mean())


def claims(case: Case, best: bool) -> Case:
    if best:
        claim(case, "fp32 over the compiled pipeline", PEER_COMPILED, OURS)
        claim(case, "bf16 over the compiled bf16 pipeline", PEER_BEST, OURS_BF16)
    claim(case, "bf16 over the default", PEER_DEFAULT, OURS_BF16)
    claim(case, "exact fp32 over the default", PEER_DEFAULT, OURS)
    return case


def masks_of(model: Any, photo: str) -> list[Any]:
    result = model(photo)
    return [result.mask(name) for name in result.present()]


def main() -> None:
    options = parser(__doc__.splitlines()[0], rounds=7)
    options.add_argument("--no-best", action="store_true", help="leave out torch.compile, which takes minutes to start")
    chosen = options.parse_args()
    best = not chosen.no_best
    with workplace() as folder:
        photo = str(write_photo(folder / "photo.jpg", 1920, 1080))
        model = segformer_b2(folder / "b2", folder / "photo.jpg")
        sides = [
            *peers("image-segmentation", model, lambda pipe: pipe(photo), best),
            *ours(model, lambda model: masks_of(model, photo)),
        ]
        whole = take_turns("1080p JPEG to per-class masks", sides, chosen.rounds, warmups=2)
        whole.notes["pixels with equal labels, fp32"] = f"{equal_labels(str(model), photo):.5%}"
        values = np.random.default_rng(0).normal(size=(1, 3, 512, 512)).astype(np.float32)
        kind = transformers.SegformerForSemanticSegmentation
        network = take_turns(
            "the network alone, 512 x 512",
            network_sides(model, kind, {"pixel_values": values}, best),
            chosen.rounds,
            warmups=2,
        )
    used = versions("torch", "transformers", "openvino")
    finish("segformer_b2", [claims(network, best), claims(whole, best)], used, chosen.json)


if __name__ == "__main__":
    main()

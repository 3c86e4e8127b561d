"""ViT-B/16 from a photograph to its five best labels, against transformers' pipeline; and the network alone.

    python benchmarks/bench_vit.py [--no-best] [--json PATH]

Random weights at the real size, 1000 labels, 224 x 224. The goal, not reached, is 5 x
against the pipeline's default; fp32 and bf16 are both printed.
"""

from __future__ import annotations

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
    vit_b16,
    workplace,
    write_photo,
)

import imagesmith


def largest_difference(folder: str, photo: str) -> float:
    """Return how far the probabilities of the five best labels are from the pipeline's."""
    theirs = {row["label"]: row["score"] for row in pipeline("image-classification", folder)(photo, top_k=5)}
    result = imagesmith.classify(photo, model=folder, engine="openvino", precision="fp32", top_k=5)
    if set(theirs) != set(result.labels):
        raise SystemExit(f"The five best labels differ: {sorted(theirs)} and {sorted(result.labels)}.")
    return max(abs(theirs[label] - float(score)) for label, score in zip(result.labels, result.scores, strict=True))


def claims(case: Case, best: bool) -> Case:
    if best:
        claim(case, "fp32 over the compiled model", PEER_COMPILED, OURS)
        claim(case, "bf16 over the compiled bf16 model", PEER_BEST, OURS_BF16)
    claim(case, "exact fp32 over the default", PEER_DEFAULT, OURS)
    claim(case, "bf16 over the default", PEER_DEFAULT, OURS_BF16)
    return case


def main() -> None:
    options = parser(__doc__.splitlines()[0], rounds=15)
    options.add_argument("--no-best", action="store_true", help="leave out torch.compile, which takes minutes to start")
    chosen = options.parse_args()
    best = not chosen.no_best
    with workplace() as folder:
        photo = str(write_photo(folder / "photo.jpg", 640, 480))
        model = vit_b16(folder / "vit")
        sides = [
            *peers("image-classification", model, lambda pipe: pipe(photo, top_k=5), best),
            *ours(model, lambda model: model(photo, top_k=5)),
        ]
        whole = take_turns("640 x 480 JPEG to the five best labels", sides, chosen.rounds, warmups=2)
        whole.notes["largest difference of the probabilities, fp32"] = f"{largest_difference(str(model), photo):.1e}"
        values = np.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype(np.float32)
        networks = network_sides(model, transformers.ViTForImageClassification, {"pixel_values": values}, best)
        network = take_turns("the network alone, 224 x 224", networks, chosen.rounds, warmups=2)
    used = versions("torch", "transformers", "openvino")
    finish("vit_b16", [claims(network, best), claims(whole, best)], used, chosen.json)


if __name__ == "__main__":
    main()

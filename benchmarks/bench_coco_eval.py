"""COCO's twelve figures for boxes: ours (numpy) against pycocotools and faster-coco-eval, at equal figures.

    python benchmarks/bench_coco_eval.py [--images 500] [--json PATH]

The data is invented with COCO's proportions: 80 classes of very different frequency, 7 objects per image, 100
detections per image, 1 % crowds. Every side starts from the same parsed lists and ends with the twelve figures. The
claim is 4 x against pycocotools, equal to the last bit; the run fails where the figures differ.
"""

from __future__ import annotations

import contextlib
import copy
import io
from typing import Any

import numpy as np
from harness import Side, claim, finish, parser, take_turns, versions

from imagesmith.evaluation.bootstrap import resample
from imagesmith.evaluation.coco import coco_figures, weighted_figures
from imagesmith.evaluation.matching import match

CLASSES, OBJECTS, DETECTIONS = 80, 7, 100


def invent(images: int, seed: int = 0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Make annotations, and detections of which a third lie near an object of their class."""
    draw = np.random.default_rng(seed)
    frequency = 1 / np.arange(1, CLASSES + 1)
    frequency /= frequency.sum()
    annotations: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for image in range(1, images + 1):
        count = int(draw.poisson(OBJECTS))
        classes = draw.choice(CLASSES, count, p=frequency) + 1
        sides = np.exp(draw.uniform(np.log(10), np.log(300), (count, 2)))
        boxes = np.concatenate([draw.uniform(0, 300, (count, 2)), sides], axis=1)
        for label, box in zip(classes.tolist(), boxes, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": label,
                    "bbox": box.tolist(),
                    "area": float(box[2] * box[3] * 0.7),
                    "iscrowd": int(draw.random() < 0.01),
                }
            )
        for _ in range(DETECTIONS):
            if count and draw.random() < 1 / 3:
                near = int(draw.integers(count))
                label, box = int(classes[near]), boxes[near] + draw.normal(0, 0.1, 4) * np.tile(sides[near], 2)
                box[2:] = np.maximum(np.abs(box[2:]), 1)
            else:
                label = int(draw.choice(CLASSES, p=frequency)) + 1
                box = np.r_[draw.uniform(0, 400, 2), draw.uniform(5, 200, 2)]
            score = float(draw.random())
            found.append({"image_id": image, "category_id": label, "bbox": box.tolist(), "score": score})
    truth = {
        "images": [{"id": image, "width": 640, "height": 480} for image in range(1, images + 1)],
        "annotations": annotations,
        "categories": [{"id": label, "name": f"class {label}"} for label in range(1, CLASSES + 1)],
    }
    return truth, found


def library_side(name: str, api: Any, judge: Any, truth: Any, found: Any, kept: dict[str, np.ndarray]) -> Side:
    """Return pycocotools or faster-coco-eval as a side; both write into their inputs, so each round gets copies."""
    inputs: list[Any] = []

    def prepare() -> None:
        inputs[:] = [copy.deepcopy(truth), copy.deepcopy(found)]

    def run() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            reference = api()
            reference.dataset = inputs[0]
            reference.createIndex()
            evaluation = judge(reference, reference.loadRes(inputs[1]), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        kept[name] = np.asarray(getattr(evaluation, "all_stats", evaluation.stats))[:12]

    return Side(name, run, prepare)


def main() -> None:
    options = parser(__doc__.splitlines()[0], rounds=3)
    options.add_argument("--images", type=int, default=500)
    chosen = options.parse_args()
    from faster_coco_eval import COCO as FasterCoco
    from faster_coco_eval import COCOeval_faster
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, found = invent(chosen.images)
    kept: dict[str, np.ndarray] = {}

    def ours() -> None:
        kept["imagesmith"] = np.nan_to_num(list(coco_figures(match(truth, found)).figures.values()), nan=-1.0)

    sides = [
        library_side("pycocotools", COCO, COCOeval, truth, found, kept),
        library_side("faster-coco-eval", FasterCoco, COCOeval_faster, truth, found, kept),
        Side("imagesmith", ours),
    ]
    case = take_turns(f"{chosen.images} images, {len(found)} detections", sides, chosen.rounds)
    for name in ("imagesmith", "faster-coco-eval"):
        gap = float(np.abs(kept[name] - kept["pycocotools"]).max())
        case.notes[f"largest difference of {name} from pycocotools"] = gap
    if case.notes["largest difference of imagesmith from pycocotools"] != 0:
        raise SystemExit(f"The figures differ from pycocotools': {case.notes}")
    claim(case, "imagesmith over faster-coco-eval", "faster-coco-eval", "imagesmith")
    claim(case, "imagesmith over pycocotools", "pycocotools", "imagesmith")

    matches = match(truth, found)
    again = take_turns(
        "100 resamples for the intervals of all twelve figures",
        [Side("imagesmith", lambda: resample(lambda w: weighted_figures(matches, w), chosen.images, resamples=100))],
        1,
        warmups=0,
    )
    used = versions("pycocotools", "faster-coco-eval")
    finish("coco_eval", [again, case], used, chosen.json)


if __name__ == "__main__":
    main()

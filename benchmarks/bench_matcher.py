"""DETR's matching and loss, forward and backward: ours against transformers' and against the published steps.

    python benchmarks/bench_matcher.py [--json PATH]

Six decoder levels, 100 queries, 80 classes, float32 on the processor with torch's default threads. "published steps"
are those of the DETR paper's code written down plainly: one cost matrix of every query with every object of the
batch per level, one copy to the host and one solver call per level and image. All three must give the same loss.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
from harness import Side, claim, finish, parser, take_turns, versions
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F
from transformers.loss.loss_for_object_detection import ForObjectDetectionLoss

from imagesmith.training.criterion import DetectionLossWeights, detection_loss
from imagesmith.training.matcher import corners, generalized_iou, pad_targets

LEVELS, QUERIES, CLASSES = 6, 100, 80
CASES = [(2, 7), (8, 7), (8, 50), (32, 7)]
"""Pictures in the batch, objects per picture."""


def invent(batch: int, objects: int) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
    """Return logits (L, B, Q, C + 1), boxes (L, B, Q, 4), and per picture labels and boxes of 1 to 2 x objects."""
    torch.manual_seed(0)
    logits = torch.randn(LEVELS, batch, QUERIES, CLASSES + 1)
    boxes = torch.rand(LEVELS, batch, QUERIES, 4) * 0.4 + 0.3
    counts = [int(count) for count in np.random.default_rng(0).integers(1, 2 * objects, batch)]
    labels = [torch.randint(CLASSES, (count,)) for count in counts]
    targets = [torch.rand(count, 4) * 0.4 + 0.3 for count in counts]
    return logits.requires_grad_(), boxes.requires_grad_(), labels, targets


def published_steps(logits: Tensor, boxes: Tensor, labels: list[Tensor], targets: list[Tensor]) -> Tensor:
    """Match and sum the losses level by level and picture by picture."""
    sizes = [len(item) for item in labels]
    all_labels, all_targets = torch.cat(labels), torch.cat(targets)
    weight = torch.ones(CLASSES + 1)
    weight[-1] = 0.1
    total = logits.new_zeros(())
    for level_logits, level_boxes in zip(logits, boxes, strict=True):
        with torch.no_grad():
            flat = level_boxes.flatten(0, 1)
            cost = -level_logits.flatten(0, 1).softmax(-1)[:, all_labels] + 5 * torch.cdist(flat, all_targets, p=1)
            cost -= 2 * generalized_iou(corners(flat)[:, None], corners(all_targets)[None])
            blocks = cost.view(len(labels), QUERIES, -1).cpu().split(sizes, -1)
        wanted = torch.full(level_logits.shape[:2], CLASSES)
        chosen, goals = [], []
        for picture, block in enumerate(blocks):
            queries, objects = linear_sum_assignment(block[picture])
            wanted[picture, queries] = labels[picture][objects]
            chosen.append(level_boxes[picture, queries])
            goals.append(targets[picture][objects])
        found, goal = torch.cat(chosen), torch.cat(goals)
        overlap = torch.diag(generalized_iou(corners(found)[:, None], corners(goal)[None]))
        total = total + F.cross_entropy(level_logits.transpose(1, 2), wanted, weight)
        total = total + (5 * F.l1_loss(found, goal, reduction="none").sum() + 2 * (1 - overlap).sum()) / sum(sizes)
    return total


def transformers_loss(logits: Tensor, boxes: Tensor, labels: list[Tensor], targets: list[Tensor]) -> Tensor:
    """Call the library's own loss, auxiliary levels included."""
    config = SimpleNamespace(
        num_labels=CLASSES,
        class_cost=1,
        bbox_cost=5,
        giou_cost=2,
        eos_coefficient=0.1,
        bbox_loss_coefficient=5,
        giou_loss_coefficient=2,
        auxiliary_loss=True,
        decoder_layers=LEVELS,
    )
    wanted = [{"class_labels": label, "boxes": box} for label, box in zip(labels, targets, strict=True)]
    loss, _, _ = ForObjectDetectionLoss(logits[-1], wanted, logits.device, boxes[-1], config, logits, boxes)
    return loss


def ours(logits: Tensor, boxes: Tensor, labels: list[Tensor], targets: list[Tensor]) -> Tensor:
    names = [str(number) for number in range(len(labels))]
    packed = pad_targets([item.numpy() for item in labels], [item.numpy() for item in targets], names)
    outputs = {"level_logits": logits, "level_boxes": boxes, "logits": logits[-1], "pred_boxes": boxes[-1]}
    return detection_loss(outputs, packed, DetectionLossWeights())["loss"]


Loss = Callable[[Tensor, Tensor, list[Tensor], list[Tensor]], Tensor]
WAYS: dict[str, Loss] = {"transformers": transformers_loss, "published steps": published_steps, "imagesmith": ours}


def main() -> None:
    chosen = parser(__doc__.splitlines()[0], rounds=7).parse_args()
    cases = []
    for batch, objects in CASES:
        inputs = invent(batch, objects)
        losses = {name: float(way(*inputs).detach()) for name, way in WAYS.items()}
        if max(losses.values()) - min(losses.values()) > 1e-4 * max(losses.values()):
            raise SystemExit(f"The losses differ: {losses}")
        sides = [Side(name, lambda way=way, inputs=inputs: way(*inputs).backward()) for name, way in WAYS.items()]
        case = take_turns(f"batch {batch}, about {objects} objects each", sides, chosen.rounds)
        case.notes["loss of each"] = losses
        for other in ("published steps", "transformers"):
            claim(case, f"imagesmith over {other}", other, "imagesmith")
        cases.append(case)
    finish("matcher", cases, versions("torch", "transformers", "scipy"), chosen.json)


if __name__ == "__main__":
    main()

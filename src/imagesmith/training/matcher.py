"""Match predictions to objects, one to one, at the least cost (the Hungarian matching of arXiv 2005.12872).

All decoder levels are matched together: one cost tensor on the device, one copy to the host, one copy back.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from imagesmith.core.errors import BadInput, TrainingFailed


@dataclass(frozen=True)
class DetectionTargets:
    """Hold the objects of a batch, padded to the largest count T.

    `labels` [B, T] class ids from 0, `boxes` [B, T, 4] centre x, centre y, width, height in 0..1 (float32), `counts`
    how many of the T are real in each image, `image_ids` names for messages. `labelled` [B, C] marks the classes
    that were annotated in an image: an unlabelled class may be predicted there without punishment. None means all.
    """

    labels: Tensor
    boxes: Tensor
    counts: tuple[int, ...]
    image_ids: tuple[str, ...]
    labelled: Tensor | None = None

    @property
    def valid(self) -> Tensor:
        """Mark the real objects: [B, T] bool."""
        counts = torch.tensor(self.counts, device=self.labels.device)
        return torch.arange(self.labels.shape[1], device=self.labels.device) < counts[:, None]


def pad_targets(
    labels: Sequence[npt.ArrayLike],
    boxes_cxcywh: Sequence[npt.ArrayLike],
    image_ids: Sequence[str],
    labelled: Sequence[npt.ArrayLike] | None = None,
) -> DetectionTargets:
    """Stack the objects of several images into one padded record.

    >>> pad_targets([[1], []], [[[0.5, 0.5, 1.0, 1.0]], []], ["a", "b"]).valid.tolist()
    [[True], [False]]
    """
    counts = tuple(len(np.atleast_1d(np.asarray(item))) for item in labels)
    width = max(counts, default=0)
    padded_labels = torch.zeros(len(counts), width, dtype=torch.int64)
    padded_boxes = torch.full((len(counts), width, 4), 0.5)
    for i, count in enumerate(counts):
        if count:
            boxes = np.asarray(boxes_cxcywh[i], dtype=np.float32)
            if boxes.shape != (count, 4):
                raise BadInput(f"Image {image_ids[i]} has {count} labels and boxes of shape {boxes.shape}: expected 4.")
            padded_labels[i, :count] = torch.from_numpy(np.asarray(labels[i], dtype=np.int64))
            padded_boxes[i, :count] = torch.from_numpy(boxes)
    marks = None if labelled is None else torch.from_numpy(np.stack([np.asarray(row, dtype=bool) for row in labelled]))
    return DetectionTargets(padded_labels, padded_boxes, counts, tuple(image_ids), marks)


@dataclass(frozen=True)
class MatchCosts:
    """Weigh the three parts of the matching cost; the defaults are the published ones."""

    class_cost: float = 1.0
    bbox_cost: float = 5.0
    giou_cost: float = 2.0


def corners(boxes_cxcywh: Tensor) -> Tensor:
    """Return boxes [..., 4] as left, top, right, bottom."""
    centre, half = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] / 2
    return torch.cat((centre - half, centre + half), dim=-1)


def generalized_iou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """Return the generalised IoU (arXiv 1902.09630) of boxes [..., 4] that broadcast against each other.

    Empty boxes give a finite value: areas are divided by at least a tiny number.
    """
    tiny = torch.finfo(torch.float32).tiny
    a_start, a_end, b_start, b_end = a_xyxy[..., :2], a_xyxy[..., 2:], b_xyxy[..., :2], b_xyxy[..., 2:]
    intersection = (torch.minimum(a_end, b_end) - torch.maximum(a_start, b_start)).clamp(0).prod(-1)
    hull = (torch.maximum(a_end, b_end) - torch.minimum(a_start, b_start)).clamp(0).prod(-1)
    union = (a_end - a_start).prod(-1) + (b_end - b_start).prod(-1) - intersection
    return intersection / union.clamp(tiny) - (hull - union) / hull.clamp(tiny)


@torch.no_grad()
def cost_tensor(logits: Tensor, boxes: Tensor, targets: DetectionTargets, costs: MatchCosts) -> Tensor:
    """Return the cost [L, B, Q, T] of giving a query to an object; padding objects have meaningless costs.

    `logits` [L, B, Q, C + 1] and `boxes` [L, B, Q, 4] may have any float type; the cost is float32.
    """
    levels, _, queries, _ = logits.shape
    probabilities = logits.float().softmax(-1)
    boxes = boxes.float()
    wanted = targets.labels[None, :, None].expand(levels, -1, queries, -1)
    class_cost = -probabilities.gather(-1, wanted)
    target = targets.boxes[None, :, None]  # [1, B, 1, T, 4]
    predicted = boxes[..., None, :]  # [L, B, Q, 1, 4]
    l1 = (predicted - target).abs().sum(-1)
    giou = generalized_iou(corners(predicted), corners(target))
    return costs.class_cost * class_cost + costs.bbox_cost * l1 - costs.giou_cost * giou


@torch.no_grad()
def match(logits: Tensor, boxes: Tensor, targets: DetectionTargets, costs: MatchCosts) -> Tensor:
    """Return the query given to each object, [L, B, T] int64, -1 for padding and for objects beyond the queries.

    Raises TrainingFailed, naming the images, where a prediction is NaN or infinite.
    """
    cost = cost_tensor(logits, boxes, targets, costs)
    finite = torch.isfinite(logits).all(-1) & torch.isfinite(boxes).all(-1)  # [L, B, Q]
    finite_images = finite.all(-1).all(0).float()
    packed = torch.cat((cost.flatten(), finite_images)).cpu().numpy()  # the one copy to the host
    split = packed.size - len(targets.counts)
    bad = np.flatnonzero(packed[split:] == 0)
    if bad.size:
        names = ", ".join(targets.image_ids[i] for i in bad)
        raise TrainingFailed(
            f"The predictions for {names} are not finite: lower the learning rate or clip the gradients more."
        )
    return assign(packed[:split].reshape(tuple(cost.shape)), targets.counts).to(logits.device)


def assign(cost: npt.NDArray[np.float32], counts: Sequence[int]) -> Tensor:
    """Solve every (level, image) block of a cost array [L, B, Q, T]; returns [L, B, T] int64 as `match` does."""
    levels, _, _, width = cost.shape
    query_of_object = np.full((levels, len(counts), width), -1, dtype=np.int64)
    for level in range(levels):
        for image, count in enumerate(counts):
            if count:
                queries, objects = linear_sum_assignment(cost[level, image, :, :count])
                query_of_object[level, image, objects] = queries
    return torch.from_numpy(query_of_object)

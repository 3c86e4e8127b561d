"""DETR's loss: cross-entropy, L1 and generalised IoU over the matched pairs of all decoder levels (arXiv 2005.12872).

Everything is computed for all levels at once and nothing is fetched from the device but the matching's cost.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from imagesmith.core.errors import BadInput
from imagesmith.training.matcher import DetectionTargets, MatchCosts, corners, generalized_iou, match


@dataclass(frozen=True)
class DetectionLossWeights:
    """Weigh the parts of the loss; the defaults are the published ones.

    `eos` is the weight of "no object" inside the cross-entropy.
    """

    classes: float = 1.0
    bbox: float = 5.0
    giou: float = 2.0
    eos: float = 0.1
    costs: MatchCosts = field(default_factory=MatchCosts)


def detection_loss(
    outputs: dict[str, Tensor], targets: DetectionTargets, weights: DetectionLossWeights, query_groups: int = 1
) -> dict[str, Tensor]:
    """Return the losses of a batch as 0-dim tensors: `loss` and its parts, weighted, summed over the levels.

    `outputs` holds `level_logits` [L, B, G * Q, C + 1] and `level_boxes` [L, B, G * Q, 4] of the model run with
    `all_levels=True` (or, without levels, `logits` and `pred_boxes`); each of the G query groups is matched by itself
    and the groups' mean counts. Raises TrainingFailed where a prediction is not finite.
    """
    logits = outputs.get("level_logits", outputs["logits"][None])
    boxes = outputs.get("level_boxes", outputs["pred_boxes"][None])
    if logits.shape[1] != len(targets.counts):
        raise BadInput(f"{logits.shape[1]} images were predicted and {len(targets.counts)} have targets; give as many.")
    logits, boxes = split_groups(logits, query_groups).float(), split_groups(boxes, query_groups).float()
    query_of_object = match(logits, boxes, targets, weights.costs)
    classes = class_losses(logits, query_of_object, targets, weights.eos)
    l1, giou = box_losses(boxes, query_of_object, targets)
    parts = {
        "loss_classes": weights.classes * classes.sum() / query_groups,
        "loss_bbox": weights.bbox * l1.sum() / query_groups,
        "loss_giou": weights.giou * giou.sum() / query_groups,
    }
    return {"loss": sum(parts.values(), torch.zeros((), device=logits.device)), **parts}


def split_groups(levels: Tensor, groups: int) -> Tensor:
    """Turn [L, B, G * Q, K] into [L * G, B, Q, K]: a group of queries is one more level."""
    if groups == 1:
        return levels
    count, batch, queries, width = levels.shape
    split = levels.reshape(count, batch, groups, queries // groups, width)
    return split.transpose(1, 2).reshape(count * groups, batch, queries // groups, width)


def class_losses(logits: Tensor, query_of_object: Tensor, targets: DetectionTargets, eos: float) -> Tensor:
    """Return the weighted cross-entropy of each level, [L].

    A query without an object should say "no object"; in an image where some classes were not annotated it may also
    say one of those: the target is then the union of "no object" and the unlabelled classes.
    """
    levels, batch, queries, width = logits.shape
    no_object = width - 1
    labels = targets.labels[None].expand(levels, -1, -1)
    # One more column takes what has no query, and is cut off.
    slots = torch.where(query_of_object >= 0, query_of_object, queries)
    wanted = torch.full((levels, batch, queries + 1), no_object, dtype=torch.int64, device=logits.device)
    wanted = wanted.scatter(2, slots, labels)[..., :queries]
    log_probabilities = logits.log_softmax(-1)
    chosen = log_probabilities.gather(-1, wanted[..., None])[..., 0]
    empty = wanted == no_object
    if targets.labelled is not None:
        forbidden = F.pad(targets.labelled, (0, 1), value=False)  # [B, C + 1], "no object" is always allowed
        allowed = log_probabilities.masked_fill(forbidden[None, :, None], -torch.inf).logsumexp(-1)
        chosen = torch.where(empty, allowed, chosen)
    weight = torch.where(empty, eos, 1.0)
    return -(weight * chosen).sum((1, 2)) / weight.sum((1, 2))


def box_losses(boxes: Tensor, query_of_object: Tensor, targets: DetectionTargets) -> tuple[Tensor, Tensor]:
    """Return the L1 and the generalised IoU loss of each level, [L] each, divided by the number of boxes."""
    matched = query_of_object >= 0
    predicted = boxes.gather(2, query_of_object.clamp(0)[..., None].expand(-1, -1, -1, 4))
    wanted = targets.boxes[None].expand_as(predicted)
    count = box_count(targets, boxes.device)
    l1 = ((predicted - wanted).abs().sum(-1) * matched).sum((1, 2)) / count
    giou = ((1 - generalized_iou(corners(predicted), corners(wanted))) * matched).sum((1, 2)) / count
    return l1, giou


def box_count(targets: DetectionTargets, device: torch.device) -> Tensor:
    """Return the number of boxes, averaged over the ranks of a distributed run, at least 1, as a 0-dim tensor."""
    count = torch.tensor(float(sum(targets.counts)), device=device)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(count)
        count = count / torch.distributed.get_world_size()
    return count.clamp(1.0)

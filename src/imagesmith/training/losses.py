"""Segmentation and classification losses: pure functions of tensors, no Lightning."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = 255


def class_weights(pixel_counts: Tensor, power: float, largest: float = 10.0) -> Tensor:
    """Return one weight per class, proportional to ``frequency ** -power`` and 1 for the average pixel.

    ``pixel_counts`` is [C]; classes that never occur get weight 1. ``power`` 0 weighs all alike, 1 is inverse
    frequency. No weight exceeds ``largest``.

    >>> class_weights(torch.tensor([9.0, 1.0, 0.0]), power=0.0).tolist()
    [1.0, 1.0, 1.0]
    """
    frequency = pixel_counts.double() / pixel_counts.sum().clamp_min(1)
    occurs = frequency > 0
    raw = torch.where(occurs, frequency.clamp_min(1e-12) ** -power, torch.ones_like(frequency))
    weights = torch.where(occurs, raw / (raw * frequency).sum().clamp_min(1e-12), torch.ones_like(raw))
    return weights.clamp_max(largest).float()


def subsample_labels(labels: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Take the label at the middle of each cell: [B,H,W] -> [B,h,w]."""
    if tuple(labels.shape[1:]) == tuple(size_hw):
        return labels
    return F.interpolate(labels[:, None].float(), size=size_hw, mode="nearest-exact")[:, 0].long()


def cross_entropy_and_jaccard(
    logits: Tensor, labels: Tensor, weights: Tensor | None = None, ignore: int = IGNORE
) -> tuple[Tensor, Tensor]:
    """Return the weighted cross-entropy and the soft Jaccard loss of a batch.

    ``logits`` [B,C,h,w], ``labels`` [B,h,w] with ``ignore`` where a pixel does not count. The Jaccard loss is one
    minus the intersection over union of probabilities and labels, taken over the whole batch and averaged over the
    classes that occur in it: it pulls at small classes as strongly as at large ones, as mIoU does. Both are 0 where
    no pixel counts.
    """
    classes = logits.shape[1]
    counted = labels != ignore
    target = torch.where(counted, labels, 0)
    log_probability = F.log_softmax(logits.float(), dim=1)
    of_label = log_probability.gather(1, target[:, None])[:, 0]
    pixel_weight = counted.to(of_label.dtype)
    entropy_weight = pixel_weight if weights is None else pixel_weight * weights[target]
    cross_entropy = -(of_label * entropy_weight).sum() / entropy_weight.sum().clamp_min(1e-6)
    probability = log_probability.exp()
    flat_target, flat_weight = target.flatten(), pixel_weight.flatten()
    empty = torch.zeros(classes, dtype=of_label.dtype, device=logits.device)
    labelled = empty.index_add(0, flat_target, flat_weight)
    intersection = empty.index_add(0, flat_target, of_label.exp().flatten() * flat_weight)
    predicted = (probability * pixel_weight[:, None]).sum(dim=(0, 2, 3))
    overlap = intersection / (labelled + predicted - intersection).clamp_min(1e-6)
    occurs = (labelled > 0).to(overlap.dtype)
    jaccard = ((1 - overlap) * occurs).sum() / occurs.sum().clamp_min(1)
    return cross_entropy, jaccard

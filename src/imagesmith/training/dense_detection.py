"""What only the training of a DETR from scratch needs: a dense helper, and queries that start at places.

DETR alone has few positive examples and learns slowly from scratch. The dense helper sits on the encoder's memory
during training only: every cell says what covers it, and its box. It teaches the backbone and the encoder to name what
is there and to know where it lies, so that the decoder only has to look it up. Idea of dense supervision after FCOS
(arXiv 1904.01355); inference has no part of it.
"""

import dataclasses
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imagesmith.nn.detr import Detr, DetrConfig
from imagesmith.training.matcher import DetectionTargets, corners, generalized_iou

# The middle part of a box whose cells must name the object; the ring around it may do as it likes.
CORE = 0.6
FOCAL_ALPHA, FOCAL_GAMMA = 0.35, 2.0


QUERY_SHARPNESS = 1.5
"""Length of a query's starting position against a cell's, so that it looks at one place."""


class TrainableDetr(Detr):
    """A DETR with what is dropped after training: the dense helper and the further query groups."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__(config)
        self.dense_head = DenseHead(config.d_model, config.num_labels)
        place_queries(self)

    def finished(self) -> Detr:
        """Return the network to keep, sharing this one's weights."""
        config = dataclasses.replace(self.config, query_groups=1)
        state = {name: value for name, value in self.state_dict().items() if not name.startswith("dense_head.")}
        queries = "query_position_embeddings.weight"
        state[queries] = state[queries][: config.num_queries]
        with torch.device("meta"):
            detr = Detr(config)
        detr.load_state_dict(state, assign=True)
        return detr.train(self.training)


@torch.no_grad()
def place_queries(detr: Detr) -> None:
    """Start every query at its own place: its code is that of a point, and it is compared with the cells' codes.

    From random queries the decoder looks everywhere at once and takes thousands of steps to learn to look at one
    place. This only chooses the starting values; the network is the published one.
    """
    queries, width = detr.query_position_embeddings.weight.shape
    points = torch.rand(queries, 2) * 0.9 + 0.05  # y, x
    steps = torch.arange(width // 4, dtype=torch.float32)
    wavelengths = 10000.0 ** (2 * steps / (width // 2))
    angles = points[..., None] * (2 * math.pi) / wavelengths  # [Q, 2, width / 4]
    codes = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)
    detr.query_position_embeddings.weight.copy_(codes * QUERY_SHARPNESS)
    for layer in detr.decoder.layers:
        layer.encoder_attn.q_proj.weight.copy_(layer.encoder_attn.k_proj.weight)


class DenseHead(nn.Module):
    """Two linear layers from memory [B, N, D] to class logits [B, N, C] and boxes [B, N, C, 4] (0..1, centre form)."""

    def __init__(self, d_model: int, num_labels: int) -> None:
        super().__init__()
        self.num_labels = num_labels
        self.hidden = nn.Linear(d_model, d_model)
        self.classes = nn.Linear(d_model, num_labels)
        self.boxes = nn.Linear(d_model, 4 * num_labels)
        nn.init.constant_(self.classes.bias, -4.0)  # objects are rare at first

    def forward(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        hidden = F.relu(self.hidden(memory))
        return self.classes(hidden), self.boxes(hidden).unflatten(-1, (self.num_labels, 4)).sigmoid()


def cell_centres(height: int, width: int) -> Tensor:
    """Return the centres of the cells of a feature map, [H * W, 2] as x, y in 0..1.

    >>> cell_centres(1, 2).tolist()
    [[0.25, 0.5], [0.75, 0.5]]
    """
    x, y = (torch.arange(width) + 0.5) / width, (torch.arange(height) + 0.5) / height
    return torch.stack((x.repeat(height), y.repeat_interleave(width)), dim=-1)


def dense_targets(targets: DetectionTargets, centres: Tensor, num_labels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return what each cell should say: objects [B, N, C] (index or -1), positive [B, N, C], counted [B, N, C].

    A cell belongs to the smallest object of a class whose core it lies in; the cell nearest to a small object's
    centre always does. Cells in the ring of a box, and classes that were not annotated, are not counted.
    """
    boxes, valid = targets.boxes, targets.valid  # [B, T, 4], [B, T]
    offset = (centres[None, :, None] - boxes[:, None, :, :2]).abs()  # [B, N, T, 2]
    half = boxes[:, None, :, 2:] / 2
    inside = (offset <= half).all(-1) & valid[:, None]
    nearest = offset.square().sum(-1).argmin(1)  # [B, T]
    core = (offset <= CORE * half).all(-1) & valid[:, None]
    core |= F.one_hot(nearest, centres.shape[0]).transpose(1, 2).bool() & valid[:, None]
    of_class = F.one_hot(targets.labels, num_labels).bool()[:, None]  # [B, 1, T, C]
    area = (boxes[..., 2] * boxes[..., 3])[:, None].expand(core.shape)
    ranked = torch.where(core, area, torch.inf)[..., None].masked_fill(~of_class, torch.inf)  # [B, N, T, C]
    smallest, objects = ranked.min(2)
    positive = torch.isfinite(smallest)
    covered = (inside[..., None] & of_class).any(2)
    counted = positive | ~covered
    if targets.labelled is not None:
        counted = counted & (targets.labelled[:, None] | positive)
    return objects, positive, counted


def dense_loss(head: DenseHead, memory: Tensor, size_hw: tuple[int, int], targets: DetectionTargets) -> Tensor:
    """Return the focal and box loss of the dense head on `memory` [B, H * W, D] of a feature map of ``size_hw``."""
    logits, boxes = head(memory)
    logits, boxes = logits.float(), boxes.float()
    if targets.labels.shape[1] == 0:
        return focal_loss(logits, torch.zeros_like(logits)).sum() / max(1, logits.shape[0])
    centres = cell_centres(*size_hw).to(memory.device)
    objects, positive, counted = dense_targets(targets, centres, head.num_labels)
    count = positive.sum().clamp(1)
    classes = (focal_loss(logits, positive.float()) * counted).sum() / count
    wanted_all = targets.boxes[:, None].expand(-1, centres.shape[0], -1, -1)
    wanted = wanted_all.gather(2, objects[..., None].expand(-1, -1, -1, 4))[positive]
    predicted = boxes[positive]
    # Each class counts alike, or the person, who covers most cells, drowns the shoes.
    share = positive.sum((0, 1)).clamp(1).float().reciprocal()
    weight = share.expand_as(positive)[positive]
    weight = weight / weight.sum().clamp(1e-6)
    l1 = ((predicted - wanted).abs().sum(-1) * weight).sum()
    giou = ((1 - generalized_iou(corners(predicted), corners(wanted))) * weight).sum()
    return 2 * classes + 5 * l1 + 2 * giou


def focal_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """Return the focal loss (arXiv 1708.02002) of each logit against 0 or 1."""
    loss = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    probability = logits.sigmoid()
    correct = probability * wanted + (1 - probability) * (1 - wanted)
    alpha = FOCAL_ALPHA * wanted + (1 - FOCAL_ALPHA) * (1 - wanted)
    return alpha * (1 - correct) ** FOCAL_GAMMA * loss

"""DETR's loss against a slow implementation of the paper and against transformers; partial labels; groups; ranks."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from imagesmith.core.errors import BadInput
from imagesmith.training.criterion import (
    DetectionLossWeights,
    box_count,
    class_losses,
    detection_loss,
    split_groups,
)
from imagesmith.training.matcher import DetectionTargets, MatchCosts, match, pad_targets

CLASSES = 4


def _boxes(count: int, rng: np.random.Generator) -> np.ndarray:
    return np.concatenate([rng.uniform(0.2, 0.8, (count, 2)), rng.uniform(0.05, 0.4, (count, 2))], 1).astype(np.float32)


def _targets(counts: list[int], seed: int = 0) -> DetectionTargets:
    rng = np.random.default_rng(seed)
    labels = [rng.integers(0, CLASSES, count) for count in counts]
    return pad_targets(labels, [_boxes(count, rng) for count in counts], [f"image {i}" for i in range(len(counts))])


def _outputs(levels: int, batch: int, queries: int, seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    logits = torch.randn(levels, batch, queries, CLASSES + 1, requires_grad=True)
    boxes = (torch.rand(levels, batch, queries, 4) * 0.5 + 0.2).requires_grad_()
    return {"level_logits": logits, "level_boxes": boxes, "logits": logits[-1], "pred_boxes": boxes[-1]}


def _slow_giou(a: Tensor, b: Tensor) -> Tensor:
    a0, a1, b0, b1 = a[:2] - a[2:] / 2, a[:2] + a[2:] / 2, b[:2] - b[2:] / 2, b[:2] + b[2:] / 2
    inter = (torch.min(a1, b1) - torch.max(a0, b0)).clamp(min=0).prod()
    union = (a1 - a0).prod() + (b1 - b0).prod() - inter
    hull = (torch.max(a1, b1) - torch.min(a0, b0)).prod()
    return inter / union - (hull - union) / hull


def slow_loss(outputs: dict[str, Tensor], targets: DetectionTargets, weights: DetectionLossWeights) -> Tensor:
    """The published loss, one level, one image and one pair at a time."""
    logits, boxes = outputs["level_logits"], outputs["level_boxes"]
    count = max(1, sum(targets.counts))
    total = torch.zeros(())
    for level in range(logits.shape[0]):
        chosen = match(logits[level : level + 1], boxes[level : level + 1], targets, weights.costs)[0]
        entropy, weight_sum = torch.zeros(()), 0.0
        for image, objects in enumerate(targets.counts):
            label_of_query = {int(chosen[image, t]): int(targets.labels[image, t]) for t in range(objects)}
            for query in range(logits.shape[2]):
                label = label_of_query.get(query, CLASSES)
                weight = weights.eos if label == CLASSES else 1.0
                entropy = entropy - weight * logits[level, image, query].log_softmax(-1)[label]
                weight_sum += weight
            for t in range(objects):
                if (query := int(chosen[image, t])) < 0:
                    continue
                box, target = boxes[level, image, query], targets.boxes[image, t]
                total = total + weights.bbox * (box - target).abs().sum() / count
                total = total + weights.giou * (1 - _slow_giou(box, target)) / count
        total = total + weights.classes * entropy / weight_sum
    return total


@pytest.mark.parametrize("counts", [[3, 1], [0, 5], [0, 0], [9, 2]], ids=str)
def test_loss_and_gradients_equal_the_published_ones(counts: list[int]) -> None:
    targets, weights = _targets(counts), DetectionLossWeights(classes=1.3, bbox=4, giou=3, eos=0.2)
    fast, slow = _outputs(3, 2, 6), _outputs(3, 2, 6)
    found, expected = detection_loss(fast, targets, weights)["loss"], slow_loss(slow, targets, weights)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    found.backward()
    expected.backward()
    for name in ("level_logits", "level_boxes"):
        wanted = slow[name].grad if slow[name].grad is not None else torch.zeros_like(slow[name])
        assert torch.allclose(fast[name].grad, wanted, atol=1e-6)


def test_each_part_equals_that_of_transformers() -> None:
    peer = pytest.importorskip("transformers.loss.loss_for_object_detection")
    targets, outputs = _targets([4, 2]), _outputs(1, 2, 12)
    found = detection_loss(outputs, targets, DetectionLossWeights())
    criterion = peer.ImageLoss(
        matcher=peer.HungarianMatcher(class_cost=1, bbox_cost=5, giou_cost=2), num_classes=CLASSES, eos_coef=0.1,
        losses=["labels", "boxes"],
    )  # fmt: skip
    listed = [
        {"class_labels": targets.labels[i, :n], "boxes": targets.boxes[i, :n]} for i, n in enumerate(targets.counts)
    ]
    expected = criterion({"logits": outputs["logits"], "pred_boxes": outputs["pred_boxes"]}, listed)
    assert found["loss_classes"].item() == pytest.approx(expected["loss_ce"].item(), rel=1e-5)
    assert found["loss_bbox"].item() == pytest.approx(5 * expected["loss_bbox"].item(), rel=1e-5)
    assert found["loss_giou"].item() == pytest.approx(2 * expected["loss_giou"].item(), rel=1e-5)


def test_a_perfect_prediction_costs_almost_nothing_and_a_moved_one_more() -> None:
    targets = _targets([2, 1])
    logits = torch.full((1, 2, 5, CLASSES + 1), -20.0)
    logits[..., CLASSES] = 20
    boxes = torch.full((1, 2, 5, 4), 0.5)
    for image, count in enumerate(targets.counts):
        for t in range(count):
            logits[0, image, t] = -20
            logits[0, image, t, targets.labels[image, t]] = 20
            boxes[0, image, t] = targets.boxes[image, t]
    perfect = {"logits": logits[0], "pred_boxes": boxes[0]}
    assert detection_loss(perfect, targets, DetectionLossWeights())["loss"].item() < 1e-4
    moved = {"logits": logits[0], "pred_boxes": boxes[0] + 0.1}
    assert detection_loss(moved, targets, DetectionLossWeights())["loss"].item() > 1


def test_classes_that_were_not_annotated_may_be_predicted_freely() -> None:
    """Not "no object": the empty queries of a photograph whose garments nobody drew may say garment."""
    labelled = torch.tensor([[True, False, False, True]])
    full = pad_targets([[]], [[]], ["a"])
    partial = DetectionTargets(full.labels, full.boxes, full.counts, full.image_ids, labelled)
    nothing = torch.full((1, 1, 0), -1, dtype=torch.int64)
    says_garment, says_person = torch.zeros(1, 1, 1, 5), torch.zeros(1, 1, 1, 5)
    says_garment[..., 1], says_person[..., 0] = 9, 9
    assert class_losses(says_garment, nothing, partial, 0.1).item() < 0.01
    assert class_losses(says_person, nothing, partial, 0.1).item() > 5
    assert class_losses(says_garment, nothing, full, 0.1).item() > 5  # control: annotated, so it is wrong
    # By hand: -log(p(no object) + p(1) + p(2)) of even odds over five.
    even = class_losses(torch.zeros(1, 1, 1, 5), nothing, partial, 0.1).item()
    assert even == pytest.approx(-math.log(3 / 5), rel=1e-5)


def test_unlabelled_marks_change_nothing_where_all_classes_were_annotated() -> None:
    targets, outputs = _targets([3, 1]), _outputs(2, 2, 6)
    marked = DetectionTargets(
        targets.labels, targets.boxes, targets.counts, targets.image_ids, torch.ones(2, CLASSES, dtype=torch.bool)
    )
    plain, same = (detection_loss(outputs, t, DetectionLossWeights())["loss"] for t in (targets, marked))
    assert plain.item() == pytest.approx(same.item(), rel=1e-6)


def test_query_groups_are_matched_apart_and_averaged() -> None:
    targets, outputs = _targets([3, 1]), _outputs(2, 2, 12)
    found = detection_loss(outputs, targets, DetectionLossWeights(), query_groups=3)["loss"]
    apart = []
    for group in range(3):
        part = {name: value[..., group * 4 : group * 4 + 4, :] for name, value in outputs.items()}
        apart.append(detection_loss(part, targets, DetectionLossWeights())["loss"])
    assert found.item() == pytest.approx(torch.stack(apart).mean().item(), rel=1e-5)
    assert split_groups(torch.arange(24.0).reshape(1, 2, 6, 2), 3).shape == (3, 2, 2, 2)


def test_a_batch_of_another_size_than_its_targets_is_refused() -> None:
    with pytest.raises(BadInput, match="2 images were predicted and 3"):
        detection_loss(_outputs(1, 2, 4), _targets([1, 1, 1]), DetectionLossWeights())


def test_the_costs_of_the_matching_are_used() -> None:
    targets, outputs = _targets([3, 2]), _outputs(1, 2, 8)
    only_class = DetectionLossWeights(costs=MatchCosts(1, 0, 0))
    usual = detection_loss(outputs, targets, DetectionLossWeights())
    assert detection_loss(outputs, targets, only_class)["loss_bbox"] > usual["loss_bbox"]


def _rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    count = box_count(_targets([[1, 2], [6]][rank]), torch.device("cpu"))
    Path(folder, f"{rank}.txt").write_text(str(count.item()), encoding="utf-8")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_boxes_are_counted_over_all_ranks(tmp_path: Path) -> None:
    """The mean count over two ranks, so that averaged gradients equal those of the joined batch."""
    torch.multiprocessing.spawn(_rank, args=(str(tmp_path),), nprocs=2)
    assert [(tmp_path / f"{rank}.txt").read_text(encoding="utf-8") for rank in (0, 1)] == ["4.5", "4.5"]
    assert box_count(_targets([1, 2]), torch.device("cpu")).item() == 3
    assert box_count(_targets([0]), torch.device("cpu")).item() == 1

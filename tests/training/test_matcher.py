"""The matcher against a slow implementation of the published algorithm, and what it must survive."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from imagesmith.core.errors import BadInput, TrainingFailed
from imagesmith.training.matcher import (
    DetectionTargets,
    MatchCosts,
    assign,
    corners,
    cost_tensor,
    generalized_iou,
    match,
    pad_targets,
)


def random_boxes(count: int, rng: np.random.Generator) -> np.ndarray:
    centre, size = rng.uniform(0.2, 0.8, (count, 2)), rng.uniform(0.05, 0.4, (count, 2))
    return np.concatenate([centre, size], axis=1).astype(np.float32)


def random_targets(counts: list[int], classes: int, rng: np.random.Generator) -> DetectionTargets:
    labels = [rng.integers(0, classes, count) for count in counts]
    return pad_targets(labels, [random_boxes(n, rng) for n in counts], [f"image {i}" for i in range(len(counts))])


def slow_giou(a: np.ndarray, b: np.ndarray) -> float:
    """Generalised IoU of two boxes in centre form, from its definition, one pair at a time."""
    ax0, ay0, ax1, ay1 = a[0] - a[2] / 2, a[1] - a[3] / 2, a[0] + a[2] / 2, a[1] + a[3] / 2
    bx0, by0, bx1, by1 = b[0] - b[2] / 2, b[1] - b[3] / 2, b[0] + b[2] / 2, b[1] + b[3] / 2
    inter = max(0.0, min(ax1, bx1) - max(ax0, bx0)) * max(0.0, min(ay1, by1) - max(ay0, by0))
    union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - inter
    hull = (max(ax1, bx1) - min(ax0, bx0)) * (max(ay1, by1) - min(ay0, by0))
    return float(inter / union - (hull - union) / hull)


def slow_cost(logits: np.ndarray, box: np.ndarray, label: int, target: np.ndarray, costs: MatchCosts) -> float:
    shifted = np.exp(logits.astype(np.float64) - logits.max())
    probability = shifted[label] / shifted.sum()
    distance = np.abs(box.astype(np.float64) - target).sum()
    giou = slow_giou(box.astype(np.float64), target.astype(np.float64))
    return float(-costs.class_cost * probability + costs.bbox_cost * distance - costs.giou_cost * giou)


def best_total(cost: np.ndarray) -> float:
    """The least total cost of a one-to-one assignment, by trying all of them."""
    queries, objects = cost.shape
    if objects <= queries:
        return min(sum(cost[q, t] for t, q in enumerate(p)) for p in itertools.permutations(range(queries), objects))
    return best_total(cost.T)


@pytest.mark.parametrize("counts", [[3, 1], [0, 4], [6, 2], [0, 0]], ids=str)
def test_costs_and_assignments_equal_the_published_algorithm_by_brute_force(counts: list[int]) -> None:
    rng = np.random.default_rng(len(counts) + sum(counts))
    levels, queries, classes, costs = 2, 5, 3, MatchCosts(1.5, 4.0, 2.5)
    logits = torch.from_numpy(rng.normal(size=(levels, len(counts), queries, classes + 1)).astype(np.float32))
    boxes = torch.from_numpy(random_boxes(levels * len(counts) * queries, rng)).reshape(levels, -1, queries, 4)
    targets = random_targets(counts, classes, rng)
    chosen = match(logits, boxes, targets, costs)
    fast = cost_tensor(logits, boxes, targets, costs)
    assert chosen.shape == (levels, len(counts), max(counts))
    for level, image in itertools.product(range(levels), range(len(counts))):
        count = counts[image]
        slow = np.array(
            [[slow_cost(logits[level, image, q].numpy(), boxes[level, image, q].numpy(), int(targets.labels[image, t]),
                        targets.boxes[image, t].numpy(), costs) for t in range(count)] for q in range(queries)]
        ).reshape(queries, count)  # fmt: skip
        assert np.allclose(fast[level, image, :, :count].numpy(), slow, atol=1e-5)
        mine = chosen[level, image]
        given = [(int(q), t) for t, q in enumerate(mine[:count]) if q >= 0]
        assert len(given) == min(count, queries)
        assert len({q for q, _ in given}) == len(given)  # one to one
        assert (mine[count:] == -1).all()  # padding gets nothing
        if count:
            assert sum(slow[q, t] for q, t in given) == pytest.approx(best_total(slow), abs=1e-4)


def test_matching_equals_that_of_transformers() -> None:
    peer_module = pytest.importorskip("transformers.loss.loss_for_object_detection")
    rng = np.random.default_rng(3)
    targets = random_targets([4, 7, 1], 5, rng)
    logits, boxes = torch.randn(3, 20, 6), torch.from_numpy(random_boxes(60, rng)).reshape(3, 20, 4)
    peer = peer_module.HungarianMatcher(class_cost=1, bbox_cost=5, giou_cost=2)
    listed = [
        {"class_labels": targets.labels[i, :n], "boxes": targets.boxes[i, :n]} for i, n in enumerate(targets.counts)
    ]
    expected = peer({"logits": logits, "pred_boxes": boxes}, listed)
    found = match(logits[None], boxes[None], targets, MatchCosts())[0]
    for image, (queries, objects) in enumerate(expected):
        assert found[image][objects].tolist() == queries.tolist()


def test_ties_give_a_valid_assignment_every_time() -> None:
    cost = np.zeros((1, 1, 4, 3), dtype=np.float32)
    first = assign(cost, (3,))
    assert sorted(first[0, 0].tolist()) == sorted(set(first[0, 0].tolist()))
    assert torch.equal(first, assign(cost, (3,)))


def test_more_objects_than_queries_leaves_the_dearest_without_one() -> None:
    cost = np.array([[[[1.0, 9.0, 2.0], [3.0, 9.0, 1.0]]]], dtype=np.float32)
    assert assign(cost, (3,))[0, 0].tolist() == [0, -1, 1]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["logits", "boxes"])
def test_what_is_not_finite_is_raised_with_the_image_named(value: float, where: str) -> None:
    targets = random_targets([2, 0, 1], 3, np.random.default_rng(0))
    logits, boxes = torch.randn(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    match(logits, boxes, targets, MatchCosts())  # control: fine as it is
    (logits if where == "logits" else boxes)[1, 1, 2, 0] = value  # in an image without objects
    with pytest.raises(TrainingFailed, match="image 1 are not finite"):
        match(logits, boxes, targets, MatchCosts())


def test_one_copy_to_the_host_and_one_back(monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[tuple[int, ...]] = []
    original = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: copies.append(tuple(self.shape)) or original(self))
    targets = random_targets([2, 3, 1], 3, np.random.default_rng(0))
    match(torch.randn(6, 3, 10, 4), torch.rand(6, 3, 10, 4), targets, MatchCosts())
    assert len(copies) == 1


def test_half_precision_predictions_are_matched_in_single() -> None:
    targets = random_targets([3], 3, np.random.default_rng(0))
    logits, boxes = torch.randn(1, 1, 6, 4).bfloat16(), torch.rand(1, 1, 6, 4).bfloat16()
    assert cost_tensor(logits, boxes, targets, MatchCosts()).dtype == torch.float32
    assert torch.equal(
        match(logits, boxes, targets, MatchCosts()), match(logits.float(), boxes.float(), targets, MatchCosts())
    )


def test_generalized_iou_of_empty_boxes_is_finite_and_of_equal_boxes_one() -> None:
    empty = torch.zeros(1, 4)
    box = corners(torch.tensor([[0.5, 0.5, 0.2, 0.4]]))
    assert torch.isfinite(generalized_iou(empty, empty)).all()
    assert generalized_iou(box, box).item() == pytest.approx(1.0, abs=1e-6)
    apart = corners(torch.tensor([[0.9, 0.5, 0.1, 0.1]]))
    assert generalized_iou(box, apart).item() < 0


def test_targets_with_the_wrong_shape_are_refused() -> None:
    with pytest.raises(BadInput, match="photo 7"):
        pad_targets([[1, 2]], [[[0.5, 0.5, 1.0]]], ["photo 7"])

"""Losses against values worked out by hand and against slow, obvious versions."""

import math

import pytest
import torch
import torch.nn.functional as F

from imagesmith.training.losses import class_weights, cross_entropy_and_jaccard, subsample_labels


def slow_losses(
    logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None, ignore: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute both losses with one-hot masks, one class at a time."""
    classes = logits.shape[1]
    cross_entropy = F.cross_entropy(logits, labels, weights, ignore_index=ignore)
    probability = logits.softmax(dim=1)
    counted = labels != ignore
    terms = []
    for label in range(classes):
        truth = (labels == label) & counted
        if not truth.any():
            continue
        p = probability[:, label] * counted
        intersection = (p * truth).sum()
        terms.append(1 - intersection / (p.sum() + truth.sum() - intersection))
    return cross_entropy, torch.stack(terms).mean()


@pytest.mark.parametrize("weighted", [False, True])
def test_equals_the_slow_version_with_gradients(weighted: bool) -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 5, 6, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 4, (3, 6, 4))
    labels[0, :2] = 255
    weights = torch.tensor([0.5, 1.0, 2.0, 3.0, 1.0], dtype=torch.float64) if weighted else None
    fast = cross_entropy_and_jaccard(logits, labels, weights)
    slow = slow_losses(logits, labels, weights, 255)
    for ours, expected in zip(fast, slow, strict=True):
        assert torch.allclose(ours.double(), expected, atol=1e-6)
        (gradient,) = torch.autograd.grad(ours, logits, retain_graph=True)
        (reference,) = torch.autograd.grad(expected, logits, retain_graph=True)
        assert torch.allclose(gradient, reference, atol=1e-6)


def test_by_hand() -> None:
    # Two pixels, two classes, probabilities 3/4 and 1/4 for the right class of the first, 1/2 each for the second.
    logits = torch.tensor([[[[math.log(3.0), 0.0]], [[0.0, 0.0]]]])
    labels = torch.tensor([[[0, 1]]])
    cross_entropy, jaccard = cross_entropy_and_jaccard(logits, labels)
    assert cross_entropy.item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    # Class 0: 3/4 of (1 + 5/4 - 3/4); class 1: 1/2 of (1 + 3/4 - 1/2).
    assert jaccard.item() == pytest.approx(1 - (0.75 / 1.5 + 0.5 / 1.25) / 2)


def test_perfect_and_ignored_answers_cost_nothing() -> None:
    labels = torch.randint(0, 3, (1, 4, 4))
    logits = 50.0 * F.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    assert max(value.item() for value in cross_entropy_and_jaccard(logits, labels)) < 1e-5
    nothing = torch.full((1, 4, 4), 255)
    wild = torch.randn(1, 3, 4, 4, requires_grad=True)
    losses = cross_entropy_and_jaccard(wild, nothing)
    assert [value.item() for value in losses] == [0.0, 0.0]
    sum(losses).backward()
    assert bool(wild.grad.isfinite().all())


def test_class_weights_average_to_one_over_pixels() -> None:
    counts = torch.tensor([900, 90, 10, 0])
    for power in (0.0, 0.3, 1.0):
        weights = class_weights(counts, power, largest=1e9)
        assert float((weights[:3] * counts[:3] / 1000).sum()) == pytest.approx(1, abs=1e-5)
        assert weights[3] == 1
    inverse = class_weights(counts, 1.0, largest=1e9)
    assert float(inverse[2] / inverse[0]) == pytest.approx(90, rel=1e-4)
    assert class_weights(counts, 1.0, largest=5).max() == 5


def test_subsampling_takes_the_middle_of_each_cell() -> None:
    labels = torch.arange(48).reshape(1, 8, 6)
    assert subsample_labels(labels, (8, 6)) is labels
    assert subsample_labels(labels, (2, 2)).tolist() == [[[13, 16], [37, 40]]]

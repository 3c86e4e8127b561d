"""Figures against hand-made counts, scipy's rank test and slow exact loops."""

from __future__ import annotations

import numpy as np
import pytest

from imagesmith.core.errors import BadInput
from imagesmith.evaluation.metrics import (
    auc,
    calibration,
    calibration_error,
    class_counts,
    class_table,
    confusion,
    mean_auc,
    segmentation_figures,
)

# True and predicted labels of one small picture, and what follows by hand.
TRUTH = np.array([[0, 0, 0, 1], [1, 1, 2, 255]])
GUESS = np.array([[0, 0, 1, 1], [1, 255, 0, 2]])


def test_confusion_by_hand():
    assert confusion(TRUTH, GUESS, 4).tolist() == [[2, 1, 0, 0, 0], [0, 2, 0, 0, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]]


def test_figures_by_hand():
    figures = segmentation_figures(class_counts(confusion(TRUTH, GUESS, 4)))
    # background 2 / (2 hits + 1 false alarm + 1 miss), class 1: 2 / (2 + 1 + 1), class 2: 0; class 3 does not occur
    assert figures["mean_iou"] == pytest.approx((0.5 + 0.5 + 0) / 3)
    assert figures["foreground_mean_iou"] == pytest.approx(0.25)
    assert figures["pixel_accuracy"] == pytest.approx(4 / 7)
    assert figures["classes"] == 3


def test_an_unsure_pixel_is_wrong_not_dropped():
    """The published bug: pixels vanish where the prediction is the ignore value, and the figure rises."""
    truth = np.array([1, 1, 1, 1])
    guess = np.array([1, 1, 255, 255])
    figures = segmentation_figures(class_counts(confusion(truth, guess, 2)))
    assert figures["mean_iou"] == 0.5
    dropped = segmentation_figures(class_counts(confusion(truth[guess != 255], guess[guess != 255], 2)))
    assert dropped["mean_iou"] == 1.0, "the control: dropping them does raise the figure"


def test_an_ignored_pixel_counts_nowhere_whatever_was_predicted():
    for guess in range(4):
        assert confusion(np.array([255, 0]), np.array([guess, 0]), 4).sum() == 1


def test_a_predicted_class_that_does_not_occur_is_no_class_of_the_mean_but_its_pixels_are_missed():
    figures = segmentation_figures(class_counts(confusion(np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1]), 3)))
    assert figures["classes"] == 2
    assert figures["mean_iou"] == pytest.approx((0.5 + 1) / 2)


def test_confusion_equals_a_slow_count():
    draw = np.random.default_rng(0)
    truth, guess = draw.integers(0, 6, (2, 40, 30))
    truth[draw.random(truth.shape) < 0.1] = 255
    guess[draw.random(guess.shape) < 0.1] = 200
    slow = np.zeros((6, 7), dtype=int)
    for true, seen in zip(truth.ravel(), guess.ravel(), strict=True):
        if true != 255:
            slow[true, min(seen, 6)] += 1
    assert np.array_equal(confusion(truth.astype(np.uint8), guess.astype(np.uint8), 6), slow)


def test_a_true_label_outside_the_classes_is_refused():
    with pytest.raises(BadInput, match="Label 7 is outside the 3 classes"):
        confusion(np.array([7]), np.array([0]), 3)
    with pytest.raises(BadInput, match="one shape"):
        confusion(np.zeros((2, 2), int), np.zeros((2, 3), int), 3)


def test_class_table_by_hand():
    rows = {row["label"]: row for row in class_table(confusion(TRUTH, GUESS, 4), ("ground", "a", "b", "c"))}
    assert set(rows) == {"ground", "a", "b"}
    assert rows["a"] == {
        "label": "a",
        "iou": 0.5,
        "precision": pytest.approx(2 / 3),
        "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(2 / 3),
        "share": pytest.approx(3 / 7),
        "count": 3,
    }
    assert rows["b"]["precision"] is None
    assert rows["b"]["recall"] == 0


def test_figures_of_many_resamples_equal_one_by_one():
    draw = np.random.default_rng(1)
    counts = draw.integers(0, 50, (12, 5, 3)) * (draw.random((12, 5, 1)) < 0.5)
    weights = draw.integers(0, 3, (7, 12))
    together = segmentation_figures(np.tensordot(weights, counts, axes=1))
    for row, weight in enumerate(weights):
        alone = segmentation_figures(np.repeat(counts, weight, axis=0).sum(axis=0))
        for name, value in alone.items():
            np.testing.assert_array_equal(together[name][row], value)


def test_auc_equals_scipys_rank_test_with_ties():
    stats = pytest.importorskip("scipy.stats")
    draw = np.random.default_rng(2)
    scores = np.round(draw.random(200), 1)
    positive = draw.random(200) < 0.3 + 0.4 * scores
    expected = stats.mannwhitneyu(scores[positive], scores[~positive]).statistic
    assert auc(scores, positive) == pytest.approx(expected / (positive.sum() * (~positive).sum()), abs=1e-14)


def test_auc_with_weights_equals_repeated_pictures():
    draw = np.random.default_rng(3)
    scores, positive = np.round(draw.random(30), 1), draw.random(30) < 0.5
    weights = draw.integers(0, 4, (5, 30))
    for row, value in zip(weights, auc(scores, positive, weights), strict=True):
        assert value == pytest.approx(auc(np.repeat(scores, row), np.repeat(positive, row)), abs=1e-14)


def test_auc_is_half_without_knowledge_and_unknown_with_one_class_only():
    assert auc(np.zeros(10), np.arange(10) < 4) == 0.5
    assert np.isnan(auc(np.arange(3), np.ones(3, bool)))
    assert np.isnan(auc(np.array([]), np.array([], bool)))


def test_mean_auc_leaves_out_classes_that_do_not_occur():
    draw = np.random.default_rng(4)
    probabilities = draw.dirichlet(np.ones(4), 50)
    truth = draw.integers(0, 3, 50)
    each = [auc(probabilities[:, k], truth == k) for k in range(3)]
    assert mean_auc(probabilities, truth) == pytest.approx(np.mean(each))


def test_calibration_equals_a_slow_loop():
    draw = np.random.default_rng(5)
    confidence = np.r_[draw.random(300), 1.0, 0.0]
    correct = draw.random(302) < confidence**2
    total = 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if low == 0:
            inside |= confidence == 0
        if inside.any():
            total += inside.sum() * abs(correct[inside].mean() - confidence[inside].mean())
    assert calibration(confidence, correct).error == pytest.approx(total / 302, abs=1e-12)
    assert calibration(confidence, correct).count.sum() == 302
    assert calibration_error(confidence, correct, np.ones((1, 302)))[0] == pytest.approx(total / 302, abs=1e-12)

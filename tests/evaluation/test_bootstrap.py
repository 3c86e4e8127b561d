"""Intervals: reproducible, about as wide as theory says, and covering the truth."""

from __future__ import annotations

import numpy as np
import pytest

from imagesmith.core.errors import BadInput
from imagesmith.evaluation.bootstrap import draw_weights, interval, resample


def mean_of(values):
    return lambda weights: {"mean": weights @ values / weights.sum(axis=1)}


def test_every_resample_draws_as_many_as_there_are():
    rows = np.concatenate(list(draw_weights(13, 450, seed=1)))
    assert rows.shape == (450, 13)
    assert (rows.sum(axis=1) == 13).all()


def test_groups_are_drawn_whole():
    groups = ["ann", "bob", "ann", "cid"]
    rows = np.concatenate(list(draw_weights(4, 50, seed=0, groups=groups)))
    assert np.array_equal(rows[:, 0], rows[:, 2])
    assert (rows[:, 1:].sum(axis=1) == 3).all()


def test_a_seed_repeats_the_interval_and_another_changes_it():
    values = np.random.default_rng(0).random(40)
    first, again, other = (resample(mean_of(values), 40, seed=seed)["mean"] for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_interval_of_a_mean_is_as_wide_as_the_normal_approximation():
    values = np.random.default_rng(1).normal(10, 2, 400)
    low, high = interval(values.mean(), resample(mean_of(values), 400, resamples=2000)["mean"])
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert low < values.mean() < high


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    draw = np.random.default_rng(2)
    covered = 0
    for trial in range(150):
        hits = (draw.random(120) < 0.8).astype(float)
        low, high = interval(hits.mean(), resample(mean_of(hits), 120, resamples=300, seed=trial)["mean"])
        covered += low <= 0.8 <= high
    assert 0.88 <= covered / 150 <= 0.99


def test_the_correction_brings_back_an_interval_that_missed_its_own_figure():
    """Where rare classes drop out of a resample the plain percentiles lie too high; negative control included."""
    drawn = np.random.default_rng(3).normal(0.20, 0.02, 2000)
    value = 0.17
    plain_low = np.quantile(drawn, 0.025)
    low, high = interval(value, drawn)
    assert low < plain_low
    assert low < value < high


def test_a_certain_figure_has_an_interval_without_width():
    assert interval(1.0, np.ones(100)) == (1.0, 1.0)


def test_undefined_resamples_are_left_out():
    assert interval(float("nan"), np.ones(3)) is None
    assert interval(1.0, np.full(3, np.nan)) is None
    assert interval(1.0, np.array([1.0, np.nan, 1.0])) == (1.0, 1.0)


def test_no_resample_is_refused():
    with pytest.raises(BadInput, match="at least 1 resample"):
        resample(mean_of(np.ones(3)), 3, resamples=0)

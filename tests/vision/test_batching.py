"""Batches: order, sizes, padding, reading ahead, and engines that cannot hold a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from imagesmith.core.errors import EngineFailed
from imagesmith.vision import batching
from imagesmith.vision.batching import Plan, batch_limit, free_memory, run_in_batches

Size = tuple[int, int]


def plan(**options: Any) -> Plan[Size]:
    return Plan(size_of=lambda value: value, pixels_of=lambda value: value[0] * value[1], **options)


def record(batches: list[list[Size]]) -> Any:
    def run(values: Sequence[Size], sizes: Sequence[Size]) -> list[Size]:
        assert list(values) == list(sizes)
        batches.append(list(values))
        return list(values)

    return run


def test_order_is_kept_and_equal_sizes_share_batches() -> None:
    random = np.random.default_rng(0)
    values = [((32, 48), (48, 32), (64, 64))[index] for index in random.integers(0, 3, 50)]
    batches: list[list[Size]] = []
    assert list(run_in_batches(values, plan(batch_size=4), record(batches))) == values
    assert all(len(set(batch)) == 1 and len(batch) <= 4 for batch in batches)
    assert len(batches) < 25  # one by one would be 50, runs of neighbours about 33


def test_padding_lets_near_sizes_share_but_not_far_ones() -> None:
    values = [(100, 100), (96, 100), (40, 100), (100, 97), (41, 100)]
    batches: list[list[Size]] = []
    assert list(run_in_batches(values, plan(batch_size=3, padding=0.1), record(batches))) == values
    assert batches == [[(100, 100), (100, 97), (96, 100)], [(40, 100), (41, 100)]]


def test_lone_values_wait_for_nothing() -> None:
    """Batch size 1 reads one value per result; a person who watches a folder sees each answer at once."""
    read: list[int] = []

    def source() -> Iterator[Size]:
        for index in range(3):
            read.append(index)
            yield (8, 8)

    results = run_in_batches(source(), plan(batch_size=1), record([]))
    next(results)
    assert read == [0]


def test_reading_ahead_is_bounded() -> None:
    read = 0

    def source() -> Iterator[Size]:
        nonlocal read
        for index in range(1000):
            read += 1
            yield (8 + index, 8)  # no two alike

    next(run_in_batches(source(), plan(batch_size=4), record([])))
    assert read <= 16
    read = 0
    large = Plan[Size](size_of=lambda value: value, pixels_of=lambda value: 30_000_000, batch_size=4)
    next(run_in_batches(source(), large, record([])))
    assert read <= 3


def test_auto_halves_a_batch_the_engine_cannot_hold() -> None:
    asked: list[int] = []

    def run(values: Sequence[Size], sizes: Sequence[Size]) -> list[Size]:
        asked.append(len(values))
        if len(values) > 2:
            raise EngineFailed("out of memory")
        return list(values)

    values = [(8, 8)] * 8
    assert list(run_in_batches(values, plan(batch_size="auto"), run)) == values
    assert asked[0] > 2
    with pytest.raises(EngineFailed):
        list(run_in_batches(values, plan(batch_size=8), run))


def test_an_error_of_one_photograph_is_raised() -> None:
    def run(values: Sequence[Size], sizes: Sequence[Size]) -> list[Size]:
        raise EngineFailed("broken")

    with pytest.raises(EngineFailed, match="broken"):
        list(run_in_batches([(8, 8)], plan(), run))


def test_auto_goes_by_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert free_memory() > 1_000_000
    monkeypatch.setattr(batching, "free_memory", lambda: 3 * 2 * 512 * 512 * 1000)
    assert batch_limit((512, 512), "auto") == 3
    assert batch_limit((2048, 2048), "auto") == 1
    assert batch_limit((8, 8), "auto") == 8
    assert batch_limit((2048, 2048), 5) == 5


def test_nothing_in_nothing_out() -> None:
    assert list(run_in_batches([], plan(), record([]))) == []

"""Group photographs of different sizes into batches of the same or nearly the same input size, order kept.

A window of photographs is read ahead; the oldest one waiting decides the size of the next batch, and those of the
window that fit join it. Results come out in the order the photographs went in.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeAlias, TypeVar

from imagesmith.core.errors import EngineFailed

T = TypeVar("T")
R = TypeVar("R")
Size: TypeAlias = tuple[int, int]

LARGEST_AUTO_BATCH = 8
"""More gains nothing on a processor and little on an accelerator."""
BYTES_PER_INPUT_PIXEL = 1000
"""Room for what a network holds at its widest, per pixel of its input."""
_WINDOW_BATCHES = 4
_WINDOW_PIXELS = 64_000_000
"""Photographs read ahead may hold this many pixels together (three bytes each)."""
_UNKNOWN_MEMORY = 2_000_000_000


@dataclass(frozen=True)
class Item(Generic[T]):
    """One photograph that waits: its place in the order, its own size and the network's input size for it."""

    index: int
    value: T
    pixels: int
    size_hw: Size


@dataclass(frozen=True)
class Plan(Generic[T]):
    """How to batch: what input size a value needs, how many go together, and how much of a batch may be padding."""

    size_of: Callable[[T], Size]
    """The network's input size, (height, width)."""
    pixels_of: Callable[[T], int]
    """How many pixels the value holds in memory."""
    batch_size: int | Literal["auto"] = "auto"
    padding: float = 0.0
    """Share of a batch's pixels that may be padding; 0 lets only equal sizes share a batch."""


def run_in_batches(
    values: Iterable[T], plan: Plan[T], run: Callable[[Sequence[T], Sequence[Size]], Sequence[R]]
) -> Iterator[R]:
    """Yield one result per value, in order; `run` gets a batch and the input size of each of its members.

    Reads ahead only as far as batches need. With "auto" a batch that an engine cannot hold is tried again in halves.
    """
    source = enumerate(values)
    waiting: list[Item[T]] = []
    done: dict[int, R] = {}
    following, more = 0, True
    while True:
        while more and _room(waiting, plan):
            pair = next(source, None)
            more = pair is not None
            if pair is not None:
                waiting.append(Item(pair[0], pair[1], plan.pixels_of(pair[1]), plan.size_of(pair[1])))
        if not waiting:
            return
        batch = _choose(waiting, plan)
        chosen = {item.index for item in batch}
        waiting = [item for item in waiting if item.index not in chosen]
        results = _run(batch, run, halve=plan.batch_size == "auto")
        done |= {item.index: result for item, result in zip(batch, results, strict=True)}
        while following in done:
            yield done.pop(following)
            following += 1


def batch_limit(size_hw: Size, batch_size: int | Literal["auto"]) -> int:
    """Return how many inputs of a size go into one batch; "auto" takes what half of the free memory holds, at most 8.

    >>> batch_limit((512, 512), 3)
    3
    """
    if batch_size != "auto":
        return batch_size
    return max(1, min(LARGEST_AUTO_BATCH, free_memory() // 2 // (size_hw[0] * size_hw[1] * BYTES_PER_INPUT_PIXEL)))


def free_memory() -> int:
    """Return the bytes of main memory that can be taken without swapping, or 2 GB where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return _UNKNOWN_MEMORY


def _room(waiting: Sequence[Item[T]], plan: Plan[T]) -> bool:
    """Tell whether another value should be read before the next batch is run."""
    if not waiting:
        return True
    limit = batch_limit(waiting[0].size_hw, plan.batch_size)
    if len(waiting) == 1 and limit == 1:
        return False
    fitting = sum(item.size_hw == waiting[0].size_hw for item in waiting)
    held = sum(item.pixels for item in waiting)
    return fitting < limit and len(waiting) < _WINDOW_BATCHES * limit and held < _WINDOW_PIXELS


def _choose(waiting: Sequence[Item[T]], plan: Plan[T]) -> list[Item[T]]:
    """Pick the oldest value and those nearest to it in size, as long as little of the batch is padding."""
    height, width = waiting[0].size_hw
    nearest = sorted(
        waiting, key=lambda item: (abs(item.size_hw[0] - height) + abs(item.size_hw[1] - width), item.index)
    )
    batch: list[Item[T]] = []
    used = 0
    for item in nearest:
        tall, wide = max(height, item.size_hw[0]), max(width, item.size_hw[1])
        area = used + item.size_hw[0] * item.size_hw[1]
        full = (len(batch) + 1) * tall * wide
        if full - area <= plan.padding * full and len(batch) < batch_limit((tall, wide), plan.batch_size):
            batch.append(item)
            height, width, used = tall, wide, area
    return batch


def _run(
    batch: Sequence[Item[T]], run: Callable[[Sequence[T], Sequence[Size]], Sequence[R]], *, halve: bool
) -> list[R]:
    try:
        return list(run([item.value for item in batch], [item.size_hw for item in batch]))
    except (EngineFailed, MemoryError):
        if not halve or len(batch) == 1:
            raise
    middle = len(batch) // 2
    return _run(batch[:middle], run, halve=True) + _run(batch[middle:], run, halve=True)

"""Which examples are seen when, and the folders they come from.

The order of examples is a function of (seed, epoch), an example a function of its ticket: what a training sees does
not depend on the number of workers or on how often it was resumed. The state to resume from is two integers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from imagesmith.core.errors import BadImage, BadInput
from imagesmith.core.protocols import Image
from imagesmith.image.decode import decode_image
from imagesmith.training.augment import random_generator
from imagesmith.training.checkpoint import file_sha256
from imagesmith.training.settings import TrainSettings
from imagesmith.training.task import Task, Ticket

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
ORDER_STREAM, EXAMPLE_STREAM, LOSS_STREAM = 1, 2, 3
"""Names of the independent streams of randomness."""


class Cursor(NamedTuple):
    """Where the sampler is: everything it needs to go on."""

    epoch: int = 0
    done: int = 0
    """Examples of the epoch already used."""


class TicketSampler(Sampler[list[Ticket]]):
    """Yields the tickets of one batch after another, from a step and a cursor to the end of the training.

    Its length is that of the whole training, from step 0: that is how Lightning counts after a resume.
    """

    def __init__(
        self,
        order: Callable[[int], NDArray[np.int64]],
        settings: TrainSettings,
        first_step: int = 0,
        cursor: Cursor | None = None,
    ) -> None:
        self.order, self.settings = order, settings
        self.first_step, self.cursor = first_step, cursor or Cursor()

    def __len__(self) -> int:
        return self.settings.steps * self.settings.accumulate

    def __iter__(self) -> Iterator[list[Ticket]]:
        epoch, done = self.cursor
        order = self.order(epoch)
        for step in range(self.first_step, self.settings.steps):
            size = self.settings.batch_size_at(step)
            tickets: list[Ticket] = []
            while len(tickets) < size:
                if done >= len(order):
                    epoch, done = epoch + 1, 0
                    order = self.order(epoch)
                tickets.append(Ticket(step, epoch, done, int(order[done])))
                done += 1
            part = size // self.settings.accumulate
            yield from (tickets[start : start + part] for start in range(0, size, part))


def advance(cursor: Cursor, count: int, order: Callable[[int], NDArray[np.int64]]) -> Cursor:
    """Return the cursor after ``count`` more examples.

    >>> advance(Cursor(0, 3), 4, lambda epoch: np.arange(5))
    Cursor(epoch=1, done=2)
    """
    epoch, done = cursor
    done += count
    # An epoch is left only when the next example is drawn, as the sampler does it.
    while done > (length := len(order(epoch))):
        epoch, done = epoch + 1, done - length
    return Cursor(epoch, done)


def shuffled(count: int, seed: int, epoch: int, repeats: NDArray[np.float64] | None = None) -> NDArray[np.int64]:
    """Return an epoch's order of ``count`` examples.

    ``repeats`` [count] says how often each is shown on average; a fraction is decided at random for each epoch.
    """
    random = random_generator(seed, ORDER_STREAM, epoch)
    times = np.ones(count, np.int64)
    if repeats is not None:
        times = np.floor(repeats + random.random(count)).astype(np.int64)
    order = np.repeat(np.arange(count, dtype=np.int64), times)
    random.shuffle(order)
    return order


class TicketDataset(Dataset[Any]):
    """Turns tickets into examples; lives in the workers."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def __getitem__(self, ticket: Ticket) -> Any:
        return self.task.example(ticket)


def make_loader(
    task: Task, settings: TrainSettings, workers: int, first_step: int = 0, cursor: Cursor | None = None
) -> DataLoader[Any]:
    """Return the loader of a training from a step on; it draws nothing from the global random state."""
    return DataLoader(
        TicketDataset(task),
        batch_sampler=TicketSampler(task.epoch_order, settings, first_step, cursor),
        num_workers=workers,
        collate_fn=task.collate,
        generator=torch.Generator().manual_seed(settings.seed),
        worker_init_fn=_one_thread if workers else None,
    )


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)


def list_images(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return a folder's photographs and the stray files beside them, both sorted by name.

    Hidden files are neither. Raises `BadInput` where the folder is missing.
    """
    if not folder.is_dir():
        raise BadInput(f'The data folder "{folder}" is missing; set data.path to where the pack lies.')
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    return images, [path for path in files if path.suffix.lower() not in IMAGE_SUFFIXES]


def read_image(path: Path) -> Image:
    """Read a photograph as every other part of the toolkit does: upright, RGB, uint8 [H,W,3]."""
    return decode_image(path).pixels


Item = TypeVar("Item")
TOLERATED_SHARE = 0.05
"""Of all photographs, how many may be unreadable before a training refuses to start."""


def read_all(read: Sequence[Callable[[], Item]]) -> tuple[list[Item | None], list[str]]:
    """Call every reader; what cannot be read is None, with one sentence each.

    Raises `BadInput` where more than 5 % cannot be read: then something else is wrong.
    """
    items: list[Item | None] = []
    reasons: list[str] = []
    for one in read:
        try:
            items.append(one())
        except BadImage as error:
            items.append(None)
            reasons.append(str(error))
    if len(reasons) > TOLERATED_SHARE * len(read):
        raise BadInput(
            f"{len(reasons)} of {len(read)} photographs cannot be used, and at most 5 % may be left out; the first: "
            f"{reasons[0]}"
        )
    return items, reasons


def stand_ins(readable: Sequence[bool]) -> NDArray[np.int64]:
    """Return for every photograph the one shown in its place: itself, or the next one that can be read.

    >>> stand_ins([True, False, False, True, False]).tolist()
    [0, 3, 3, 3, 0]
    """
    good = np.flatnonzero(np.asarray(readable))
    following = np.searchsorted(good, np.arange(len(readable)))
    return good[following % len(good)]


def manifest_hash(names: Sequence[str], sizes: Sequence[int]) -> str:
    """Return one hash of the data's file names and sizes, so that a resume notices other data."""
    text = "\n".join(f"{name} {size}" for name, size in zip(names, sizes, strict=True))
    return hashlib.sha256(text.encode()).hexdigest()


def same_content(train: Sequence[Path], validation: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """Yield a finding for every photograph that is there twice; only files of equal size are read.

    A photograph in both parts is a warning of its own: the figures would flatter the model.
    """
    held_out = set(validation)
    by_size: dict[int, list[Path]] = {}
    for path in [*train, *validation]:
        by_size.setdefault(path.stat().st_size, []).append(path)
    for group in by_size.values():
        first_of: dict[str, Path] = {}
        for path in group if len(group) > 1 else []:
            first = first_of.setdefault(file_sha256(path), path)
            if first is path:
                continue
            both = (first in held_out) != (path in held_out)
            remedy = " and one is for validation, so the figures will flatter; remove one" if both else ""
            yield "warning", f'"{first.name}" and "{path.name}" are the same photograph{remedy}.'

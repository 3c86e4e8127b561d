"""Label every pixel of a photograph from coarse logits: exactly, without upsampling all of them.

A bilinear value is a convex combination of the four logits around it. So where one class wins at all four corners
of a cell it wins everywhere inside, and only the other cells, a few per cent, need any arithmetic; there, a class
that another one beats at all four corners is left out too. The result equals the argmax of
`torch.nn.functional.interpolate(logits, size, mode="bilinear", align_corners=False)` on every pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from imagesmith.core.errors import BadInput, EngineFailed

Floats = NDArray[np.float32]
Labels = NDArray[np.uint8]
Indices = NDArray[np.intp]

MAX_CLASSES = 255
"""Labels are bytes, and 255 is kept for "unsure"."""
_CHUNK_VALUES = 1 << 18
"""Float values worked on at once, so that they stay in the processor's cache."""
_LONGEST_BLOCK = 256
"""Pixels along one side of a block, however far apart the lattice points are."""
_DENSE_SHARE = 0.5
"""Share of disputed pixels above which upsampling everything, band by band, costs less."""


class Axis(NamedTuple):
    """How one axis is sampled: for every output position two lattice indices and their float32 weights."""

    low: Indices
    high: Indices
    low_weight: Floats
    high_weight: Floats


class Lattice(NamedTuple):
    """The coarse map, what wins at each of its points, and how the photograph's axes sample it."""

    logits: Floats
    winners: Labels
    margin: np.float32
    rows: Axis
    columns: Axis


def sample_axis(size_in: int, size_out: int) -> Axis:
    """Compute torch's bilinear indices and weights for one axis, to the last bit.

    Half-pixel centres, clamped at both ends, in float32. torch's compilers fuse the multiplication with the
    subtraction (one rounding instead of two), which a float64 product rounded once reproduces.

    >>> sample_axis(2, 4).high_weight.tolist()
    [0.0, 0.25, 0.75, 0.25]
    """
    if size_in == size_out:
        same = np.arange(size_out)
        return Axis(same, same, np.ones(size_out, np.float32), np.zeros(size_out, np.float32))
    scale = np.float64(np.float32(size_in) / np.float32(size_out))
    centre = (np.arange(size_out, dtype=np.float32) + np.float32(0.5)).astype(np.float64)
    position = np.maximum((scale * centre - 0.5).astype(np.float32), np.float32(0))
    low = np.minimum(position.astype(np.intp), size_in - 1)
    high_weight = np.clip(position - low.astype(np.float32), np.float32(0), np.float32(1))
    # The last lattice point has no right neighbour: torch then weighs that point with itself.
    return Axis(low, np.minimum(low + 1, size_in - 1), np.float32(1) - high_weight, high_weight)


def upsample_labels(logits: Floats, size_hw: tuple[int, int]) -> Labels:
    """Label every pixel of a (height, width) photograph from logits (C, h, w).

    Returns uint8 labels (height, width), equal to torch's bilinear upsampling of the logits followed by argmax, ties
    going to the lower class. Larger and smaller outputs both work. Memory beyond the result is a few megabytes.

    Raises `BadInput` for a wrong shape, `EngineFailed` for logits that are not finite.

    >>> import numpy as np
    >>> upsample_labels(np.array([[[1, 0]], [[0, 1]]], np.float32), (1, 4)).tolist()
    [[0, 0, 1, 1]]
    """
    logits = check_logits(logits, size_hw)
    rows, columns = sample_axis(logits.shape[1], size_hw[0]), sample_axis(logits.shape[2], size_hw[1])
    winners, lead = _winners(logits)
    if winners.shape == size_hw:
        return winners
    lattice = Lattice(logits, winners, rounding_margin(logits), rows, columns)
    settled = _settled(winners, lead > lattice.margin)
    blocks_y, blocks_x = _blocks(rows.low), _blocks(columns.low)
    disputed = ~settled[np.ix_(rows.low[blocks_y.first], columns.low[blocks_x.first])]
    if float(blocks_y.lengths @ disputed @ blocks_x.lengths) > _DENSE_SHARE * size_hw[0] * size_hw[1]:
        return _label_bands(logits, rows, columns)
    labels = winners.take(columns.low, axis=1).take(rows.low, axis=0)
    which_y, which_x = np.nonzero(disputed)
    step = max(1, _CHUNK_VALUES // max(blocks_y.longest * blocks_x.longest, 4 * len(logits)))
    for start in range(0, len(which_y), step):
        part = slice(start, start + step)
        _label_blocks(labels, lattice, blocks_y.pixels(which_y[part]), blocks_x.pixels(which_x[part]))
    return labels


def check_logits(logits: Floats, size_hw: tuple[int, int]) -> Floats:
    """Return the logits as float32, or say in one sentence what is wrong with them or with the size."""
    if logits.ndim != 3 or 0 in logits.shape:
        raise BadInput(f"Expected logits of shape (classes, height, width), but got {logits.shape}.")
    if len(logits) > MAX_CLASSES:
        raise BadInput(f"Expected at most {MAX_CLASSES} classes, as labels are bytes, but the model has {len(logits)}.")
    if min(size_hw) < 1:
        raise BadInput(f"Expected a size (height, width) of at least 1 x 1 pixels, but got {size_hw}.")
    logits = np.ascontiguousarray(logits, np.float32)
    if not np.isfinite(logits).all():
        raise EngineFailed(
            "Expected finite logits, but the model gave NaN or infinity; try --precision fp32 or another --engine."
        )
    return logits


def rounding_margin(logits: Floats) -> np.float32:
    """Return the lead a class needs so that rounding can neither undo nor tie it: 4 * eps * max |logit|.

    Each of two interpolated values carries at most four roundings of half an epsilon; the last factor covers the
    terms of second order.
    """
    largest = max(float(logits.max()), -float(logits.min()))
    return np.float32(4 * float(np.finfo(np.float32).eps) * (1 + 2**-10) * largest)


class Blocks(NamedTuple):
    """Runs of output positions that fall between the same two lattice points, cut to about equal length."""

    first: Indices
    lengths: Indices
    longest: int

    def pixels(self, which: Indices) -> Indices:
        """List the positions of some blocks, (n, longest); shorter ones repeat their last position."""
        step = np.minimum(np.arange(self.longest), self.lengths[which, None] - 1)
        return np.asarray(self.first[which, None] + step)


def _blocks(low: Indices) -> Blocks:
    """Cut an axis into runs of equal lattice index; the clamped ends are longer and are cut again."""
    total = len(low)
    run_start = np.flatnonzero(np.diff(low, prepend=-1))
    run_count = np.diff(run_start, append=total)
    longest = min(-(-total // len(run_start)), _LONGEST_BLOCK)
    pieces = -(-run_count // longest)
    order = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    start = np.repeat(run_start, pieces) + order * longest
    return Blocks(start, np.diff(start, append=total), longest)


def _winners(logits: Floats) -> tuple[Labels, Floats]:
    """Find the winning class at every lattice point, and by how much it leads the second."""
    best = logits[0].copy()
    second = np.full_like(best, -np.inf)
    labels = np.zeros(best.shape, np.uint8)
    for index in range(1, len(logits)):
        values = logits[index]
        labels[values > best] = index
        np.maximum(second, np.minimum(best, values), out=second)
        np.maximum(best, values, out=best)
    return labels, best - second


def _settled(winners: Labels, safe: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell for every cell, (h, w) by its upper left corner, whether one class safely wins at all four corners."""
    down = np.minimum(np.arange(winners.shape[0]) + 1, winners.shape[0] - 1)
    right = np.minimum(np.arange(winners.shape[1]) + 1, winners.shape[1] - 1)
    sides = safe & safe[down] & (winners == winners[down])
    return np.asarray(sides & sides[:, right] & (winners == winners[:, right]))


def _label_blocks(labels: Labels, lattice: Lattice, pixels_y: Indices, pixels_x: Indices) -> None:
    """Write the exact labels of n disputed blocks, whose pixels are (n, R) rows times (n, S) columns."""
    rows, columns = lattice.rows, lattice.columns
    y = np.stack([rows.low[pixels_y[:, 0]], rows.high[pixels_y[:, 0]]])
    x = np.stack([columns.low[pixels_x[:, 0]], columns.high[pixels_x[:, 0]]])
    corners = lattice.logits[:, y[:, None], x[None, :]]  # (C, 2, 2, n)
    contenders = _contenders(corners, lattice.winners[y[:, None], x[None, :]], lattice.margin)
    counts = contenders.sum(axis=0)
    classes = np.argsort(~contenders, axis=0, kind="stable").astype(np.uint8)  # contenders first, in class order
    for count in np.unique(counts):
        which = np.flatnonzero(counts == count)
        across = (columns.low_weight[pixels_x[which]], columns.high_weight[pixels_x[which]])
        along = (rows.low_weight[pixels_y[which]], rows.high_weight[pixels_y[which]])
        chosen = classes[:count, which]
        shape = (len(which), pixels_y.shape[1], pixels_x.shape[1])
        result, best = np.broadcast_to(chosen[0][:, None, None], shape).copy(), None
        for candidate in chosen:
            values = _interpolate(corners[candidate, :, :, which], across, along)
            if best is None:
                best = values
                continue
            better = values > best
            np.copyto(result, candidate[:, None, None], where=better)
            np.maximum(best, values, out=best)
        labels[pixels_y[which, :, None], pixels_x[which, None, :]] = result


def _contenders(corners: Floats, winners: Labels, margin: np.float32) -> NDArray[np.bool_]:
    """Tell which classes, (C, n), can win somewhere between four corners.

    A class that another beats at every corner by more than the margin is beaten everywhere between. Each corner's
    winner is tried as that other one.
    """
    count, cells = len(corners), corners.shape[-1]
    flat, everywhere = corners.reshape(count, 4, cells), np.arange(cells)
    beaten = np.zeros((count, cells), np.bool_)
    for winner in winners.reshape(4, cells):
        rival = flat[winner, :, everywhere].T  # (4, n)
        beaten |= (rival - flat > margin).all(axis=1)
    return ~beaten


def _interpolate(corners: Floats, across: tuple[Floats, Floats], along: tuple[Floats, Floats]) -> Floats:
    """Interpolate corners (n, 2, 2) to blocks (n, R, S) with torch's own roundings."""
    upper = _mix(corners[:, 0, 0, None], corners[:, 0, 1, None], *across)
    lower = _mix(corners[:, 1, 0, None], corners[:, 1, 1, None], *across)
    return _mix(upper[:, None, :], lower[:, None, :], along[0][:, :, None], along[1][:, :, None])


def _mix(low: Floats, high: Floats, low_weight: Floats, high_weight: Floats) -> Floats:
    """Compute low * low_weight + high * high_weight as a fused multiply-add does: the first product unrounded."""
    total = np.multiply(low, low_weight, dtype=np.float64)
    total += high * high_weight
    return total.astype(np.float32)


def _label_bands(logits: Floats, rows: Axis, columns: Axis) -> Labels:
    """Label by upsampling everything, one band of rows at a time: for maps in which most cells are disputed."""
    labels = np.zeros((len(rows.low), len(columns.low)), np.uint8)
    for band in bands(labels.shape, _CHUNK_VALUES):
        low, high = rows.low[band], rows.high[band]
        weights = rows.low_weight[band, None], rows.high_weight[band, None]
        best: Floats | None = None
        for index, values in enumerate(logits):
            wide = values[low[0] : high[-1] + 1]
            wide = _mix(wide.take(columns.low, 1), wide.take(columns.high, 1), *columns[2:])
            full = _mix(wide.take(low - low[0], 0), wide.take(high - low[0], 0), *weights)
            if best is None:
                best = full
                continue
            np.copyto(labels[band], np.uint8(index), where=full > best)
            np.maximum(best, full, out=best)
    return labels


def bands(size_hw: tuple[int, int], values: int) -> Iterator[slice]:
    """Cut the output into bands of rows that hold about `values` pixels each."""
    step = max(1, values // size_hw[1])
    for start in range(0, size_hw[0], step):
        yield slice(start, min(start + step, size_hw[0]))

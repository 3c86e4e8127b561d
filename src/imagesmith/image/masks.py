"""Masks, (H, W) arrays that are true inside a region: COCO run lengths, connected parts, growing and soft edges.

NumPy only; distances are exact Euclidean ones between pixel centres.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np

from imagesmith.core.errors import BadInput
from imagesmith.core.protocols import Array

# --- run lengths ------------------------------------------------------------------------------------------------------


def encode_rle(mask: Array) -> dict[str, Any]:
    """Encode an (H, W) mask as COCO's compressed run lengths, {"size": [H, W], "counts": text}, as pycocotools does.

    >>> encode_rle(np.array([[0, 1], [0, 1]], bool))
    {'size': [2, 2], 'counts': '22'}
    """
    height, width = _as_mask(mask).shape
    flat = _as_mask(mask).ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate([[0], edges, [flat.size]]))
    if flat.size and flat[0]:
        counts = np.concatenate([[0], counts])  # runs begin with a run of zeros, which may be empty
    return {"size": [height, width], "counts": _to_text(counts)}


def decode_rle(rle: Mapping[str, Any]) -> Array:
    """Decode COCO run lengths, compressed (text or bytes) or a plain list of counts, to an (H, W) bool mask."""
    try:
        height, width = (int(side) for side in rle["size"])
        counts = rle["counts"]
        if isinstance(counts, (str, bytes)):
            runs = _from_text(counts.encode("ascii") if isinstance(counts, str) else counts)
        else:
            runs = np.asarray(counts, np.int64)
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput('run lengths must be {"size": [height, width], "counts": text or list}.') from error
    if height < 0 or width < 0 or (runs < 0).any() or runs.sum() != height * width:
        raise BadInput(f"run lengths add up to {runs.sum()} pixels, but the mask has {height} x {width}.")
    values = np.arange(len(runs)) % 2 == 1
    return np.ascontiguousarray(np.repeat(values, runs).reshape(width, height).T)


def _to_text(counts: Array) -> str:
    """Write each count (from the fourth on as its difference to the one two before) in groups of 5 bits, low first."""
    values = counts.astype(np.int64)
    values[3:] -= counts[1:-2]
    magnitude = np.where(values < 0, ~values, values)
    digits = np.ones(len(values), np.int64)  # the sign bit needs room in the last group
    for group in range(1, 13):
        digits += magnitude >= 1 << (5 * group - 1)
    ends = np.cumsum(digits)
    out = np.zeros(ends[-1] if len(ends) else 0, np.uint8)
    starts = ends - digits
    for group in range(int(digits.max(initial=0))):
        here = digits > group
        more = (digits[here] > group + 1) << 5
        out[starts[here] + group] = ((values[here] >> (5 * group)) & 31 | more) + 48
    return out.tobytes().decode("ascii")


def _from_text(text: bytes) -> Array:
    codes = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    if not len(codes):
        return np.zeros(0, np.int64)
    last = (codes & 32) == 0
    if not last[-1] or (codes < 0).any() or (codes > 63).any():
        raise ValueError("damaged run lengths")
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    groups = np.arange(len(codes)) - np.repeat(starts, ends - starts + 1)
    if groups.max() > 11:
        raise ValueError("damaged run lengths")
    values = np.add.reduceat((codes & 31) << (5 * groups), starts)
    values -= np.where(codes[ends] & 16, 1 << (5 * (ends - starts + 1)), 0)
    # undo the differences: even and odd places are two running sums, the first count standing alone
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


# --- boxes and parts --------------------------------------------------------------------------------------------------


def mask_box(mask: Array) -> tuple[int, int, int, int] | None:
    """Return the tight box (x0, y0, x1, y1) of a mask, or None where it is empty.

    >>> mask_box(np.array([[0, 0, 0], [0, 1, 1]], bool))
    (1, 1, 3, 2)
    """
    mask = _as_mask(mask)
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return None
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@dataclass(frozen=True, eq=False)
class Components:
    """Hold the connected parts of a mask, largest first: `labels` (H, W) int32 with 0 outside and 1.. for the parts.

    `areas` (n,) counts pixels; `boxes_xyxy` (n, 4) int64 are tight.
    """

    labels: Array
    areas: Array
    boxes_xyxy: Array

    def __len__(self) -> int:
        return len(self.areas)

    def mask(self, index: int) -> Array:
        """Return the (H, W) bool mask of a part, counted from 0 (the largest)."""
        result: Array = self.labels == range(1, len(self) + 1)[index]
        return result


def components(mask: Array, diagonal: bool = True) -> Components:
    """Find the connected parts of a mask; with `diagonal`, pixels that touch at a corner belong together.

    Runs of pixels are joined instead of pixels, so that a 1080p mask takes a few milliseconds.
    """
    mask = _as_mask(mask)
    height, width = mask.shape
    padded = np.zeros((height, width + 2), np.int8)
    padded[:, 1:-1] = mask
    stride = width + 2  # two empty columns between rows: a run never touches the next row's
    changes = np.flatnonzero(np.diff(padded.ravel(), prepend=np.int8(0)))
    starts, ends = changes[0::2], changes[1::2]
    roots = _join_runs(starts, ends, stride, int(diagonal))
    is_root = roots == np.arange(len(roots))
    parts, count = (np.cumsum(is_root) - 1)[roots], int(is_root.sum())
    areas = np.bincount(parts, ends - starts, count).astype(np.int64)
    order = np.argsort(-areas, kind="stable")
    rank = np.empty(count, np.int64)
    rank[order] = np.arange(count)
    parts = rank[parts]
    steps = np.zeros(height * stride + 1, np.int32)
    steps[starts] = parts + 1
    steps[ends] -= (parts + 1).astype(np.int32)
    labels = np.cumsum(steps[:-1], dtype=np.int32).reshape(height, stride)[:, 1:-1]
    return Components(np.ascontiguousarray(labels), areas[order], _part_boxes(parts, starts, ends, stride, count))


def _join_runs(starts: Array, ends: Array, stride: int, reach: int) -> Array:
    """Return one number per run, the same for runs that touch through any chain of rows."""
    low = np.searchsorted(ends, starts + stride - reach, side="right")
    high = np.searchsorted(starts, ends + stride + reach, side="left")
    touching = np.maximum(high - low, 0)
    above = np.repeat(np.arange(len(starts)), touching)
    below = np.arange(touching.sum()) - np.repeat(np.cumsum(touching) - touching, touching) + np.repeat(low, touching)
    roots = np.arange(len(starts))
    while len(above):  # hang the larger root under the smaller, then flatten; each round at least halves what is left
        first, second = roots[above], roots[below]
        apart = first != second
        above, below = above[apart], below[apart]
        np.minimum.at(roots, np.maximum(first[apart], second[apart]), np.minimum(first[apart], second[apart]))
        while not np.array_equal(flat := roots[roots], roots):
            roots = flat
    return roots


def _part_boxes(parts: Array, starts: Array, ends: Array, stride: int, count: int) -> Array:
    boxes = np.empty((count, 4), np.int64)
    boxes[:, :2], boxes[:, 2:] = np.iinfo(np.int64).max, 0
    rows = starts // stride
    np.minimum.at(boxes[:, 0], parts, starts - rows * stride - 1)
    np.minimum.at(boxes[:, 1], parts, rows)
    np.maximum.at(boxes[:, 2], parts, ends - rows * stride - 1)
    np.maximum.at(boxes[:, 3], parts, rows + 1)
    return boxes


# --- distances --------------------------------------------------------------------------------------------------------


def distance(mask: Array, reach: float) -> Array:
    """Return the (H, W) float32 Euclidean distance to the nearest pixel of the mask, infinite beyond `reach` pixels.

    >>> distance(np.array([[1, 0, 0, 0]], bool), 2).tolist()
    [[0.0, 1.0, 2.0, inf]]
    """
    mask = _as_mask(mask)
    result = np.full(mask.shape, np.inf, np.float32)
    if (around := _around(mask, reach)) is not None:
        squares = _squared_distance(mask[around], reach)
        result[around] = np.where(squares <= reach * reach, np.sqrt(squares, dtype=np.float32), np.float32(np.inf))
    return result


def grow(mask: Array, pixels: float) -> Array:
    """Add every pixel within this distance of the mask; a negative distance shrinks it.

    >>> grow(np.array([[0, 0, 1, 0, 0]], bool), 1).astype(int).tolist()
    [[0, 1, 1, 1, 0]]
    """
    if pixels < 0:
        return shrink(mask, -pixels)
    mask = _as_mask(mask)
    result: Array = mask.copy()
    if (around := _around(mask, pixels)) is not None:
        result[around] = _squared_distance(mask[around], pixels) <= pixels * pixels
    return result


def shrink(mask: Array, pixels: float) -> Array:
    """Remove every pixel within this distance of the outside; beyond the picture's border is not outside."""
    result = _as_mask(mask).copy()
    if pixels > 0 and (around := _around(result, 1)) is not None:
        result[around] = _squared_distance(~result[around], pixels) > pixels * pixels
    return result


def feather(mask: Array, width: float) -> Array:
    """Give a mask a soft edge: (H, W) float32, a linear ramp `width` pixels wide that is centred on the edge.

    Exactly 0 farther out than half the width, exactly 1 farther in; with a width of 0 the mask itself.
    """
    mask = _as_mask(mask)
    soft = mask.astype(np.float32)
    reach = width / 2 + 0.5  # the edge runs half a pixel from the centres on either side
    if width <= 0 or (around := _around(mask, reach)) is None:
        return soft
    inside = mask[around]
    outward = np.sqrt(_squared_distance(inside, reach), dtype=np.float32)
    inward = np.sqrt(_squared_distance(~inside, reach), dtype=np.float32)
    signed = np.where(inside, inward - np.float32(0.5), np.float32(0.5) - outward)
    np.clip(signed / np.float32(width) + np.float32(0.5), 0, 1, out=soft[around])
    return soft


def _around(mask: Array, reach: float) -> tuple[slice, slice] | None:
    """Return the part of the picture that lies within `reach` of the mask's box, or None for an empty mask."""
    box = mask_box(mask)
    if box is None:
        return None
    margin = ceil(reach) + 1
    x0, y0, x1, y1 = box
    return slice(max(y0 - margin, 0), y1 + margin), slice(max(x0 - margin, 0), x1 + margin)


def _squared_distance(mask: Array, reach: float) -> Array:
    """Return exact squared distances (H, W) up to `reach`; beyond it, any number above its square.

    First along each column, then the smallest of (column's square + dx squared) over the columns in reach, block by
    block so that the work stays in the processor's cache.
    """
    width = mask.shape[1]
    far = int(reach) + 1
    kind: Any = np.uint16 if 2 * far * far < 65_536 else np.int32
    squares = _column_distance(mask, far).astype(kind)
    squares *= squares
    out = squares.copy()
    rows = max(8, (1 << 16) // max(width, 1))
    for top in range(0, len(mask), rows):
        old, new = squares[top : top + rows], out[top : top + rows]
        used = np.flatnonzero(old.min(axis=0) < far * far)
        if not len(used) or not old.any():
            continue  # the same distance everywhere: all out of reach, or all inside
        left, right = int(used[0]), int(used[-1]) + 1
        for shift in range(1, min(int(reach), width - 1) + 1):
            near = old[:, left:right] + kind(shift * shift)
            start, stop = max(left - shift, 0), max(right - shift, 0)
            np.minimum(new[:, start:stop], near[:, start + shift - left :], out=new[:, start:stop])
            start, stop = min(left + shift, width), min(right + shift, width)
            np.minimum(new[:, start:stop], near[:, : stop - start], out=new[:, start:stop])
    return out


def _column_distance(mask: Array, far: int) -> Array:
    """Return the distance along each column to the nearest pixel of the mask, at most `far` (H, W)."""
    kind: Any = np.uint8 if far < 255 else np.int32
    away = np.where(mask, kind(0), kind(far))
    one = kind(1)
    for row in range(1, len(away)):
        np.minimum(away[row], away[row - 1] + one, out=away[row])
    for row in range(len(away) - 2, -1, -1):
        np.minimum(away[row], away[row + 1] + one, out=away[row])
    return away


def _as_mask(mask: Array) -> Array:
    if mask.ndim != 2:
        raise BadInput(f"a mask must be (height, width), not {mask.shape}.")
    return mask if mask.dtype == np.bool_ else mask != 0

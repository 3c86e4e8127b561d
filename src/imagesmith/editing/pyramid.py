"""Blur and fill that see only the pixels they are allowed to see.

Both are normalised convolutions: colours and weights are smoothed alike and then divided, so a pixel of weight 0
contributes nothing. Both work on a pyramid of halved pictures, so their cost does not grow with the radius.
"""

from __future__ import annotations

import numpy as np

from imagesmith.core.protocols import Array

_TINY = 1e-6


def blur_inside(colors: Array, weight: Array, radius: float) -> Array:
    """Return colors (H, W, 3) float32 blurred by a Gaussian of standard deviation `radius`, mixing only by weight.

    `weight` (H, W) is 0 for pixels that must not leak in. Where no weighted pixel is near, the result is filled from
    the nearest ones.
    """
    stacked = np.concatenate([colors * weight[..., None], weight[..., None]], axis=-1).astype(np.float32)
    levels = max(0, int(np.log2(max(radius, 1.0))))
    levels = min(levels, int(np.log2(max(1, min(weight.shape)))))
    shapes = []
    for _ in range(levels):
        shapes.append(stacked.shape[:2])
        stacked = _halve(stacked)
    own = (4**levels - 1) / 3  # variance that halving and doubling add by themselves
    stacked = _gaussian(stacked, float(np.sqrt(max(radius**2 - own, 0.0) / 4**levels)))
    for shape in reversed(shapes):
        stacked = _double(stacked, shape)
    total = stacked[..., 3]
    near = total > _TINY
    divided = stacked[..., :3] / np.maximum(total, _TINY)[..., None]
    return divided if near.all() else spread_outward(divided, near.astype(np.float32))


def spread_outward(colors: Array, weight: Array) -> Array:
    """Return colors (H, W, 3) float32 where pixels of weight 0 take a smooth mean of the nearest weighted ones.

    Pixels of weight above 0 stay as they are. Where no pixel has weight, the result is 0.
    """
    known = weight > _TINY
    if known.all() or max(weight.shape) == 1:
        return np.where(known[..., None], colors, 0).astype(np.float32)
    stacked = np.concatenate([colors * weight[..., None], weight[..., None]], axis=-1).astype(np.float32)
    half = _halve(stacked)
    half_weight = half[..., 3]
    coarse = spread_outward(half[..., :3] / np.maximum(half_weight, _TINY)[..., None], half_weight)
    return np.where(known[..., None], colors, _double(coarse, weight.shape)).astype(np.float32)


def _halve(values: Array) -> Array:
    """Return the means of 2 x 2 blocks of values (H, W, C); an odd edge is padded with zeros."""
    height, width = values.shape[:2]
    padded = np.pad(values, ((0, height % 2), (0, width % 2), (0, 0)))
    return (padded[0::2, 0::2] + padded[1::2, 0::2] + padded[0::2, 1::2] + padded[1::2, 1::2]) / 4


def _double(values: Array, shape_hw: tuple[int, ...]) -> Array:
    """Return values (h, w, C) at twice the size, smoothed, cut to `shape_hw`."""
    large = values.repeat(2, axis=0).repeat(2, axis=1)[: shape_hw[0], : shape_hw[1]]
    return _convolve(large, np.array([0.25, 0.5, 0.25], np.float32))


def _gaussian(values: Array, sigma: float) -> Array:
    reach = int(np.ceil(3.5 * sigma))
    offsets = np.arange(-reach, reach + 1)
    taps = np.exp(-0.5 * (offsets / max(sigma, 1e-3)) ** 2)
    return _convolve(values, (taps / taps.sum()).astype(np.float32))


def _convolve(values: Array, taps: Array) -> Array:
    """Convolve values (H, W, C) along both axes with symmetric taps; beyond the border the edge is repeated."""
    reach = len(taps) // 2
    for axis in (0, 1):
        padding = [(0, 0)] * values.ndim
        padding[axis] = (reach, reach)
        padded = np.pad(values, padding, mode="edge")
        length = values.shape[axis]
        views = [
            padded[start : start + length] if axis == 0 else padded[:, start : start + length]
            for start in range(len(taps))
        ]
        values = views[0] * taps[0]
        for view, tap in zip(views[1:], taps[1:], strict=True):
            values += view * tap
    return values

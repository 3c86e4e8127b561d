"""Intervals by resampling pictures (Efron 1981): draw as many again, with replacement, and see how a figure moves.

A resample is a row of counts, how often each picture was drawn, so that every figure is a weighted sum and all
resamples are computed at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import NormalDist

import numpy as np

from imagesmith.core.errors import BadInput
from imagesmith.core.protocols import Array
from imagesmith.evaluation.metrics import Figures

RESAMPLES = 1000
LEVEL = 0.95
CHUNK = 200

Statistic = Callable[[Figures], dict[str, Figures]]
"""Weights (B, pictures) -> figures by name, each (B,)."""


def draw_weights(pictures: int, resamples: int, seed: int, groups: Sequence[str] | None = None) -> Iterator[Figures]:
    """Yield rows of counts, (at most 200, pictures) at a time, `resamples` rows in all.

    With `groups` (one name per picture) whole groups are drawn: photographs of one person are not independent.
    """
    generator = np.random.default_rng(seed)
    names, member = np.unique(np.asarray(groups if groups is not None else range(pictures)), return_inverse=True)
    shares = np.full(max(len(names), 1), 1 / max(len(names), 1))
    for start in range(0, resamples, CHUNK):
        drawn = generator.multinomial(len(names), shares, size=min(CHUNK, resamples - start))
        yield drawn[:, member].astype(np.float64)


def resample(
    statistic: Statistic,
    pictures: int,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> dict[str, Figures]:
    """Return the figures of every resample, each (resamples,).

    >>> values = np.array([0.0, 1.0])
    >>> drawn = resample(lambda weights: {"mean": weights @ values / 2}, 2, resamples=400)
    >>> sorted(set(drawn["mean"].tolist()))
    [0.0, 0.5, 1.0]
    """
    if resamples < 1:
        raise BadInput(f"A bootstrap needs at least 1 resample, got {resamples}.")
    parts = [statistic(weights) for weights in draw_weights(pictures, resamples, seed, groups)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def interval(value: float, drawn: Array, level: float = LEVEL) -> tuple[float, float] | None:
    """Return the bias-corrected percentile interval of a figure, or None where no resample has a value.

    The plain percentiles of a mean over *occurring* classes are shifted, because rare classes drop out of a
    resample; the correction (Efron 1981) moves the percentiles by how far `value` lies from the resamples' median.
    """
    drawn = np.sort(np.asarray(drawn)[np.isfinite(drawn)])
    if len(drawn) == 0 or not np.isfinite(value):
        return None
    slack = 1e-12 * max(1.0, abs(value))
    below = np.count_nonzero(drawn < value - slack)
    tied = np.count_nonzero(np.abs(drawn - value) <= slack)
    # Half a draw is kept on either side: a share of 0 or 1 would put the percentile at infinity.
    share = min(max((below + tied / 2) / len(drawn), 0.5 / len(drawn)), 1 - 0.5 / len(drawn))
    normal = NormalDist()
    shift, tail = 2 * normal.inv_cdf(share), normal.inv_cdf((1 + level) / 2)
    low, high = np.quantile(drawn, [normal.cdf(shift - tail), normal.cdf(shift + tail)])
    return float(low), float(high)

"""How sure a model is of every pixel: computed only when asked for, band by band, never all classes at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from imagesmith.vision.upsample import Axis, Floats, bands, check_logits, sample_axis

_BAND_VALUES = 1 << 21
"""Float values of one band of full-size logits, all classes together."""


class Certainty(NamedTuple):
    """What was asked for about how sure the model is, at full size."""

    confidence: Floats | None
    entropy: Floats | None
    probabilities: Floats | None


def certainty(
    logits: Floats,
    size_hw: tuple[int, int],
    *,
    confidence: bool = False,
    entropy: bool = False,
    probabilities: bool = False,
) -> Certainty:
    """Compute what is asked for from logits (C, h, w), in one pass over bands of the photograph.

    Confidence (H, W) is the highest probability, entropy (H, W) is in nats (0 to log C), probabilities are
    (C, H, W); all float32, within 1e-5 of the softmax of torch's upsampled logits. Only `probabilities` ever holds
    more than a few megabytes besides the results.

    >>> import numpy as np
    >>> certainty(np.zeros((4, 2, 2), np.float32), (3, 3), confidence=True).confidence[0].tolist()
    [0.25, 0.25, 0.25]
    """
    logits = check_logits(logits, size_hw)
    rows, columns = sample_axis(logits.shape[1], size_hw[0]), sample_axis(logits.shape[2], size_hw[1])
    result = Certainty(
        np.empty(size_hw, np.float32) if confidence else None,
        np.empty(size_hw, np.float32) if entropy else None,
        np.empty((len(logits), *size_hw), np.float32) if probabilities else None,
    )
    if not (confidence or entropy or probabilities):
        return result
    for band in bands(size_hw, _BAND_VALUES // len(logits)):
        values = _upsample_band(logits, rows, columns, band)
        values -= values.max(axis=0)
        weights = np.exp(values)
        total = weights.sum(axis=0)
        if result.confidence is not None:
            np.divide(1, total, out=result.confidence[band])
        if result.entropy is not None:
            values *= weights
            np.subtract(np.log(total), values.sum(axis=0) / total, out=result.entropy[band])
        if result.probabilities is not None:
            np.divide(weights, total, out=result.probabilities[:, band])
    return result


def _upsample_band(logits: Floats, rows: Axis, columns: Axis, band: slice) -> Floats:
    """Upsample one band of rows of every class, (C, band, W), in plain float32."""
    low, high = rows.low[band], rows.high[band]
    wide = logits[:, low[0] : high[-1] + 1]
    wide = wide.take(columns.low, 2) * columns.low_weight + wide.take(columns.high, 2) * columns.high_weight
    full = wide.take(low - low[0], 1)
    full *= rows.low_weight[band, None]
    second = wide.take(high - low[0], 1)
    second *= rows.high_weight[band, None]
    full += second
    return full


def grid_uncertainty(logits: Floats) -> float:
    """Measure how unsure a model is of a whole photograph: mean entropy over its own grid, divided by log C.

    0 is certain everywhere, 1 is a uniform guess everywhere. Taken on the grid the network answers on, (C, h, w),
    which costs almost nothing and differs little from the mean over the photograph's pixels.

    >>> import numpy as np
    >>> grid_uncertainty(np.zeros((4, 2, 2), np.float32))
    1.0
    """
    count, height, width = logits.shape
    entropy = certainty(logits, (height, width), entropy=True).entropy
    if entropy is None or count < 2:
        return 0.0
    return float(np.clip(np.mean(entropy, dtype=np.float64) / np.log(count), 0, 1))

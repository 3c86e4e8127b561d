"""Two models on the same photographs: the difference, and how sure it is.

The resamples draw the same photographs for both, so what makes a photograph hard for both cancels: a paired
difference is far surer than two intervals side by side.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from imagesmith.core.errors import BadInput
from imagesmith.core.specs import ModelSpec
from imagesmith.evaluation.bootstrap import RESAMPLES, interval, resample
from imagesmith.evaluation.datasets import GroupChoice, open_dataset
from imagesmith.evaluation.metrics import Figures
from imagesmith.evaluation.report import Comparison, Figure
from imagesmith.evaluation.run import Predict, Progress, groups_of, make_report, measure
from imagesmith.evaluation.splits import Split
from imagesmith.evaluation.tally import Tally
from imagesmith.image.photo import Limits

Contender = tuple[ModelSpec, Predict]


def compare(
    first: Contender,
    second: Contender,
    data: str | Path,
    *,
    split: Split = "val",
    group: GroupChoice = "auto",
    resamples: int = RESAMPLES,
    seed: int = 0,
    limits: Limits = Limits(),
    progress: Progress | None = None,
) -> Comparison:
    """Measure two models on the same photographs and resample their difference in pairs.

    Raises `BadInput` where the models are for different tasks, and whatever `evaluate` raises.
    """
    tasks = {spec.task for spec, _ in (first, second)}
    if len(tasks) > 1:
        raise BadInput(f"Two models of one task can be compared, but these {' and '.join(sorted(tasks))}.")
    dataset = open_dataset(first[0].task, Path(data), split, group)
    tallies = [measure(spec, dataset, predict, limits=limits, progress=progress) for spec, predict in (first, second)]
    settings: dict[str, Any] = {"data": Path(data), "split": split, "resamples": resamples, "seed": seed}
    reports = [
        make_report(tally, spec, dataset, **settings) for tally, (spec, _) in zip(tallies, (first, second), strict=True)
    ]
    differences = _differences(tallies[0], tallies[1])
    drawn = resample(differences, tallies[0].count, resamples=resamples, seed=seed, groups=groups_of(dataset))
    points = [tally.point() for tally in tallies]
    figures, better = {}, {}
    for name, values in drawn.items():
        value = points[0][name] - points[1][name]
        bounds = interval(value, values)
        low, high = bounds if bounds is not None else (None, None)
        figures[name] = Figure(value=value if np.isfinite(value) else None, low=low, high=high)
        better[name] = _share_better(values, lower=name in tallies[0].lower_is_better)
    return Comparison(first=reports[0], second=reports[1], difference=figures, better=better)


def _differences(first: Tally, second: Tally) -> Any:
    def figures(weights: Figures) -> dict[str, Figures]:
        left, right = first.figures(weights), second.figures(weights)
        return {name: left[name] - right[name] for name in left}

    return figures


def _share_better(differences: Figures, lower: bool) -> float:
    finite = differences[np.isfinite(differences)]
    if not len(finite):
        return 0.5
    signs = np.sign(-finite if lower else finite)
    return float((signs + 1).mean() / 2)

"""The starters' cards, measured again from the packs: anyone with the data gets the figures they state."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

import imagesmith
from imagesmith.models import catalogue

PACKS = {
    "starter/clothes": ("clothes-ccp", {"pixel_accuracy": 0.82, "mean_iou": 0.15}),
    "starter/face": ("face-celebamask", {"mean_iou": 0.55}),
    "starter/gender": ("gender-lfw", {"accuracy": 0.88}),
    "starter/detect": ("detection-pennfudan", {"AP50": 0.40}),
}
"""Model -> its pack, and the least each figure must reach."""


@pytest.mark.slow
@pytest.mark.parametrize("model", PACKS)
def test_a_starter_reaches_its_floor_and_its_card(model):
    if "IMAGESMITH_DATA" not in os.environ:
        pytest.skip("IMAGESMITH_DATA does not name the folder with the packs")
    if importlib.util.find_spec("imagesmith_starters") is None:
        pytest.skip("imagesmith-starters is not installed")
    pack, floors = PACKS[model]
    report = imagesmith.evaluate(model, Path(os.environ["IMAGESMITH_DATA"]) / "data" / pack)
    reached = {name: figure.value for name, figure in report.figures.items()}
    for name, floor in floors.items():
        assert reached[name] >= floor
    stated = catalogue.find(model).metrics
    shared = stated.keys() & reached.keys()
    assert shared, f"metrics.json of {model} should state some of {', '.join(reached)}"
    for name in shared:
        assert reached[name] == pytest.approx(stated[name], abs=0.002), name

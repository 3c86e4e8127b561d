"""Which object teaches which recipe."""

from __future__ import annotations

from imagesmith.training.classify import ClassifyTask
from imagesmith.training.detect import DetectTask
from imagesmith.training.recipe import ClassifyRecipe, SegmentRecipe, VisionRecipe
from imagesmith.training.segment import SegmentTask
from imagesmith.training.task import Task


def make_task(recipe: VisionRecipe) -> Task:
    """Open a recipe's data; raises `BadInput` where it is missing or does not fit."""
    if isinstance(recipe, SegmentRecipe):
        return SegmentTask(recipe)
    if isinstance(recipe, ClassifyRecipe):
        return ClassifyTask(recipe)
    return DetectTask(recipe)

"""What a detection recipe says beyond what every recipe says."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from imagesmith.core.specs import Record
from imagesmith.training.settings import Probability, SizeHW

Weight = Annotated[float, Field(ge=0)]


class DetectData(Record):
    """Photographs with boxes in one COCO JSON file, and optionally packs to compose scenes from."""

    path: str
    """Folder of a COCO file and its photographs; every 8th photograph is for validation."""
    images: str = "images"
    annotations: str = "annotations.json"
    masks_path: str | None = None
    """Image and mask folders (as for segmentation) whose people and garments give boxes and composed scenes."""
    backgrounds_path: str | None = None
    """COCO folder (images/, annotations.json): what shows no person is background, what does is one more photograph."""
    labels: tuple[str, ...] | None = None
    """Classes to learn, in order; unset takes the annotations' categories, or person and garments with masks."""
    repeat: int = Field(default=1, ge=1)
    """How often the photographs with boxes count against those from `backgrounds_path`."""
    epoch: int | None = Field(default=None, ge=1)
    """Examples in an epoch; unset is the number of photographs."""
    workers: int = Field(default=1, ge=0)


class SceneSettings(Record):
    """How examples are drawn: real photographs, people on their own photograph, and (the rest) composed scenes."""

    share_photos: Probability = 0.35
    """Crops of photographs with boxes; 1 where there are no masks."""
    share_people: Probability = 0.2
    """Crops of a person's own photograph."""
    share_empty: Probability = 0.04
    """Scenes without anybody."""
    paste_on_photo: Probability = 0.25
    """People added to a crop of a photograph."""
    most_people: int = Field(default=4, ge=1)
    """People in a composed scene."""
    half_length: Probability = 0.3
    """People shown from the waist or the shoulders up."""
    zoom: tuple[float, float] = (0.75, 2.2)
    """Smallest and largest magnification of a photograph; 1 shows the whole of it."""
    flip: Probability = 0.5
    color: float = Field(default=0.35, ge=0, le=1)
    """Strength of changes of brightness, contrast, saturation, white balance and gamma."""
    degrade: Probability = 0.15
    """Blur, or add noise."""
    sizes_hw: tuple[SizeHW, ...] = ()
    """Sizes of the training pictures, one drawn for each step; empty takes the stage's."""


class DetectLoss(Record):
    """DETR's criterion; the defaults are the published weights."""

    classes: Weight = 1.0
    bbox: Weight = 5.0
    giou: Weight = 2.0
    eos: Weight = 0.1
    """Weight of "no object" inside the cross-entropy."""
    scale: float = Field(default=1.0, gt=0)
    """Factor of the whole criterion against the dense helper's loss."""
    query_groups: int = Field(default=1, ge=1)
    """Groups of queries in training, each matched by itself: more positive examples, the same network afterwards."""
    dense: Weight = 0.0
    """Weight of the dense helper, which names what covers each cell of the encoder's memory; 0 is none."""
    dense_until: Probability = 0.0
    """Share of all steps at the start in which only the dense helper teaches, without the decoder."""

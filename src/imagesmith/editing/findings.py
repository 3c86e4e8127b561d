"""What the models see in one photograph, asked for once and turned into masks and words."""

from __future__ import annotations

from functools import cached_property
from typing import Protocol

import numpy as np

from imagesmith.core.errors import UnknownRegion
from imagesmith.core.protocols import Array
from imagesmith.editing import heads
from imagesmith.editing.vocabulary import Vocabulary
from imagesmith.image.decode import Photo
from imagesmith.image.results import Detections, Segmentation, is_background, plain_name

_LISTED = 12


class See(Protocol):
    """What models see in one photograph, computed when it is asked for; each answer is asked for at most once."""

    def own(self) -> Segmentation | None:
        """Return what the model the user named sees in the whole photograph; None where none was named."""

    def clothes(self) -> Segmentation:
        """Return the labels of the clothes model for the whole photograph."""

    def face(self, crop_xyxy: tuple[int, int, int, int]) -> Segmentation:
        """Return the labels of the face model for a crop of the photograph, at the crop's size."""

    def detections(self) -> Detections:
        """Return the objects found in the whole photograph."""


class Findings:
    """One photograph through the eyes of its models; what was used is kept in `models` and `notes`."""

    def __init__(self, photo: Photo, see: See, words: Vocabulary) -> None:
        self.photo = photo
        self.words = words
        self.models: list[str] = []
        self.notes: list[str] = []
        self._see = see
        self._zones: dict[int, Array] = {}
        self._crops: dict[int | None, list[heads.Box]] = {}
        self._faces: dict[heads.Box, Segmentation] = {}

    @cached_property
    def own(self) -> Segmentation | None:
        """What the named model sees, if one was named."""
        return self._see.own()

    @cached_property
    def clothes(self) -> Segmentation:
        """What the clothes model sees: the named model where it knows clothes."""
        if self.own is not None and self.words.meaning("lower body", self.own.names):
            return self.own
        return self._see.clothes()

    @cached_property
    def detections(self) -> Detections:
        """The objects found."""
        return self._see.detections()

    def faces(self, person: int | None) -> list[tuple[heads.Box, Segmentation]]:
        """Return what the face model sees in the crop of every head, or of one person's."""
        for crop in self._head_crops(person):
            if crop not in self._faces:
                self._faces[crop] = self._see.face(crop)
        return [(crop, self._faces[crop]) for crop in self._head_crops(person)]

    def empty(self) -> Array:
        """Return a mask (H, W) with no pixel."""
        return np.zeros(self.photo.size_hw, np.bool_)

    def background(self) -> Array:
        """Return the pixels (H, W) bool that are background."""
        found = self.own if self.own is not None and any(map(is_background, self.own.names)) else self.clothes
        self.models.append(found.model)
        return np.isin(found.labels_hw, [index for index, label in enumerate(found.names) if is_background(label)])

    def persons(self) -> Array:
        """Return every pixel (H, W) bool of a person: that label, or all the clothes model sees but background."""
        own = self.own
        if own is not None and (meaning := self.words.meaning("person", own.names)):
            self.models.append(own.model)
            return np.isin(own.labels_hw, meaning.ids)
        self.models.append(self.clothes.model)
        names = self.clothes.names
        return np.isin(self.clothes.labels_hw, [index for index, label in enumerate(names) if not is_background(label)])

    def zone(self, number: int) -> Array:
        """Return the pixels (H, W) bool of the person with this number, counted from the left, from 1."""
        if number not in self._zones:
            self._zones[number] = self._find_zone(number)
        return self._zones[number]

    def _find_zone(self, number: int) -> Array:
        mask = self.persons()
        boxes = heads.person_boxes(self.detections, mask)
        if not len(boxes) and number == 1 and mask.any():
            self.notes.append(f"{self.detections.model} detected no person; every person's pixels were taken")
            return mask
        if not 1 <= number <= len(boxes):
            count = "none was" if not len(boxes) else "1 was" if len(boxes) == 1 else f"{len(boxes)} were"
            raise UnknownRegion(f"No person {number} was found in {self.photo.name}, only {count}.{self.inventory()}")
        self.models.append(self.detections.model)
        return heads.zone_of(boxes, number - 1, self.photo.size_hw)

    def _head_crops(self, person: int | None) -> list[heads.Box]:
        if person not in self._crops:
            self._crops[person] = self._find_head_crops(person)
        return self._crops[person]

    def _find_head_crops(self, person: int | None) -> list[heads.Box]:
        """Find heads by hair and skin, else by the persons' boxes, else take the whole photograph."""
        height, width = self.photo.size_hw
        boxes = heads.head_boxes(self._clothes_mask("hair", "hat"), self._clothes_mask("skin"))
        if not boxes:
            everywhere = np.ones(self.photo.size_hw, np.bool_)
            boxes = [heads.upper_part(box) for box in heads.person_boxes(self.detections, everywhere)]
        crops = [crop for box in boxes if (crop := heads.crop_around(box, (height, width)))]
        if person is not None and len(crops) > 1:
            zone = self.zone(person)
            crops = [crop for crop in crops if zone[(crop[1] + crop[3]) // 2, (crop[0] + crop[2]) // 2]]
        return crops or [(0, 0, width, height)]

    def _clothes_mask(self, *words: str) -> Array:
        names = self.clothes.names
        ids = [index for word in words if (meaning := self.words.meaning(word, names)) for index in meaning.ids]
        return np.isin(self.clothes.labels_hw, ids)

    def present(self) -> dict[str, float]:
        """Return the share of the photograph of every label seen so far, largest first."""
        shares: dict[str, float] = {}
        for found in [self.own or self.clothes, *self._faces.values()]:
            part = found.labels_hw.size / (self.photo.height * self.photo.width)
            for label, share in found.present().items():
                if not is_background(label):
                    shares.setdefault(plain_name(label), share * part)
        return dict(sorted(shares.items(), key=lambda item: -item[1]))

    def inventory(self) -> str:
        """Return " In the photograph: ..." with the share of each label."""
        shares = list(self.present().items())
        if not shares:
            return " Nothing but background was found in the photograph."
        listed = ", ".join(f"{label} {share:.1%}" for label, share in shares[:_LISTED])
        return f" In the photograph: {listed}{' and more' if len(shares) > _LISTED else ''}."

"""From a region's words to the pixels they mean.

Which model answers a word: the model that was asked for (`--model`) if it knows the word. Otherwise the clothes model,
except for parts of the face, which the face model finds on a crop around each head. "person 2" is a detection. Only
the models an expression needs are run.

**Left and right** are the wearer's, as in "her left shoe": for someone who faces the camera the left shoe is on the
right of the picture. All label sets with sides of their own mean it so. Where a label has no side, the two connected
parts of the region are taken, and the person is assumed to face the camera. "leftmost shoe" and "rightmost shoe" go
by the picture. **Persons** are counted from the left of the picture.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from imagesmith.core.errors import BadInput, UnknownRegion
from imagesmith.core.protocols import Array
from imagesmith.editing.expressions import Box, Meet, Name, Node, Point, Sum, parse_region
from imagesmith.editing.findings import Findings, See
from imagesmith.editing.vocabulary import Meaning, read_vocabulary, split_side
from imagesmith.image.decode import Photo
from imagesmith.image.masks import components, mask_box
from imagesmith.image.results import UNSURE, Segmentation, plain_name

__all__ = ["Region", "See", "find_region", "resolve_region"]

_STRAY = 0.1  # of the largest part; less does not count as a part


@dataclass(frozen=True, eq=False)
class Region:
    """The pixels an expression means: `mask` (H, W) bool, the models that answered, and remarks on how."""

    mask: Array
    models: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def share(self) -> float:
        """Share of the photograph the region covers, 0 to 1."""
        return float(self.mask.mean())

    @property
    def box_xyxy(self) -> tuple[int, int, int, int] | None:
        """Return the tight box around the region, right and bottom exclusive."""
        return mask_box(self.mask)


def find_region(text: str, photo: Photo, see: See, *, person: int | None = None) -> Array:
    """Return the mask (H, W) float32, 0 or 1, of a region expression; see `resolve_region`."""
    return resolve_region(text, photo, see, person=person).mask.astype(np.float32)


def resolve_region(text: str, photo: Photo, see: See, *, person: int | None = None) -> Region:
    """Find the pixels of a region expression such as "dress", "person - hair" or "left shoe + box:10,20,200,300".

    With `person`, only what belongs to that person, counted from the left.

    Raises:
        BadInput: the expression cannot be read, or a box or a point lies outside the photograph.
        UnknownRegion: a word is unknown or not in the photograph; the sentence lists what is.
    """
    tree = parse_region(text)
    findings = Findings(photo, see, read_vocabulary())
    mask = _Finder(findings, person).mask(tree)
    if not mask.any():
        raise UnknownRegion(f'The region "{text}" covers no pixel of {photo.name}.{findings.inventory()}')
    return Region(mask, tuple(dict.fromkeys(findings.models)), tuple(dict.fromkeys(findings.notes)))


class _Finder:
    """Walk an expression over one photograph."""

    def __init__(self, findings: Findings, person: int | None) -> None:
        self.findings = findings
        self.words = findings.words
        self.person = person

    def mask(self, node: Node) -> Array:
        """Return the pixels (H, W) bool of a tree."""
        if isinstance(node, Sum):
            total = self.mask(node.parts[0][1])
            for sign, part in node.parts[1:]:
                total = total | self.mask(part) if sign == "+" else total & ~self.mask(part)
            return total
        if isinstance(node, Meet):
            return np.logical_and.reduce([self.mask(part) for part in node.parts])
        if isinstance(node, Box):
            return self.kept(self.box(node))
        if isinstance(node, Point):
            return self.kept(self.point(node))
        return self.kept(self.named(node))

    def kept(self, mask: Array) -> Array:
        """Keep what belongs to the person that was asked for, if one was."""
        return mask if self.person is None else mask & self.findings.zone(self.person)

    def box(self, node: Box) -> Array:
        left, top, right, bottom = (round(value) for value in node.xyxy)
        mask = self.findings.empty()
        mask[top:bottom, left:right] = True
        if not mask.any():
            size = f"{self.findings.photo.width} x {self.findings.photo.height}"
            raise BadInput(f"box:{left},{top},{right},{bottom} covers no pixel of the photograph, which is {size}.")
        return mask

    def point(self, node: Point) -> Array:
        photo = self.findings.photo
        x, y = int(node.x), int(node.y)
        if x >= photo.width or y >= photo.height:
            raise BadInput(f"point:{x},{y} is outside the photograph, which is {photo.width} x {photo.height} pixels.")
        found = self.findings.own or self.findings.clothes
        label = int(found.labels_hw[y, x])
        if label == UNSURE:
            raise UnknownRegion(f"{found.model} is unsure what is at point:{x},{y}.{self.findings.inventory()}")
        self.findings.models.append(found.model)
        self.findings.notes.append(f'point:{x},{y} is on "{plain_name(found.names[label])}"')
        parts = components(found.labels_hw == label)
        return parts.labels == parts.labels[y, x]

    def named(self, name: Name) -> Array:
        """Return the pixels of a word: a person, what the named model knows, a special word, or any model's label."""
        numbered = None if name.exact else re.fullmatch(r"(.+?)\s+(\d{1,4})", name.text)
        if numbered and self.words.canonical(numbered[1]) == "person":
            return self.findings.persons() & self.findings.zone(int(numbered[2]))
        own = self.findings.own
        if own is not None and (meaning := self.meaning(name, own)):
            mask = np.isin(own.labels_hw, meaning.ids)
            if not mask.any():
                raise self.absent(name, known=True)
            self.used(own, meaning, name)
            return self.pick(mask, meaning, name)
        word = self.words.canonical(name.text)
        if name.exact:
            return self.answered(word, name)
        if word == "everything":
            return ~self.findings.empty()
        if word in ("background", "person"):
            mask = self.findings.background() if word == "background" else self.findings.persons()
            if not mask.any():
                raise self.absent(name, known=True)
            return mask
        return self.joined(word, name) if word in self.words.joined else self.answered(word, name)

    def meaning(self, name: Name, found: Segmentation) -> Meaning | None:
        look = self.words.exact if name.exact else self.words.meaning
        return look(name.text, found.names)

    def answered(self, word: str, name: Name) -> Array:
        """Ask the models in the order the vocabulary says, until one sees the word."""
        base = split_side(word)[1]
        order = ["clothes"]
        if {word, base} & self.words.face_first:
            order = ["face", "clothes"]
        elif base in self.words.face_after:
            order = ["clothes", "face"]
        known = False
        for model in order:
            mask, meaning = self.in_faces(name) if model == "face" else self.in_clothes(name)
            known |= meaning is not None
            if meaning is not None and mask.any():
                return self.pick(mask, meaning, name)
        raise self.absent(name, known)

    def in_clothes(self, name: Name) -> tuple[Array, Meaning | None]:
        found = self.findings.clothes
        meaning = self.meaning(name, found)
        mask = np.isin(found.labels_hw, meaning.ids) if meaning else self.findings.empty()
        if meaning and mask.any():
            self.used(found, meaning, name)
        return mask, meaning

    def in_faces(self, name: Name) -> tuple[Array, Meaning | None]:
        """Look for a word in the crop of every head, and put the answers where the crops were."""
        mask = self.findings.empty()
        meaning = None
        for (left, top, right, bottom), found in self.findings.faces(self.person):
            meaning = self.meaning(name, found)
            if meaning is not None and (here := np.isin(found.labels_hw, meaning.ids)).any():
                mask[top:bottom, left:right] |= here
                self.used(found, meaning, name)
        return mask, meaning

    def used(self, found: Segmentation, meaning: Meaning, name: Name) -> None:
        self.findings.models.append(found.model)
        if meaning.wider:
            taken = " and ".join(f'"{plain_name(found.names[index])}"' for index in meaning.ids)
            self.findings.notes.append(f'{found.model} has no label "{name.text}"; {taken} was taken')

    def joined(self, word: str, name: Name) -> Array:
        mask = self.findings.empty()
        for part in self.words.joined[word]:
            try:
                mask |= self.named(Name(part, name.column))
            except UnknownRegion:
                continue  # this part is not in the photograph; one of the others may be
        if not mask.any():
            raise self.absent(name, known=True)
        return mask

    def pick(self, mask: Array, meaning: Meaning, name: Name) -> Array:
        """Keep the part on one side, where the word has a side that the labels have not."""
        side = meaning.side
        if side is None:
            return mask
        parts = components(self.kept(mask))
        real = [index for index in range(len(parts)) if parts.areas[index] >= _STRAY * parts.areas[0]]
        if not real or (side in ("left", "right") and len(real) != 2):
            raise UnknownRegion(
                f'"{name.text}" needs exactly two separate parts to choose from, but {len(real)} were found; '
                'say "leftmost" or "rightmost", choose one person, or give point:x,y.'
            )
        # The wearer's left is at the right of the picture.
        to_the_right = side in ("left", "rightmost")
        if side in ("left", "right"):
            at = "right" if to_the_right else "left"
            self.findings.notes.append(f'"{name.text}" is the wearer\'s {side}, the part at the {at} of the picture')
        middles = {index: float(np.flatnonzero(parts.mask(index).any(axis=0)).mean()) for index in real}
        return parts.mask(sorted(real, key=lambda index: middles[index], reverse=to_the_right)[0])

    def absent(self, name: Name, known: bool) -> UnknownRegion:
        """Return the error for a word that is nowhere: unknown, or not in this photograph."""
        inventory = self.findings.inventory()
        near = self.words.suggestion(name.text, self.findings.present())
        if known or self.words.knows(name.text):
            return UnknownRegion(f'No "{name.text}" was found in {self.findings.photo.name}.{near}{inventory}')
        parts = [part for part in name.text.split("-") if part]
        if not name.exact and len(parts) > 1 and all(map(self.words.knows, parts)):
            near = f' To take one region from another, put spaces around the minus: "{" - ".join(parts)}".'
        return UnknownRegion(f'No model here knows the region "{name.text}" (column {name.column}).{near}{inventory}')

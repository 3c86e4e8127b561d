"""Which part of a pack is for validation: the one definition that training and evaluation share."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Literal

Split = Literal["all", "train", "val"]
"""Part of a pack; "val" and "train" together are "all"."""
Group = Literal["file", "person"]
"""What stays together: single files, or all photographs of one person."""

EVERY = 8

_LAST_NUMBER = re.compile(r"[ _-]*\d+$")


def every_eighth(names: Iterable[str]) -> frozenset[str]:
    """Choose the validation part of a list of names: the first, ninth, 17th ... in the order of the stems.

    The order is that of plain strings, of the names without folder and suffix, so that image and mask agree;
    names with one stem count once.

    >>> sorted(every_eighth(f"{number:02}.jpg" for number in range(1, 18)))
    ['01.jpg', '09.jpg', '17.jpg']
    """
    listed = list(names)
    stems = sorted({stem_of(name) for name in listed})
    chosen = set(stems[::EVERY])
    return frozenset(name for name in listed if stem_of(name) in chosen)


def every_eighth_person(names: Iterable[str]) -> frozenset[str]:
    """Choose all photographs of every eighth person; a person is the file's name minus its last number.

    No person is in both parts, so that the figures are about faces the model has not seen.

    >>> names = ["female/Ann_0001.jpg", "female/Ann_0002.jpg", "male/Bob_0001.jpg"]
    >>> sorted(every_eighth_person(names))
    ['female/Ann_0001.jpg', 'female/Ann_0002.jpg']
    """
    listed = list(names)
    people = sorted({person_of(name) for name in listed})
    chosen = set(people[::EVERY])
    return frozenset(name for name in listed if person_of(name) in chosen)


def select(names: Iterable[str], split: Split, group: Group = "file") -> list[str]:
    """Return the names of one part, in the order given.

    >>> select(["a.jpg", "b.jpg"], "train")
    ['b.jpg']
    """
    listed = list(names)
    if split == "all":
        return listed
    validation = every_eighth_person(listed) if group == "person" else every_eighth(listed)
    return [name for name in listed if (name in validation) == (split == "val")]


def natural_group(names: Iterable[str]) -> Group:
    """Tell whether file names are those of numbered photographs of many people: then people are kept together.

    True of "Ann_Lee_0001.jpg", "Bob_0001.jpg", "Bob_0002.jpg" ...: every name ends in a number, some share the
    rest, and there are enough different people for both parts.

    >>> natural_group(f"cat/img_{number:04}.jpg" for number in range(100))
    'file'
    """
    stems = {stem_of(name) for name in names}
    people = {person_of(stem) for stem in stems}
    numbered = all(_LAST_NUMBER.search(stem) for stem in stems) and "" not in people
    return "person" if numbered and 2 * EVERY <= len(people) < len(stems) else "file"


def stem_of(name: str) -> str:
    """Return a file's name without folder and suffix."""
    return PurePosixPath(name.replace("\\", "/")).stem


def person_of(name: str) -> str:
    """Return the person a photograph is named after: its stem minus the last number.

    >>> person_of("female/AJ_Cook_0001.jpg")
    'AJ_Cook'
    """
    return _LAST_NUMBER.sub("", stem_of(name))

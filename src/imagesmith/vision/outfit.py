"""Summarise what a person wears: garments, the share of the person each covers, and its main colours."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagesmith.image.color import hex_of, name_of, oklab_from_rgb, rgb_from_oklab
from imagesmith.image.photo import Photo
from imagesmith.image.records import pixels_of
from imagesmith.image.results import Segmentation, is_background, plain_name

_BODY = frozenset(
    {
        "hair",
        "face",
        "skin",
        "torso",
        "arm",
        "arms",
        "leg",
        "legs",
        "foot",
        "feet",
        "hand",
        "hands",
        "neck",
        "nose",
        "eye",
        "eyes",
        "brow",
        "brows",
        "eyebrow",
        "ear",
        "ears",
        "mouth",
        "lip",
        "lips",
        "teeth",
        "beard",
        "person",
        "human",
        "head",
    }
)
"""Words of labels that are parts of the body, not garments, once sides are left out."""
_SIDES = frozenset({"left", "right", "l", "r", "u", "upper", "lower"})
_SPECIAL = {"eye g": "glasses", "ear r": "earrings", "neck l": "necklace", "cloth": "clothes"}
"""CelebAMask-HQ's short names of things that are worn."""
_SAMPLE = 2048
_CLUSTERS = 5
_ROUNDS = 12
_LIGHTNESS_WEIGHT = 0.6
"""Folds change lightness more than hue, so lightness counts less when colours are told apart."""
_SAME_COLOR = 0.09
"""Distance in weighted OKLab below which two clusters are one colour to the eye."""
_LEAST_COLOR_SHARE = 0.1
_LEAST_SHARE = 0.002
"""Least share of the person; smaller specks are the network's noise rather than garments."""


@dataclass(frozen=True)
class MainColor:
    """One of a garment's main colours: the nearest CSS name, the colour itself, and its share of the garment."""

    name: str
    hex: str
    share: float


@dataclass(frozen=True)
class Garment:
    """One garment: its share of the person's area and of the photograph (0 to 1), and its colours, main one first."""

    name: str
    share: float
    share_of_photo: float
    colors: tuple[MainColor, ...]


@dataclass(frozen=True)
class Outfit:
    """What a person wears, largest garment first; `person_share` is the person's share of the photograph."""

    garments: tuple[Garment, ...]
    person_share: float
    model: str
    image: str

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        return {"task": "outfit", **asdict(self)}

    def text(self) -> str:
        """Write the outfit for people, one garment per line."""
        if not self.garments:
            return "no garments found"
        width = max(len(garment.name) for garment in self.garments)
        lines = [
            f"{garment.name:<{width}}  {garment.share:6.1%}  "
            + ", ".join(f"{color.name} {color.hex}" for color in garment.colors)
            for garment in self.garments
        ]
        return "\n".join(lines)


def outfit(segmentation: Segmentation, photo: Photo) -> Outfit:
    """Summarise the garments of a photograph cut by a clothes model.

    The person is everything but background and unsure pixels; left and right of a pair (shoes) are one garment.
    What covers less than 0.2 % of the person is left out.
    Shares are of the person's area. Raises `BadInput` where the photograph is not the one that was segmented.
    """
    pixels = pixels_of(photo, segmentation.size_hw)
    labels = segmentation.labels_hw
    counts = np.bincount(labels.ravel(), minlength=256)
    person = sum(int(counts[i]) for i, name in enumerate(segmentation.names) if not is_background(name))
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(segmentation.names):
        garment = garment_name(name)
        if garment is not None and counts[index]:
            groups.setdefault(garment, []).append(index)
    garments = []
    for name, ids in groups.items():
        area = int(counts[ids].sum())
        if area < _LEAST_SHARE * person:
            continue
        colors = main_colors(_sample(pixels, np.isin(labels, ids)))
        garments.append(Garment(name, area / person, area / labels.size, colors))
    garments.sort(key=lambda garment: (-garment.share, garment.name))
    return Outfit(tuple(garments), person / labels.size, segmentation.model, segmentation.image)


def garment_name(label: str) -> str | None:
    """Return a label as the name of a garment, without its side; None for background and parts of the body.

    >>> garment_name("Left-shoe"), garment_name("Left-arm"), garment_name("Upper-clothes"), garment_name("ear_r")
    ('shoe', None, 'upper clothes', 'earrings')
    """
    name = plain_name(label)
    if name in _SPECIAL:
        return _SPECIAL[name]
    words = [word for word in name.split() if word not in _SIDES]
    if is_background(label) or not words or all(word in _BODY for word in words):
        return None
    return name.removeprefix("left ").removeprefix("right ")


def main_colors(pixels: NDArray[np.uint8], count: int = 3) -> tuple[MainColor, ...]:
    """Return at most `count` main colours of pixels (n, 3), by clustering in OKLab; the same pixels give the same.

    Clusters start at the most common colour and then as far from each other as possible; near ones are joined, and
    those below a tenth of the pixels left out.

    >>> [color.name for color in main_colors(np.array([[220, 20, 60]] * 9 + [[255, 255, 255]] * 3, np.uint8))]
    ['crimson', 'white']
    """
    if not len(pixels):
        return ()
    lab = oklab_from_rgb(_sample(pixels, np.ones(len(pixels), np.bool_)))
    member = _cluster(lab * [_LIGHTNESS_WEIGHT, 1, 1])
    found: dict[str, MainColor] = {}
    for index in np.unique(member):
        inside = lab[member == index]
        lit = inside[inside[:, 0] >= np.median(inside[:, 0])]  # people name the lit side of a fold, not its shadow
        rgb = rgb_from_oklab(lit.mean(axis=0)).clip(0, 255).round().astype(np.uint8)
        color = MainColor(name_of(rgb), hex_of(rgb), len(inside) / len(lab))
        known = found.get(color.name, color)  # one name is one colour: the larger part gives its shade
        larger = known if known.share > color.share else color
        found[color.name] = replace(larger, share=color.share + (0 if known is color else known.share))
    ranked = sorted(found.values(), key=lambda color: (-color.share, color.hex))
    return tuple([color for color in ranked if color.share >= _LEAST_COLOR_SHARE][:count] or ranked[:1])


def _sample(pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Take a few thousand of a mask's pixels (n, 3), evenly spread, so that large photographs cost no more."""
    places = np.flatnonzero(mask)
    step = np.linspace(0, len(places) - 1, min(_SAMPLE, len(places))).round().astype(np.intp)
    return pixels.reshape(-1, 3)[places[step]]


def _cluster(points: NDArray[np.floating[Any]]) -> NDArray[np.intp]:
    """Return the cluster of every point (n, 3): k-means from a farthest-point start, near clusters joined."""
    centres = np.median(points, axis=0)[None]
    for _ in range(_CLUSTERS - 1):
        far = _distances(points, centres).min(axis=1)
        if far.max() < _SAME_COLOR:
            break
        # Not the farthest point of all: a lone reflection should not become a colour.
        order = np.argsort(far, kind="stable")
        centres = np.concatenate([centres, points[order[int(0.98 * (len(order) - 1))]][None]])
    member = _distances(points, centres).argmin(axis=1)
    for _ in range(_ROUNDS):
        used = np.unique(member)
        centres = np.stack([points[member == index].mean(axis=0) for index in used])
        moved = _distances(points, centres).argmin(axis=1)
        if np.array_equal(moved, member):
            break
        member = moved
    used = np.unique(member)
    centres = np.stack([points[member == index].mean(axis=0) for index in used])
    return _joined(_distances(centres, centres))[np.searchsorted(used, member)]


def _joined(distances: NDArray[np.floating[Any]]) -> NDArray[np.intp]:
    """Give clusters (k, k) that are near each other one number."""
    group = np.arange(len(distances))
    for first, second in zip(*np.nonzero(distances < _SAME_COLOR), strict=True):
        group[group == group[second]] = group[first]
    return group


def _distances(points: NDArray[np.floating[Any]], centres: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    return np.stack([np.sqrt(((points - centre) ** 2).sum(axis=-1)) for centre in centres], axis=1)

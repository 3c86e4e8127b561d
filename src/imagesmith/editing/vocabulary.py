"""Which labels of a model a word stands for; the words themselves are data, in `regions.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal, TypeAlias

from imagesmith.core.errors import did_you_mean
from imagesmith.image.results import is_background, plain_name

Side: TypeAlias = Literal["left", "right", "leftmost", "rightmost"]
_SIDES: tuple[Side, ...] = ("left", "right", "leftmost", "rightmost")


@dataclass(frozen=True)
class Meaning:
    """What a word stands for in one model: label ids; `side` where one of two connected parts is meant.

    `wider` where the model does not have the word itself and these labels take in more.
    """

    ids: tuple[int, ...]
    side: Side | None = None
    wider: bool = False


@dataclass(frozen=True)
class Vocabulary:
    """The words of `regions.toml`, every word in its plain form (see `plain_word`)."""

    sets: tuple[tuple[frozenset[str], Mapping[str, str]], ...]
    """Labels by which a label set is recognised, and its labels that stand for other words."""
    spellings: Mapping[str, str]
    groups: Mapping[str, tuple[str, ...]]
    wider: Mapping[str, tuple[str, ...]]
    face_first: frozenset[str]
    face_after: frozenset[str]
    joined: Mapping[str, tuple[str, ...]]
    words: tuple[str, ...]
    """Every word and spelling, as it is written in the file."""

    def canonical(self, word: str) -> str:
        """Return the word a spelling stands for, keeping a side in front of it.

        >>> read_vocabulary().canonical("Left eyebrows")
        'left brow'
        """
        plain = plain_word(word)
        side, rest = split_side(plain)
        if side is not None and plain not in self.spellings:
            return f"{side} {self.spellings.get(rest, rest)}"
        return self.spellings.get(plain, plain)

    def meaning(self, word: str, names: Sequence[str]) -> Meaning | None:
        """Return what a word stands for among a model's label names, or None where the model has nothing like it.

        >>> words = read_vocabulary()
        >>> words.meaning("trousers", ("background", "Pants", "Left-shoe", "Right-shoe"))
        Meaning(ids=(1,), side=None, wider=False)
        >>> words.meaning("left boot", ("background", "Pants", "Left-shoe", "Right-shoe"))
        Meaning(ids=(2,), side=None, wider=True)
        """
        labels = self._labels(names)
        canonical = self.canonical(word)
        for candidate in (plain_word(word), canonical):
            if candidate in labels and candidate not in self.groups:
                return Meaning(labels[candidate])
        side, rest = split_side(canonical)
        if side is None:
            return self._lookup(canonical, labels)
        found = self._lookup(rest, labels)
        if found is None or side in ("leftmost", "rightmost"):
            return found and Meaning(found.ids, side, found.wider)
        own = {index for label, ids in labels.items() if label.startswith(f"{side} ") for index in ids}
        sided = tuple(index for index in found.ids if index in own)
        return Meaning(sided, None, found.wider) if sided else Meaning(found.ids, side, found.wider)

    def exact(self, label: str, names: Sequence[str]) -> Meaning | None:
        """Return the label written exactly so (letter case and hyphens aside), or None."""
        ids = tuple(index for index, name in enumerate(names) if plain_name(name) == plain_name(label))
        return Meaning(ids) if ids else None

    def knows(self, word: str) -> bool:
        """Tell whether a word or another spelling of it stands in the file at all, with or without a side."""
        _, rest = split_side(self.canonical(word))
        return rest in {plain_word(known) for known in self.words}

    def suggestion(self, word: str, present: Iterable[str]) -> str:
        """Return " Did you mean ...?" for a word that is not there: a near spelling, or a present label of its kind."""
        canonical = self.canonical(word)
        shown = [name for name in present if not is_background(name)]
        kinds = [group for group in self._kinds() if canonical in group]
        kin = [name for group in kinds for name in shown if self.canonical(name) in group]
        if kin:
            return f' Did you mean "{plain_name(kin[0])}"?'
        return did_you_mean(plain_name(word), dict.fromkeys([*map(plain_name, shown), *self.words]))

    def _kinds(self) -> Iterator[tuple[str, ...]]:
        """Yield the groups from small to large, so that the closest kin is suggested first."""
        yield from sorted(self.groups.values(), key=len)

    def _labels(self, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """Return the label ids of every word a model's labels are known by."""
        plain = [plain_word(name) for name in names]
        codes: Mapping[str, str] = {}
        for marks, mapping in self.sets:
            if marks <= set(plain):
                codes = mapping
        found: dict[str, tuple[int, ...]] = {}
        for index, label in enumerate(plain):
            own = codes.get(label, label)
            for word in dict.fromkeys((own, self.canonical(own))):
                if word:
                    found[word] = (*found.get(word, ()), index)
        return found

    def _lookup(self, word: str, labels: Mapping[str, tuple[int, ...]]) -> Meaning | None:
        """Return the labels of a word: its group's, its own, or those of the first wider word that has any."""
        ids = self._members(word, labels, frozenset())
        if ids:
            return Meaning(tuple(sorted(ids)))
        for other in self.wider.get(word, ()):
            ids = self._members(other, labels, frozenset())
            if ids:
                return Meaning(tuple(sorted(ids)), wider=True)
        return None

    def _members(self, word: str, labels: Mapping[str, tuple[int, ...]], above: frozenset[str]) -> set[int]:
        if word not in self.groups or word in above:
            return set(labels.get(word, ()))
        sure: set[int] = set()
        extra: set[int] = set()
        for member in self.groups[word]:
            found = self._members(member.removesuffix("?"), labels, above | {word})
            (extra if member.endswith("?") else sure).update(found)
        return sure | extra if sure else set()


def read_vocabulary() -> Vocabulary:
    """Read the words that ship with the package."""
    text = resources.files("imagesmith.editing").joinpath("regions.toml").read_text(encoding="utf-8")
    data = tomllib.loads(text)
    return Vocabulary(
        sets=tuple(
            (
                frozenset(map(plain_word, group["has"])),
                {plain_word(label): plain_word(word) for label, word in group["labels"].items()},
            )
            for group in data["sets"]
        ),
        spellings={plain_word(other): plain_word(word) for word, all_ in data["spellings"].items() for other in all_},
        groups=_plain_lists(data["groups"]),
        wider=_plain_lists(data["wider"]),
        face_first=frozenset(map(plain_word, data["answers"]["face_first"])),
        face_after=frozenset(map(plain_word, data["answers"]["face_after"])),
        joined=_plain_lists(data["joined"]),
        words=tuple(dict.fromkeys(_written(data))),
    )


def _written(data: Mapping[str, Any]) -> Iterator[str]:
    for table in ("spellings", "groups", "wider", "joined", "answers"):
        for word, others in data[table].items():
            if table != "answers":
                yield word
            yield from (other.removesuffix("?") for other in others)


def _plain_lists(table: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    return {
        plain_word(word): tuple(plain_word(member.removesuffix("?")) + "?" * member.endswith("?") for member in members)
        for word, members in table.items()
    }


def plain_word(text: str) -> str:
    """Return a word as the vocabulary compares it: lower case, single spaces, the last word singular.

    >>> plain_word("Upper-clothes"), plain_word("left shoes"), plain_word("dress"), plain_word("Glasses")
    ('upper clothe', 'left shoe', 'dress', 'glass')
    """
    plain = plain_name(text)
    if plain.endswith("ies") and len(plain) > 4:
        return f"{plain[:-3]}y"
    if plain.endswith("sses"):
        return plain[:-2]
    if plain.endswith("s") and not plain.endswith("ss"):
        return plain[:-1]
    return plain


def split_side(plain: str) -> tuple[Side | None, str]:
    """Split a side off a plain word.

    >>> split_side("left shoe"), split_side("shoe")
    (('left', 'shoe'), (None, 'shoe'))
    """
    for side in _SIDES:
        if plain.startswith(f"{side} "):
            return side, plain[len(side) + 1 :]
    return None, plain

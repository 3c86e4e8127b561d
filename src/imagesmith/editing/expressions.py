"""Read a region as people type it, "person - hair + box:10,20,200,300", into a small tree.

    sum    = meet (("+" | "-") meet)*          from left to right
    meet   = term ("&" term)*                  what lies in all of them
    term   = name | "quoted name" | box | point | "(" sum ")"
    box    = "box:" left "," top "," right "," bottom        in pixels, right and bottom exclusive
    point  = "point:" x "," y

A hyphen inside a word belongs to it ("t-shirt"); a minus has a space on at least one side. A quoted name is one label,
letter by letter, however many aliases the word has.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from imagesmith.core.errors import BadInput

_LONGEST = 1000
_DEEPEST = 40
_NUMBER = r"\s*(\d{1,7}(?:\.\d{1,7})?)\s*"
_BOX = re.compile(rf"box\s*:{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}", re.IGNORECASE)
_POINT = re.compile(rf"point\s*:{_NUMBER},{_NUMBER}", re.IGNORECASE)
_QUOTED = re.compile(r"\"([^\"]*)\"|'([^']*)'")
_NAME = re.compile(r"[^\W_](?:[\w./]|(?<=\w)['’](?=\w)|(?<=[\w.])-(?=\w)|\s+(?=\w))*")


@dataclass(frozen=True)
class Name:
    """A region by its word; `exact` where it was quoted."""

    text: str
    column: int
    exact: bool = False


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels, right and bottom exclusive."""

    xyxy: tuple[float, float, float, float]
    column: int


@dataclass(frozen=True)
class Point:
    """The connected region of the label under a pixel."""

    x: float
    y: float
    column: int


@dataclass(frozen=True)
class Meet:
    """What lies in all parts."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Sum:
    """Parts added and taken away from left to right; the first is always added."""

    parts: tuple[tuple[Literal["+", "-"], Node], ...]


Node: TypeAlias = Name | Box | Point | Meet | Sum


def parse_region(text: str) -> Node:
    """Return the tree of a region expression; raises `BadInput` that names the column.

    >>> parse_region("person - hair")
    Sum(parts=(('+', Name(text='person', column=1, exact=False)), ('-', Name(text='hair', column=10, exact=False))))
    >>> parse_region("dress)")
    Traceback (most recent call last):
    imagesmith.core.errors.BadInput: The region "dress)" has ")" at column 6 where +, -, & or the end should stand.
    """
    if len(text) > _LONGEST:
        raise BadInput(f"The region has {len(text)} characters; at most {_LONGEST} are read.")
    if not text.strip():
        raise BadInput('The region is empty; name one, as in "dress" or "person - hair".')
    reader = _Reader(text)
    tree = reader.sum(0)
    if reader.at < len(text):
        raise reader.error("+, -, & or the end")
    return tree


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.skip_space()

    def sum(self, depth: int) -> Node:
        if depth > _DEEPEST:
            raise BadInput(f'The region "{_short(self.text)}" nests more than {_DEEPEST} parentheses; use fewer.')
        parts: list[tuple[Literal["+", "-"], Node]] = [("+", self.meet(depth))]
        while self.peek() in ("+", "-"):
            sign: Literal["+", "-"] = "+" if self.take() == "+" else "-"
            parts.append((sign, self.meet(depth)))
        return parts[0][1] if len(parts) == 1 else Sum(tuple(parts))

    def meet(self, depth: int) -> Node:
        parts = [self.term(depth)]
        while self.peek() == "&":
            self.take()
            parts.append(self.term(depth))
        return parts[0] if len(parts) == 1 else Meet(tuple(parts))

    def term(self, depth: int) -> Node:
        column = self.at + 1
        if self.peek() == "(":
            self.take()
            inside = self.sum(depth + 1)
            if self.peek() != ")":
                raise self.error('")"')
            self.take()
            return inside
        for shape in ("box", "point"):
            if re.match(rf"{shape}\s*:", self.text[self.at :], re.IGNORECASE):
                return self.shape(shape, column)
        if found := self.match(_QUOTED):
            words = (found[1] if found[1] is not None else found[2]).strip()
            if not words:
                raise BadInput(f'The quotes at column {column} of the region "{_short(self.text)}" are empty.')
            return Name(words, column, exact=True)
        if found := self.match(_NAME):
            return Name(" ".join(found[0].split()), column)
        raise self.error('a name, box:, point: or "("')

    def shape(self, shape: str, column: int) -> Node:
        found = self.match(_BOX if shape == "box" else _POINT)
        if found is None:
            like = "box:10,20,200,300" if shape == "box" else "point:120,80"
            count = "four numbers (left, top, right, bottom)" if shape == "box" else "two numbers (x, y)"
            raise BadInput(f'{shape}: at column {column} of "{_short(self.text)}" needs {count}, as in {like}.')
        numbers = [float(number) for number in found.groups()]
        if shape == "point":
            return Point(numbers[0], numbers[1], column)
        left, top, right, bottom = numbers
        if right <= left or bottom <= top:
            raise BadInput(
                f'box: at column {column} of "{_short(self.text)}" is empty; right must be more than left '
                f"and bottom more than top, but it goes from {left:g},{top:g} to {right:g},{bottom:g}."
            )
        return Box((left, top, right, bottom), column)

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self.text, self.at)
        if found:
            self.at = found.end()
            self.skip_space()
        return found

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def take(self) -> str:
        sign = self.peek()
        self.at += 1
        self.skip_space()
        return sign

    def skip_space(self) -> None:
        while self.peek().isspace():
            self.at += 1

    def error(self, expected: str) -> BadInput:
        column = self.at + 1
        where = f'The region "{_short(self.text)}"'
        if self.at >= len(self.text):
            return BadInput(f"{where} ends at column {column} where {expected} should follow.")
        return BadInput(f'{where} has "{self.peek()}" at column {column} where {expected} should stand.')


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."

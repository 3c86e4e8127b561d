"""Draw results over photographs: tinted regions, boxes with labels, bars, and a legend beside the picture.

The legend stands beside or below the photograph, so it hides nothing. Small photographs are enlarged by a whole
factor first; sizes of text and lines follow the picture, so that both stay readable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from imagesmith.core.protocols import Array, Image

Color = tuple[int, int, int]

PAPER: Color = (250, 250, 248)
INK: Color = (28, 28, 32)
MUTED: Color = (205, 205, 200)
BAR: Color = (70, 110, 180)
SMALLEST_SIDE = 320
"""Pictures whose longer side is below this are enlarged."""


class Entry(NamedTuple):
    """One line of a legend: a colour patch, a name, and a figure that stands on the right."""

    color: Color
    name: str
    figure: str = ""


def enlargement(height: int, width: int) -> int:
    """Return the whole factor by which a small picture is enlarged before drawing on it.

    >>> enlargement(100, 60), enlargement(1080, 1920)
    (4, 1)
    """
    return max(1, -(-SMALLEST_SIDE // max(height, width)))


def enlarge(values_hw: Array, factor: int) -> Array:
    """Repeat every pixel `factor` times along both axes of an array (H, W, ...)."""
    return values_hw if factor == 1 else values_hw.repeat(factor, axis=0).repeat(factor, axis=1)


def text_height(height: int, width: int) -> int:
    """Return the size of text, in pixels, that suits a picture: 2.2 % of its mean side, at least 13."""
    return max(13, round(0.022 * (height + width) / 2))


def tint(pixels: Image, labels_hw: Array, colors: Array, shown: Array, opacity: float) -> Image:
    """Blend every pixel with the colour of its label, and trace the regions' edges.

    `pixels` (H, W, 3) uint8, `labels_hw` (H, W) uint8, `colors` (256, 3) uint8, `shown` (256,) bool: labels that are
    left as they are where False. `opacity` is 0 to 1.
    """
    share = np.where(shown, round(256 * opacity), 0).astype(np.uint16)
    light = colors.astype(np.uint16) * share[:, None]
    result = np.empty_like(pixels)
    line = max(1, round(min(labels_hw.shape) / 500))
    for top in range(0, len(pixels), 256):  # bands keep the 16-bit copies small
        band = slice(top, top + 256)
        labels = labels_hw[band]
        blend = (pixels[band] * (256 - share[labels])[..., None] + light[labels]) >> 8
        below = labels_hw[top : top + 256 + line]
        edge = np.zeros(labels.shape, np.bool_)
        rows = min(len(labels), len(below) - line)
        edge[: max(rows, 0)] = labels[: max(rows, 0)] != below[line : line + max(rows, 0)]
        edge[:, :-line] |= labels[:, :-line] != labels[:, line:]
        blend[edge] = (blend[edge] + 3 * 255) // 4
        result[band] = blend
    return result


def add_legend(pixels: Image, entries: Sequence[Entry], title: str = "") -> Image:
    """Return the picture with a legend: to the right of tall and square pictures, below wide ones."""
    height, width = pixels.shape[:2]
    size = text_height(height, width)
    font, line, space, gap = _font(size), round(1.5 * size), round(0.6 * size), 2 * size
    column = max([_width(font, f"{entry.name}   {entry.figure}") for entry in entries], default=0) + 3 * size
    column = max(column, 8 * size)
    below = width > 1.25 * height
    head = line if title else 0
    if below:
        columns = max(1, min((width - space) // (column + gap), len(entries) or 1))
    else:
        columns = max(1, -(-len(entries) // max(1, (height - head - 2 * space) // line)))
    rows = -(-len(entries) // columns)
    panel_width = max(columns * (column + gap) - gap + 2 * space, _width(font, title) + 2 * space)
    panel_height = head + rows * line + 2 * space
    full_width = max(width, panel_width) if below else width + panel_width
    full_height = height + panel_height if below else max(height, panel_height)
    canvas = PillowImage.new("RGB", (full_width, full_height), PAPER)
    canvas.paste(PillowImage.fromarray(pixels), (0, 0))
    pen = ImageDraw.Draw(canvas)
    left, top = (space, height + space) if below else (width + space, space)
    if title:
        pen.text((left, top + line // 2), title, fill=INK, font=font, anchor="lm")
    for index, entry in enumerate(entries):
        x = left + index // rows * (column + gap)
        y = top + head + index % rows * line + line // 2
        pen.rectangle((x, y - size // 2, x + size, y + size // 2), fill=entry.color, outline=INK)
        pen.text((x + round(1.6 * size), y), entry.name, fill=INK, font=font, anchor="lm")
        pen.text((x + column, y), entry.figure, fill=INK, font=font, anchor="rm")
    return np.asarray(canvas)


def draw_boxes(pixels: Image, boxes_xyxy: Array, texts: Sequence[str], colors: Sequence[Color]) -> Image:
    """Draw boxes (n, 4) with a tag each; the first box is the most important and is drawn last, on top.

    A tag stands above its box, inside it at the upper edge of the picture, and lower where another tag already is.
    """
    height, width = pixels.shape[:2]
    canvas = PillowImage.fromarray(pixels)
    pen = ImageDraw.Draw(canvas)
    size = text_height(height, width)
    font, line = _font(size), max(2, round(size / 6))
    boxes = np.clip(np.nan_to_num(boxes_xyxy), 0, [width - 1, height - 1] * 2).round().astype(int)
    for box, color in zip(boxes[::-1].tolist(), list(colors)[::-1], strict=True):
        pen.rectangle(box, outline=color, width=line)
    taken: list[tuple[int, int, int, int]] = []
    for box, text, color in zip(boxes.tolist(), texts, colors, strict=True):
        tag = _place_tag(box, (_width(font, text) + size // 2, round(1.35 * size)), (height, width), taken)
        taken.append(tag)
        pen.rectangle(tag, fill=color)
        middle = (tag[1] + tag[3]) // 2
        pen.text((tag[0] + size // 4, middle), text, fill=_ink_on(color), font=font, anchor="lm")
    return np.asarray(canvas)


def add_bars(pixels: Image, names: Sequence[str], shares: Sequence[float], note: str = "") -> Image:
    """Return the picture with a panel below: one bar per name, its length the share (0 to 1), then a note."""
    height, width = pixels.shape[:2]
    size = text_height(height, width)
    font, line, space = _font(size), round(1.6 * size), round(0.6 * size)
    name_width = max([_width(font, name) for name in names], default=0)
    bar_width = max(width - name_width - 8 * size, 6 * size)
    full_width = max(width, name_width + bar_width + 8 * size)
    notes = _wrap(note, font, full_width - 2 * space)
    canvas = PillowImage.new("RGB", (full_width, height + line * (len(names) + len(notes)) + 2 * space), PAPER)
    canvas.paste(PillowImage.fromarray(pixels), (0, 0))
    pen = ImageDraw.Draw(canvas)
    for index, (name, share) in enumerate(zip(names, shares, strict=True)):
        y, x = height + space + index * line + line // 2, 2 * space + name_width
        pen.text((space, y), name, fill=INK, font=font, anchor="lm")
        pen.rectangle((x, y - size // 3, x + bar_width, y + size // 3), fill=MUTED)
        pen.rectangle((x, y - size // 3, x + round(bar_width * share), y + size // 3), fill=BAR)
        pen.text((x + bar_width + space, y), percent(share), fill=INK, font=font, anchor="lm")
    for index, words in enumerate(notes):
        y = height + space + (len(names) + index) * line + line // 2
        pen.text((space, y), words, fill=INK, font=font, anchor="lm")
    return np.asarray(canvas)


def percent(share: float) -> str:
    """Write a share of 1 for people.

    >>> percent(0.1234), percent(0.0004)
    ('12.3 %', '< 0.1 %')
    """
    return "< 0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %"


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _width(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, text: str) -> int:
    return round(font.getlength(text))


def _ink_on(color: Color) -> Color:
    """Choose dark or light text, whichever is easier to read on a colour."""
    return INK if 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 128 else PAPER


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """Break a text into lines that fit."""
    lines: list[str] = []
    for word in text.split():
        if lines and _width(font, f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _place_tag(
    box: Sequence[int], tag_wh: tuple[int, int], size_hw: tuple[int, int], taken: Sequence[tuple[int, int, int, int]]
) -> tuple[int, int, int, int]:
    """Find a place for a tag near the upper edge of its box that hides no earlier tag, if there is one."""
    height, width = size_hw
    left = max(0, min(box[0], width - 1 - tag_wh[0]))
    tops = [box[1] - tag_wh[1], box[1], box[3] - tag_wh[1], box[3], *range(box[1], box[3], tag_wh[1])]
    places = [
        (left, top, left + tag_wh[0], top + tag_wh[1])
        for top in (max(0, min(top, height - 1 - tag_wh[1])) for top in tops)
    ]
    free = (
        place
        for place in places
        if not any(
            place[0] < other[2] and other[0] < place[2] and place[1] < other[3] and other[1] < place[3]
            for other in taken
        )
    )
    return next(free, places[0])

"""Read the two EXIF entries that matter here, the orientation and the user comment, from a block nobody vouches for.

Pillow reads every entry into memory first, which a hostile block turns into gigabytes, and warns as it goes.
"""

from __future__ import annotations

import struct

ORIENTATION, EXIF_FOLDER, USER_COMMENT = 0x0112, 0x8769, 0x9286


def orientation(exif: bytes) -> tuple[int, bool]:
    """Read the orientation (1 to 8) from an EXIF block; the flag tells whether the block was readable.

    It never raises: a damaged block counts as upright.

    >>> orientation(b"MM\\0*\\0\\0\\0\\x08\\0\\x01\\x01\\x12\\0\\x03\\0\\0\\0\\x01\\0\\x06\\0\\0")
    (6, True)
    >>> orientation(b"nonsense")
    (1, False)
    """
    body = exif.removeprefix(b"Exif\0\0")
    if not body:
        return 1, True
    try:
        order, start = _open(body)
        found = _find(body, order, start, ORIENTATION)
    except (struct.error, ValueError):
        return 1, False
    value = 1 if found is None else _number(body, order, found)
    return (value if 1 <= value <= 8 else 1), True


def user_comment(exif: bytes) -> bytes | None:
    """Return the bytes of the user comment, its 8-byte character code first, or None where there is none."""
    body = exif.removeprefix(b"Exif\0\0")
    try:
        order, start = _open(body)
        folder = _find(body, order, start, EXIF_FOLDER)
        entry = None if folder is None else _find(body, order, _number(body, order, folder), USER_COMMENT)
        if entry is None:
            return None
        count, where = struct.unpack_from(order + "II", body, entry + 4)
    except (struct.error, ValueError):
        return None
    return body[entry + 8 : entry + 8 + count] if count <= 4 else body[where : where + count]


def _open(body: bytes) -> tuple[str, int]:
    """Return the byte order and where the first folder of entries begins."""
    order = {b"II": "<", b"MM": ">"}.get(body[:2])
    if order is None:
        raise ValueError("no byte order")
    return order, struct.unpack_from(order + "I", body, 4)[0]


def _find(body: bytes, order: str, start: int, wanted: int) -> int | None:
    """Return where the 12-byte entry of a tag begins, or None."""
    (count,) = struct.unpack_from(order + "H", body, start)
    for place in range(start + 2, start + 2 + 12 * count, 12):
        if struct.unpack_from(order + "H", body, place)[0] == wanted:
            return place
    return None


def _number(body: bytes, order: str, place: int) -> int:
    """Read the number that an entry holds; only short, long and byte occur."""
    (kind,) = struct.unpack_from(order + "H", body, place + 2)
    value: int = struct.unpack_from(order + {4: "I", 1: "B"}.get(kind, "H"), body, place + 8)[0]
    return value

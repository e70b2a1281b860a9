"""Where the large texts and the elements of a list lie in msgpack, without decoding it.

Bytes that are cut at these places and joined again are what they were, whatever they mean.
"""

from typing import Final

# A text or bytes from so many bytes on is cut out, to be stored once: a row of its own takes some 200.
LARGE: Final = 256

# The widths of the sizes behind a tag, by kind (https://github.com/msgpack/msgpack/blob/master/spec.md).
_PLAIN: Final = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2,
                 0xD2: 4, 0xD3: 8}  # fmt: skip
_TEXTS: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_EXTENSIONS: Final = {0xC7: 1, 0xC8: 2, 0xC9: 4}
_FIXED_EXTENSIONS: Final = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
_CONTAINERS: Final = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}

Span = tuple[int, int]


class NotMsgpack(ValueError):
    """The bytes are something else."""


def large_parts(data: bytes) -> list[Span]:
    """Where the large texts and bytes lie in values that follow each other, those within extension types too.

    Raises `NotMsgpack`.
    """
    found: list[Span] = []
    at = 0
    while at < len(data):
        at = _scan(data, at, len(data), found)
    return found


def elements(data: bytes) -> list[Span] | None:
    """Where the elements of a list lie; None where the bytes are something else than a list.

    Its head is the one that `list_head` gives.
    """
    try:
        tag = data[0]
        if 0x90 <= tag <= 0x9F:  # noqa: PLR2004 - as in the specification
            count, start = tag & 0x0F, 1
        elif tag in (0xDC, 0xDD):
            width = _CONTAINERS[tag][0]
            count, start = int.from_bytes(data[1 : 1 + width]), 1 + width
        else:
            return None
        found: list[Span] = []
        for _ in range(count):
            end = _scan(data, start, len(data), None)
            found.append((start, end))
            start = end
    except (IndexError, NotMsgpack):
        return None
    return found if start == len(data) and data.startswith(list_head(count)) else None


def list_head(count: int) -> bytes:
    """What stands in front of a list's elements."""
    if count < 16:  # noqa: PLR2004 - as in the specification
        return bytes([0x90 | count])
    return b"\xdc" + count.to_bytes(2) if count < 1 << 16 else b"\xdd" + count.to_bytes(4)


def _scan(data: bytes, at: int, end: int, found: list[Span] | None) -> int:
    """The end of the value that begins there; large texts and bytes in it are added to what was found."""
    left = 1
    try:
        while left:
            left -= 1
            tag = data[at]
            at += 1
            if tag < 0x80 or tag >= 0xE0:  # noqa: PLR2004 - a small number
                continue
            if tag < 0x90:  # noqa: PLR2004 - a small map
                left += 2 * (tag & 0x0F)
            elif tag < 0xA0:  # noqa: PLR2004 - a small list
                left += tag & 0x0F
            elif tag < 0xC0:  # noqa: PLR2004 - a short text
                at += tag & 0x1F
            elif tag in _PLAIN:
                at += _PLAIN[tag]
            elif tag in _TEXTS:
                width = _TEXTS[tag]
                size = int.from_bytes(data[at : at + width])
                at += width
                if found is not None and size >= LARGE:
                    found.append((at, at + size))
                at += size
            elif tag in _CONTAINERS:
                width, each = _CONTAINERS[tag]
                left += each * int.from_bytes(data[at : at + width])
                at += width
            else:
                at = _extension(data, tag, at, end, found)
            if at > end:
                raise NotMsgpack
    except (IndexError, KeyError):
        raise NotMsgpack from None
    return at


def _extension(data: bytes, tag: int, at: int, end: int, found: list[Span] | None) -> int:
    """The same of an extension type, which may hold msgpack itself: LangGraph's do."""
    size = _FIXED_EXTENSIONS.get(tag, 0)
    if not size:
        width = _EXTENSIONS[tag]
        size = int.from_bytes(data[at : at + width])
        at += width
    start, at = at + 1, at + 1 + size
    if found is not None and size >= LARGE and at <= end:
        inner: list[Span] = []
        try:
            whole = _scan(data, start, at, inner) == at
        except NotMsgpack:
            whole = False
        found.extend(inner if whole else [(start, at)])
    return at

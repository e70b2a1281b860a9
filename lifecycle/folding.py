"""Case-folding for search: once, in Python, so that every database gives the same answers."""

import unicodedata


def fold(value: str) -> str:
    """The text as search compares it: case-folded and composed."""
    return value.lower() if value.isascii() else unicodedata.normalize("NFC", value.casefold())


def folded_copy(value: str) -> str | None:
    """The folded text, or None where a database's own lower() of ASCII letters gives the same.

    Most messages need no second copy that way.
    """
    if value.isascii():
        return None
    folded = fold(value)
    ascii_lowered = value.translate(_ASCII_LOWER)
    # str.lower() knows every letter that some database might lower besides.
    return None if folded == ascii_lowered == value.lower() else folded


_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}

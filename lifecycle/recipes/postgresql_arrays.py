"""Arrays as PostgreSQL reads them in text."""

from collections.abc import Iterable
from typing import Any


def array(values: Iterable[Any]) -> str:
    """An array of texts or numbers (PostgreSQL's manual, section 8.15.6): texts quoted, two characters escaped."""
    parts = [
        '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        if isinstance(value, str)
        else ("NULL" if value is None else repr(value))
        for value in values
    ]
    return f"{{{','.join(parts)}}}"

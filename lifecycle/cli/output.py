"""What commands print: tables on a terminal, JSON for machines; data on stdout, everything else on stderr."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

# A pipe has no width: what is cut to one, such as an id, is of no use behind it.
console = Console(width=None if sys.stdout.isatty() else 400)
errors = Console(stderr=True)


def plain(value: Any) -> Any:
    """The value as JSON types."""
    if isinstance(value, BaseModel):
        return {name: plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return value


def printable(text: str) -> str:
    """The text without what would steer the terminal: a title may come from anybody."""
    return "".join(one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode() for one in text)


def show_json(value: Any) -> None:
    """Print a value as JSON."""
    sys.stdout.write(json.dumps(plain(value), ensure_ascii=False, indent=2 if sys.stdout.isatty() else None) + "\n")


def show_rows(rows: Sequence[Any], columns: Sequence[str], *, as_json: bool, title: str | None = None) -> None:
    """Print rows as a table, or as a JSON list."""
    if as_json:
        show_json(list(rows))
        return
    table = Table(*columns, title=title, header_style="bold")
    for row in rows:
        values = plain(row)
        table.add_row(*[_cell(values.get(name)) for name in columns])
    console.print(table)


def show_facts(value: Any, *, as_json: bool) -> None:
    """Print one value field by field, or as a JSON object."""
    if as_json:
        show_json(value)
        return
    table = Table(show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, item in plain(value).items():
        table.add_row(name, _cell(item))
    console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return text.replace("[", "\\[")

"""What commands print: tables on a terminal, JSON for machines; data on stdout, everything else on stderr."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from lifecycle.errors import LifecycleError

# A pipe has no width: what is cut to one, such as an id, is of no use behind it.
_PIPE_WIDTH: Final = 400


class ReaderGone(Exception):
    """Whoever read the output stopped reading, as `head` does."""


def write(text: str) -> None:
    """Write text to stdout. Raises `ReaderGone`."""
    try:
        sys.stdout.write(text)
    except BrokenPipeError:
        # An error of our own, as typer turns a BrokenPipeError into a failure of the command.
        raise ReaderGone from None
    except UnicodeEncodeError:
        encoding = sys.stdout.encoding
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))


def say(text: str) -> None:
    """Write a line that is not data to stderr, shown and not obeyed by the terminal."""
    sys.stderr.write(printable(text) + "\n")


def plain(value: Any) -> Any:
    """The value as JSON types."""
    fields = getattr(type(value), "model_fields", None)
    if fields is not None:
        return {name: plain(getattr(value, name)) for name in fields}
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, LifecycleError):
        return {"error": type(value).__name__, "detail": str(value)}
    return value


def printable(text: str) -> str:
    """The text without what would steer the terminal: a title may come from anybody."""
    return "".join(one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode() for one in text)


def show_json(value: Any) -> None:
    """Print a value as JSON."""
    # On a terminal that is not UTF-8 the letters it lacks are escaped, as JSON has its own way of doing so.
    ascii_only = "utf" not in (sys.stdout.encoding or "").lower()
    write(json.dumps(plain(value), ensure_ascii=ascii_only, indent=2 if sys.stdout.isatty() else None) + "\n")


def show_rows(rows: Sequence[Any], columns: Sequence[str], *, as_json: bool, title: str | None = None) -> None:
    """Print rows as a table, or as a JSON list."""
    if as_json:
        show_json(list(rows))
        return
    from rich.table import Table

    table = Table(*columns, title=title, header_style="bold")
    for row in rows:
        values = plain(row)
        table.add_row(*[_cell(values.get(name)) for name in columns])
    _draw(table)


def show_facts(value: Any, *, as_json: bool) -> None:
    """Print one value field by field, or as a JSON object."""
    if as_json:
        show_json(value)
        return
    from rich.table import Table

    table = Table(show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, item in plain(value).items():
        table.add_row(name, _cell(item))
    _draw(table)


def _draw(table: Any) -> None:
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    with console.capture() as drawn:
        console.print(table)
    write(drawn.get())


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return text.replace("[", "\\[")

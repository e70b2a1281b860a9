"""Export: all that belongs to sessions, from one snapshot of the database, into one file."""

import itertools
import time
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any, Final

import sqlalchemy as sa

import lifecycle
from lifecycle import migrate
from lifecycle.models import tables as t
from lifecycle.recipes import whole
from lifecycle.transfer.connections import Connection, connected
from lifecycle.transfer.files import new_file
from lifecycle.transfer.format import Writer
from lifecycle.transfer.report import TransferReport
from lifecycle.transfer.rows import TABLES, Key, key
from lifecycle.transfer.selection import Selection

# Sessions of a block: as many as one statement names.
_BLOCK: Final = 500
_EVERY: Final = 2000

# Called with the rows and the sessions written so far, and the sessions there are.
Progress = Callable[[int, int, int], None]


def export_sessions(
    url: str,
    target: str,
    *,
    selection: Selection | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> TransferReport:
    """Write the selected sessions with all they own to a file (`-` is standard output), and report.

    What is written is one snapshot of the database, whatever is saved meanwhile. The file has its name only once it is
    whole and on the disk. Raises `SchemaOutdated`, `StorageUnavailable`, `FileUnavailable`, `InvalidArgument`.
    """
    began = time.monotonic()
    selection = selection or Selection()
    output = new_file(target, overwrite=overwrite)
    try:
        with connected(url, writing=False) as connection:
            (last,) = connection.all(whole.LAST_TRANSITION)
            writer = Writer(
                output, migrate.head(), release=lifecycle.__version__, database=connection.kind, filters=selection.described(),
                last_transition=last["last"],
            )  # fmt: skip
            _write_sessions(connection, selection, writer, progress)
            if selection.whole:
                _write_tombstones(connection, selection, writer)
        size = writer.end()
    except BaseException:
        output.discard()
        raise
    return TransferReport.of_rows(target, writer.rows, size=size, seconds=time.monotonic() - began)


def _write_sessions(connection: Connection, selection: Selection, writer: Writer, progress: Progress | None) -> None:
    total = 0
    if progress is not None:
        total = connection.all(*selection.count())[0]["n"]
    last: Key | None = None
    written = 0

    def tell() -> None:
        if progress is not None:
            progress(writer.rows.total(), written, total)

    while True:
        keys = list(_write(connection, selection.page(connection.kind, last, _BLOCK), t.sessions, writer, tell))
        for name, table in TABLES.items():
            if name == t.sessions.name:
                continue
            for tenant, group in itertools.groupby(keys, itemgetter(0)):
                statement = whole.of_sessions(table, tenant, [session_id for _, session_id in group])
                for _ in _write(connection, statement, table, writer, tell):
                    pass
        writer.end_block()
        written += len(keys)
        tell()
        if len(keys) < _BLOCK:
            return
        last = keys[-1]


def _write(
    connection: Connection, statement: Any, table: sa.Table, writer: Writer, tell: Callable[[], None]
) -> Iterator[Key]:
    for number, row in enumerate(connection.rows(*statement), start=1):
        writer.row(table.name, row)
        if number % _EVERY == 0:
            tell()
        yield key(row)


def _write_tombstones(connection: Connection, selection: Selection, writer: Writer) -> None:
    for row in connection.rows(whole.TOMBSTONES, {}):
        if selection.tenant is None or row["tenant"] == selection.tenant:
            writer.row(t.transitions.name, row)
    writer.end_block()

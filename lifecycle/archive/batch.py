"""A file of the archive while it is written: the sessions of one transaction that removes them."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa

from lifecycle.archive.entry import INDEX, REMOVED, Entry
from lifecycle.models import tables as t
from lifecycle.transfer.compression import Compression
from lifecycle.transfer.files import NewFile
from lifecycle.transfer.format import Writer
from lifecycle.transfer.rows import Row, columns

_SESSION_COLUMNS = tuple(column.name for column in columns(t.sessions))


class Batch:
    """Sessions on their way into the archive. After `commit` they are on the disk; until then there is no such file.

    Raises `FileUnavailable`.
    """

    def __init__(
        self, path: Path, compression: Compression, schema: str, *, reason: str | None, actor: str | None
    ) -> None:
        self._removed = {"at": datetime.now(UTC).isoformat(), "reason": reason, "actor": actor}
        self._file = NewFile(path, compression)
        try:
            self._index = NewFile(path.with_name(path.name + INDEX), "none")
        except BaseException:
            self._file.discard()
            raise
        self._name = path.name
        self._writer = Writer(self._file, schema, **{REMOVED: self._removed})

    def begin(self, session: Row) -> None:
        """Begin a session. They come in the order of their keys."""
        row = {name: session[name] for name in _SESSION_COLUMNS}
        self._writer.row(t.sessions.name, row)
        self._index.write(Entry.of(row, self._removed, self._name).line())

    def rows(self, table: sa.Table, rows: Sequence[Row]) -> None:
        """Add rows of a table to the session that was begun."""
        for row in rows:
            self._writer.row(table.name, row)

    def end(self) -> None:
        """End the session: from here on it is whole in the file, whatever becomes of the rest."""
        self._writer.end_block()
        self._writer.flush()

    def add(self, sessions: Sequence[Row], rows: Mapping[tuple[str, str], Mapping[sa.Table, Sequence[Row]]]) -> None:
        """Add sessions with the rows that belong to each."""
        for session in sessions:
            self.begin(session)
            for table, own in rows.get((session["tenant"], session["session_id"]), {}).items():
                self.rows(table, own)
            self.end()

    def commit(self) -> None:
        """Have it all on the disk: the index first, as the file is what counts."""
        self._index.commit()
        self._writer.end()

    def discard(self) -> None:
        """Take it back: what it holds was not removed."""
        self._file.take_back()
        self._index.take_back()

"""Rows of an SQLite database in memory as JSON: which ones a transaction touched, how they are now, and back again.

Triggers of the connection's own note the key of every row that is inserted, changed or deleted, whoever does it. They
call a Python function: that costs a tenth of a statement, a table of notes three tenths.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

from lifecycle.drivers import journal_format
from lifecycle.drivers.journal_format import Change

_NOTE: Final = "lifecycle_note_change"

Key = tuple[Any, ...]


class Table:
    """A table whose rows are kept: its columns, its primary key, and the statements on one row."""

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        columns = connection.execute(f"PRAGMA table_info({_quoted(name)})").fetchall()
        self.name = name
        self.columns = tuple(column[1] for column in columns)
        self.key = tuple(column[1] for column in sorted(columns, key=lambda column: column[5]) if column[5])
        self._places = [self.columns.index(column) for column in self.key]
        self._known = frozenset(self.columns)
        names = ", ".join(map(_quoted, self.columns))
        where = " AND ".join(f"{_quoted(column)} = ?" for column in self.key)
        self.all = f"SELECT {names} FROM {_quoted(name)} ORDER BY rowid"
        self.one = f"SELECT {names} FROM {_quoted(name)} WHERE {where}"
        self.insert = f"INSERT INTO {_quoted(name)} ({names}) VALUES ({', '.join('?' * len(self.columns))})"

    def put(self, values: Iterable[Any]) -> bytes:
        """The journal's line of a row."""
        return journal_format.put(self.name, dict(zip(self.columns, values, strict=True)))

    def delete(self, key: Key) -> bytes:
        """The journal's line of a row that is gone."""
        return journal_format.delete(self.name, dict(zip(self.key, key, strict=True)))

    def values(self, row: Mapping[str, Any]) -> Key | None:
        """The values of a row from the journal, in the order of the columns; None where it has other columns."""
        if row.keys() != self._known:
            return None
        return tuple(map(row.__getitem__, self.columns))

    def key_of(self, change: Change) -> Key | None:
        """The key of the row that a change is about; None where it has other columns."""
        fields = change.key if change.row is None else change.row
        if fields is None or not fields.keys() >= set(self.key):
            return None
        return tuple(fields[column] for column in self.key)

    def triggers(self) -> Iterator[str]:
        """What creates the triggers that note changes."""
        for event, rows in (("INSERT", ("new",)), ("UPDATE", ("old", "new")), ("DELETE", ("old",))):
            notes = "".join(
                f"SELECT {_NOTE}('{self.name}', {', '.join(f'{row}.{_quoted(column)}' for column in self.key)}); "
                for row in rows
            )
            name = _quoted(f"lifecycle_note_{event.lower()}_{self.name}")
            yield f"CREATE TEMP TRIGGER {name} AFTER {event} ON main.{_quoted(self.name)} BEGIN {notes}END"


class Images:
    """The rows of a connection's database that are kept, and those that the transaction under way touched."""

    def __init__(self, connection: sqlite3.Connection, *, apart: Iterable[str]) -> None:
        """Find the tables, all but those named in `apart`; nothing is noted before `attend`."""
        self._connection = connection
        self.tables = {name: Table(connection, name) for name in _plain_tables(connection) if name not in set(apart)}
        self._counting = [
            name
            for name, sql in connection.execute("SELECT name, sql FROM main.sqlite_master WHERE type = 'table'")
            if name in self.tables and "AUTOINCREMENT" in sql.upper()
        ]
        self._touched: dict[Key, None] = {}

    def attend(self) -> None:
        """Begin to note what is touched."""
        # REPLACE tells the triggers of the rows in its way only if they are recursive.
        for pragma in ("temp_store=MEMORY", "foreign_keys=ON", "recursive_triggers=ON"):
            self._connection.execute(f"PRAGMA {pragma}").close()
        self._connection.create_function(_NOTE, -1, self._note)
        for table in self.tables.values():
            for trigger in table.triggers():
                self._connection.execute(trigger).close()

    def leave(self) -> None:
        """Note nothing any more, as before the schema is changed."""
        for (name,) in self._connection.execute(
            "SELECT name FROM temp.sqlite_master WHERE type = 'trigger'"
        ).fetchall():
            self._connection.execute(f"DROP TRIGGER temp.{_quoted(name)}").close()
        self._touched.clear()

    def forget(self) -> None:
        """Forget what was touched: the transaction is over."""
        self._touched.clear()

    def changes(self) -> tuple[list[bytes], dict[str, int]]:
        """The lines of the rows that were touched, as they are now, and the counters of the tables that number rows."""
        lines, tables = [], set()
        for name, *key in self._touched:
            table = self.tables[name]
            tables.add(name)
            row = self._connection.execute(table.one, key).fetchone()
            lines.append(table.delete(tuple(key)) if row is None else table.put(row))
        return lines, self.sequences(tables)

    def sequences(self, tables: Iterable[str]) -> dict[str, int]:
        """The last number that each of the tables gave, of those that never give one twice."""
        counting = [name for name in self._counting if name in tables]
        if not counting:
            return {}
        names = ", ".join(f"'{name}'" for name in counting)
        return dict(self._connection.execute(f"SELECT name, seq FROM main.sqlite_sequence WHERE name IN ({names})"))

    def snapshot(self, size: int) -> Iterator[list[bytes]]:
        """The lines of all rows, so many at a time."""
        lines = (table.put(row) for table in self.tables.values() for row in self._connection.execute(table.all))
        while part := list(islice(lines, size)):
            yield part

    def count(self) -> int:
        """How many rows there are."""
        counts = (f"(SELECT count(*) FROM main.{_quoted(name)})" for name in self.tables)
        (total,) = self._connection.execute(f"SELECT {' + '.join(counts) or '0'}").fetchone()
        return int(total)

    def load(self, rows: Mapping[str, Iterable[Key]], sequences: Mapping[str, int]) -> None:
        """Put rows into the empty tables, and the counters where they stood."""
        for name, values in rows.items():
            self._connection.executemany(self.tables[name].insert, values)
        for name, seq in sequences.items():
            self._connection.execute("DELETE FROM main.sqlite_sequence WHERE name = ?", (name,))
            self._connection.execute("INSERT INTO main.sqlite_sequence (name, seq) VALUES (?, ?)", (name, seq))

    def _note(self, *touched: Any) -> None:
        self._touched[touched] = None


def _plain_tables(connection: sqlite3.Connection) -> list[str]:
    """The names of the tables that hold what they were given: no virtual ones, nor those that belong to them."""
    found = connection.execute(
        "SELECT name, sql FROM main.sqlite_master WHERE type = 'table' ORDER BY rowid"
    ).fetchall()
    virtual = [name for name, sql in found if sql.upper().startswith("CREATE VIRTUAL")]
    return [
        name
        for name, _ in found
        if name not in virtual and not name.startswith(("sqlite_", *(f"{table}_" for table in virtual)))
    ]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'

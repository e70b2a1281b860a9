"""From a journal back to rows: as each was left last, and the counters. Memory takes in only what is still there."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from lifecycle.drivers.journal_format import Change, Header, Transaction
from lifecycle.drivers.row_images import Key, Table
from lifecycle.errors import StorageUnavailable


class Replay:
    """What a journal comes to: `rows` by table and key, `sequences`, and where its first snapshot ends."""

    def __init__(self, path: Path, header: Header, tables: Mapping[str, Table]) -> None:
        self.rows: dict[str, dict[Key, Key]] = {name: {} for name in tables}
        self.sequences: dict[str, int] = {}
        self.snapshot_end = 0
        self._path = path
        self._header = header
        self._tables = tables

    def take(self, transactions: Iterable[Transaction]) -> None:
        """Go through the transactions. Raises StorageUnavailable where a row does not fit the schema."""
        for transaction in transactions:
            for change in transaction.changes:
                self._change(change)
            self.sequences.update(transaction.sequences)
            if transaction.number == self._header.snapshot:
                self.snapshot_end = transaction.end

    def _change(self, change: Change) -> None:
        table = self._tables.get(change.table)
        if table is None:
            raise self._misfit(change, "has no such table")
        key = table.key_of(change)
        if key is None:
            raise self._misfit(change, f"has {', '.join(table.key)} for its key")
        if change.row is None:
            self.rows[change.table].pop(key, None)
            return
        values = table.values(change.row)
        if values is None:
            raise self._misfit(change, f"has other columns: {', '.join(table.columns)}")
        self.rows[change.table][key] = values

    def _misfit(self, change: Change, problem: str) -> StorageUnavailable:
        return StorageUnavailable(
            f"{self._path}, line {change.line}: a row of {change.table!r} does not fit the schema {self._header.revision},"
            f" which {problem}; nothing was changed"
        )

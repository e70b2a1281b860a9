"""The archive's directory: `2026/11/21/070000.123456-1f0c9a3b.jsonl` holds what one transaction removed.

Such a file is an export of its sessions, each in a block of its own, with an index beside it. No file is ever changed,
except to erase a user's sessions; to remove old ones, remove their files.
"""

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from lifecycle.archive.batch import Batch
from lifecycle.archive.entry import Entry, needle, read_index
from lifecycle.archive.erasing import erase, locked
from lifecycle.errors import FileUnavailable, InvalidFile, LifecycleError, NotFound
from lifecycle.transfer.compression import SUFFIXES, Compression
from lifecycle.transfer.files import file_errors, reading, sync_directory
from lifecycle.transfer.format import BLOCK, Line, Reader
from lifecycle.transfer.rows import key

_LINES: Final = ".jsonl"
_ENDS: Final = tuple(_LINES + suffix for suffix in SUFFIXES.values())
_DAY: Final = "[0-9][0-9][0-9][0-9]/[0-9][0-9]/[0-9][0-9]"


class Archive:
    """The files below a directory. Any number of processes may write and read it at once."""

    def __init__(self, directory: str | Path, compression: Compression = "none") -> None:
        self.directory = Path(directory)
        self._compression = compression

    def begin(self, schema: str, *, reason: str | None, actor: str | None) -> Batch:
        """A new file for sessions of a schema's revision that are about to be removed. Raises `FileUnavailable`."""
        at = datetime.now(UTC)
        day = self.directory / at.strftime("%Y/%m/%d")
        self._make(day)
        name = f"{at.strftime('%H%M%S.%f')}-{secrets.token_hex(4)}{_LINES}{SUFFIXES[self._compression]}"
        return Batch(day / name, self._compression, schema, reason=reason, actor=actor)

    def files(self) -> list[Path]:
        """Its files, the newest first. Raises `FileUnavailable` where there is no directory."""
        if not self.directory.is_dir():
            raise FileUnavailable(
                f"cannot read {self.directory}: there is no such directory (config: archive.directory)"
            )
        with file_errors(self.directory, "read"):
            found = [path for path in self.directory.glob(f"{_DAY}/*") if _is_ours(path)]
        return sorted(found, reverse=True)

    def name_of(self, file: Path) -> str:
        """A file's name in an entry."""
        return str(file.relative_to(self.directory))

    def entries(
        self,
        *,
        tenant: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        kind: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Iterator[Entry]:
        """The sessions in it that fit, the newest first; one that was removed several times is there as often."""
        exact = {"session_id": session_id, "user_id": user_id, "kind": kind, "tenant": tenant}
        given = {name: value for name, value in exact.items() if value is not None}
        wanted = next((needle(name, value) for name, value in given.items() if name != "tenant"), None)
        for file in self.files():
            for entry in reversed(read_index(file, self.name_of(file), wanted)):
                if (
                    all(getattr(entry, name) == value for name, value in given.items())
                    and (since is None or entry.archived_at >= since)
                    and (until is None or entry.archived_at <= until)
                ):
                    yield entry

    def find(self, tenant: str, session_id: str) -> Entry:
        """The newest copy of a session. Raises `NotFound`."""
        for entry in self.entries(tenant=tenant, session_id=session_id):
            return entry
        raise NotFound(f"no session {session_id!r} in the archive {self.directory}")

    def lines(self, entry: Entry, *, schema: str | None = None) -> Iterator[Line]:
        """The rows of a session, its own first; with `schema` they have to be of this revision.

        Raises `InvalidFile` when it is not whole in its file.
        """
        file = self.directory / entry.file
        found = False
        with reading(str(file)) as (stream, _):
            reader = Reader(stream, str(file))
            if schema is not None:
                reader.check_schema(schema)
            for line in reader:
                if line.name == BLOCK:
                    if found:
                        return
                elif key(line.row) == entry.key:
                    found = True
                    yield line
        raise InvalidFile(str(file), f"session {entry.session_id!r} is in its index and not in it")

    def erase(self, tenant: str, user_id: str) -> int:
        """Erase a user's sessions, each copy of them: the number of copies.

        Raises `FileUnavailable` and `InvalidFile` when it could not be done in one file; in all others it was.
        """
        erased = 0
        problem: LifecycleError | None = None
        if not self.directory.is_dir():
            return erased
        wanted = needle("user_id", user_id)
        with locked(self.directory):
            for file in self.files():
                if read_index(file, self.name_of(file), wanted):
                    entries = read_index(file, self.name_of(file), None)
                    gone = {entry.key for entry in entries if (entry.tenant, entry.user_id) == (tenant, user_id)}
                    if gone:
                        try:
                            erase(file, gone, [entry for entry in entries if entry.key not in gone])
                        except (FileUnavailable, InvalidFile) as error:
                            problem = problem or error
                        else:
                            erased += len(gone)
        if problem is not None:
            raise problem
        return erased

    def _make(self, day: Path) -> None:
        """Make a day's directory, and have the names of all that are new on the disk."""
        missing = [path for path in (day, *day.parents[:3]) if not path.exists()]
        for path in reversed(missing):
            with file_errors(path, "write"):
                path.mkdir(exist_ok=True)
                sync_directory(path.parent)


def _is_ours(path: Path) -> bool:
    return path.name.endswith(_ENDS) and not path.name.startswith(".")

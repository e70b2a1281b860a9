"""Google ADK's `SqliteSessionService`, on a file beside the server that the others race on."""

import asyncio
import hashlib
import sqlite3
import tempfile
from pathlib import Path
from typing import ClassVar

from google.adk.errors import StaleSessionError
from google.adk.sessions.sqlite_session_service import SqliteSessionService

from benchmarks.races.store_adk import Adk


class AdkSqlite(Adk):
    """A session for each session, its list under a key of the session's state."""

    refusals: ClassVar[tuple[type[Exception], ...]] = (StaleSessionError, sqlite3.Error)

    def __init__(self, url: str) -> None:
        self._runner = asyncio.Runner()
        name = hashlib.blake2b(url.encode(), digest_size=8).hexdigest()
        self._file = Path(tempfile.gettempdir()) / f"lifecycle-races-{name}.db"
        self._service = SqliteSessionService(str(self._file))
        self._known = {}

    def close(self) -> None:
        """Close it, and remove the file."""
        self._runner.run(self._service.close())
        self._runner.close()
        self._file.unlink(missing_ok=True)

"""The floor: the hand-written statement that adds a message, once for each commit, on sixteen raw connections."""

import asyncio

import psycopg

from benchmarks.floor_postgresql import ADD_MESSAGE
from benchmarks.turns.store import TEXT, Store
from lifecycle import AsyncSessionManager

CONNECTIONS = 16


class Floor(Store):
    """psycopg, prepared statements, autocommit; whoever wants to write takes a free connection."""

    name = "raw psycopg, one statement a commit"

    async def open(self, url: str) -> None:
        """Connect."""
        async with AsyncSessionManager.open(url) as manager:
            await manager.setup()
        self._url = url
        self._free: asyncio.Queue[psycopg.AsyncConnection[tuple[object, ...]]] = asyncio.Queue()
        for _ in range(CONNECTIONS):
            self._free.put_nowait(await psycopg.AsyncConnection.connect(url, autocommit=True))

    async def create(self, session: str) -> None:
        """Make the session's row."""
        async with AsyncSessionManager.open(self._url) as manager:
            await manager.create_session(session_id=session, title=session)

    async def turn(self, session: str, number: int) -> None:
        """Update the session and insert the message."""
        connection = await self._free.get()
        try:
            values = {"id": session, "message": str(number), "content": TEXT}
            cursor = await connection.execute(ADD_MESSAGE, values, prepare=True)
            assert await cursor.fetchone()
        finally:
            self._free.put_nowait(connection)

    async def count(self, session: str) -> int:
        """Count the messages."""
        connection = await self._free.get()
        try:
            cursor = await connection.execute("SELECT count(*) FROM session_messages WHERE session_id = %s", [session])
            row = await cursor.fetchone()
            assert row is not None
            return int(str(row[0]))
        finally:
            self._free.put_nowait(connection)

    async def close(self) -> None:
        """Close the connections."""
        while not self._free.empty():
            await self._free.get_nowait().close()

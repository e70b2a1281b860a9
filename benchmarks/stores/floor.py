"""The floor: the hand-written statement that adds a message, once for each commit, on sixteen raw connections."""

import asyncio
from typing import Any, Final

import psycopg

from benchmarks.floor_postgresql import ADD_MESSAGE, MESSAGES, create
from benchmarks.stores.store import CONNECTIONS, TEXT, Store

_ALL: Final = 100_000


class Floor(Store):
    """psycopg, prepared statements, autocommit; whoever wants to write takes a free connection."""

    name = "raw psycopg"
    ours = True

    async def open(self, url: str) -> None:
        """Connect."""
        self._free: asyncio.Queue[psycopg.AsyncConnection[tuple[Any, ...]]] = asyncio.Queue()
        for _ in range(CONNECTIONS):
            self._free.put_nowait(await psycopg.AsyncConnection.connect(url, autocommit=True))

    async def create(self, session: str) -> None:
        """Make the session's row."""
        assert await self._run(*create(session))

    async def turn(self, session: str, number: int, text: str = TEXT) -> None:
        """Update the session and insert the message."""
        values = {"id": session, "message": str(number), "content": text}
        assert await self._run(ADD_MESSAGE, values)

    async def load(self, session: str) -> int:
        """Read the messages."""
        return len(await self._run(MESSAGES, {"id": session, "limit": _ALL}))

    async def close(self) -> None:
        """Close the connections."""
        while not self._free.empty():
            await self._free.get_nowait().close()

    async def _run(self, statement: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        connection = await self._free.get()
        try:
            return await (await connection.execute(statement, values, prepare=True)).fetchall()
        finally:
            self._free.put_nowait(connection)

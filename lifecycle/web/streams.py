"""The streams of events that an application has open: they end when it stops."""

from lifecycle.watch import AsyncWatch
from lifecycle.web.problems import Refused


class ShuttingDown(Refused):
    """The server is stopping."""

    status = 503
    headers = {"Retry-After": "1"}  # noqa: RUF012 -- never changed


class Streams:
    """The open streams of one application."""

    def __init__(self) -> None:
        self._open: set[AsyncWatch] = set()
        self._closed = False

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)

    def require_open(self) -> None:
        """Raise `ShuttingDown` once the server stops."""
        if self._closed:
            raise ShuttingDown("the server is stopping: come back to the next one")

    async def add(self, watch: AsyncWatch) -> None:
        """Have it end with the others."""
        self._open.add(watch)
        if self._closed:
            await watch.aclose()

    def remove(self, watch: AsyncWatch) -> None:
        """Forget one that has ended."""
        self._open.discard(watch)

    async def close(self) -> None:
        """End them all, and those to come."""
        self._closed = True
        for watch in list(self._open):
            await watch.aclose()

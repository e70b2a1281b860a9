"""What is measured: a store that saves turns of sessions on PostgreSQL."""

import abc
from typing import Final

# A kilobyte.
TEXT: Final = "A message of an ordinary length, as somebody might write it. " * 17
CONNECTIONS: Final = 16


class Store(abc.ABC):
    """A store, used as its own framework uses it. A session's turns are numbered from 0 on."""

    name: str
    # Whether it uses our tables; others make their own.
    ours: bool = False

    @abc.abstractmethod
    async def open(self, url: str) -> None:
        """Connect to a PostgreSQL database, which has our tables or none; who needs others makes them."""

    @abc.abstractmethod
    async def create(self, session: str) -> None:
        """Make a session."""

    @abc.abstractmethod
    async def turn(self, session: str, number: int, text: str = TEXT) -> None:
        """Save one message, durably."""

    @abc.abstractmethod
    async def load(self, session: str) -> int:
        """Read what is needed to go on with a session: how many turns were found."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Close the connections."""

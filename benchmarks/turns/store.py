"""What is measured: a store that saves turns of sessions."""

import abc

# A kilobyte.
TEXT = "A message of an ordinary length, as somebody might write it. " * 17


class Store(abc.ABC):
    """A store, used as its own framework uses it."""

    name: str

    @abc.abstractmethod
    async def open(self, url: str) -> None:
        """Connect to an empty PostgreSQL database, and make the tables."""

    @abc.abstractmethod
    async def create(self, session: str) -> None:
        """Make a session."""

    @abc.abstractmethod
    async def turn(self, session: str, number: int) -> None:
        """Save one message of 1 KB, durably."""

    @abc.abstractmethod
    async def count(self, session: str) -> int:
        """How many turns the store has of a session, to see that it did what was measured."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Close the connections."""

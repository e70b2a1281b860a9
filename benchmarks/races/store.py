"""What a store must offer to be raced, in the words of the races."""

import abc
from dataclasses import dataclass
from typing import ClassVar

START = "start"


@dataclass(frozen=True, slots=True)
class Standing:
    """What somebody finds who reads a session now: the entries of its state, and how many ends its history has."""

    entries: list[str]
    ends: int = 1


class Store(abc.ABC):
    """One process's way to the sessions of a store.

    A session's state is a list of entries. A write replaces the list by the one that this process knows plus an entry
    of its own, as a step of a workflow replaces a state by what it computed from it: who writes on an old list drops
    what others have added to it.
    """

    # What the store raises when it refuses a write. Anything else is a failure of the race.
    refusals: ClassVar[tuple[type[Exception], ...]]

    @abc.abstractmethod
    def setup(self) -> None:
        """Create the tables."""

    @abc.abstractmethod
    def create(self, session: str) -> None:
        """Create a session whose list is `[START]`."""

    def hold(self, session: str, ttl: float, wait: float) -> None:  # noqa: B027 - most stores know no holders
        """Make the session this process's own for `ttl` seconds after its last sign of life, where a store has that.

        While somebody else holds it, wait for so many seconds.
        """

    @abc.abstractmethod
    def read(self, session: str) -> None:
        """Read the state, and keep it as what the next write builds on."""

    @abc.abstractmethod
    def write(self, session: str, entry: str) -> None:
        """Write the known list plus the entry; once acknowledged, the next write builds on that."""

    def give_up(self, session: str) -> None:  # noqa: B027 - as above
        """Let the time of whoever holds the session be over."""

    def release(self, session: str) -> None:  # noqa: B027 - as above
        """Hold the session no longer."""

    @abc.abstractmethod
    def standing(self, session: str) -> Standing:
        """Read the session as somebody does who comes later."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close what is open."""

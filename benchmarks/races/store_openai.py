"""Sessions of the OpenAI Agents SDK: its `SQLAlchemySession`, and Lifecycle's under a lease.

A turn reads a conversation with `get_items` and adds what came of it with `add_items`. Nothing that is added replaces
anything, so that no item is lost; what is stale is an answer to a conversation that has gone on without it.
"""

import asyncio
from typing import Any, ClassVar

from agents.extensions.memory import SQLAlchemySession
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.races.store import START, Standing, Store
from benchmarks.races.store_lifecycle import Leased
from lifecycle.adapters.openai_agents import LifecycleSession


class _Items(Store):
    """What both do with a session of theirs; each call runs in an event loop that is theirs too."""

    _runner: asyncio.Runner

    def create(self, session: str) -> None:
        """Add the first item."""
        self.write(session, START)

    def read(self, session: str) -> None:
        """Get the items."""
        self._runner.run(self._session(session).get_items())

    def write(self, session: str, entry: str) -> None:
        """Add an item."""
        self._runner.run(self._session(session).add_items([_item(entry)]))

    def standing(self, session: str) -> Standing:
        """Get the items; they are one list, hence one end."""
        return _standing(self._runner.run(self._session(session).get_items()))

    def _session(self, session: str) -> Any:
        """One of their sessions."""
        raise NotImplementedError


class OpenAI(_Items):
    """`SQLAlchemySession` on asyncpg."""

    refusals: ClassVar[tuple[type[Exception], ...]] = (DBAPIError,)

    def __init__(self, url: str) -> None:
        self._runner = asyncio.Runner()
        self._engine: Any = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://", 1))

    def setup(self) -> None:
        """Create its tables, which its first call does."""
        self._runner.run(SQLAlchemySession("setup", engine=self._engine, create_tables=True).get_items())

    def close(self) -> None:
        """Close the connections."""
        self._runner.run(self._engine.dispose())
        self._runner.close()

    def _session(self, session: str) -> Any:
        return SQLAlchemySession(session, engine=self._engine)


class LifecycleOpenAI(_Items, Leased):
    """`LifecycleSession`, under a lease that is taken before the items are read."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._runner = asyncio.Runner()

    def close(self) -> None:
        """Close the manager, and the way to the clock."""
        super().close()
        self._runner.close()

    def _session(self, session: str) -> LifecycleSession:
        return LifecycleSession(session, self._manager, lease=self._leases.get(session))


def _item(entry: str) -> Any:
    return {"role": "assistant", "content": entry}


def _standing(items: list[Any]) -> Standing:
    return Standing([item["content"] for item in items])

"""The peers, each through the calls that its framework makes for a turn."""

from typing import Any

from agents.extensions.memory import SQLAlchemySession
from google.adk.events import Event
from google.adk.sessions import DatabaseSessionService
from google.genai import types
from langgraph.checkpoint.base import create_checkpoint, empty_checkpoint
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.stores.store import CONNECTIONS, TEXT, Store


class LangGraph(Store):
    """`AsyncPostgresSaver` on a pool; a thread whose one channel holds the messages."""

    name = "LangGraph"

    async def open(self, url: str) -> None:
        """Open the pool."""
        more = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
        self._pool: Any = AsyncConnectionPool(url, max_size=CONNECTIONS, kwargs=more, open=False)
        await self._pool.open()
        self._saver = AsyncPostgresSaver(self._pool)
        await self._saver.setup()
        self._latest: dict[str, tuple[Any, Any]] = {}

    async def create(self, session: str) -> None:
        """Put the first checkpoint."""
        config = {"configurable": {"thread_id": session, "checkpoint_ns": ""}}
        await self._put(session, config, empty_checkpoint(), [])

    async def turn(self, session: str, number: int, text: str = TEXT) -> None:
        """Put the next checkpoint, its list longer by one."""
        del number
        config, checkpoint = self._latest[session]
        await self._put(session, config, checkpoint, [*checkpoint["channel_values"]["messages"], text])

    async def load(self, session: str) -> int:
        """Read the latest checkpoint."""
        found: Any = await self._saver.aget_tuple({"configurable": {"thread_id": session}})
        return len(found.checkpoint["channel_values"]["messages"])

    async def close(self) -> None:
        """Close the pool."""
        await self._pool.close()

    async def _put(self, session: str, config: Any, before: Any, messages: list[str]) -> None:
        checkpoint: Any = create_checkpoint(before, None, len(messages))
        version = self._saver.get_next_version(before["channel_versions"].get("messages"), None)
        checkpoint["channel_values"] = {"messages": messages}
        checkpoint["channel_versions"] = {"messages": version}
        metadata: Any = {"source": "loop", "step": len(messages), "parents": {}}
        self._latest[session] = await self._saver.aput(config, checkpoint, metadata, {"messages": version}), checkpoint


class OpenAI(Store):
    """`SQLAlchemySession` on asyncpg."""

    name = "OpenAI Agents"

    async def open(self, url: str) -> None:
        """Make the engine."""
        self._engine = create_async_engine(with_asyncpg(url), pool_size=CONNECTIONS)
        self._sessions: dict[str, SQLAlchemySession] = {}

    async def create(self, session: str) -> None:
        """Make it, and with the first of them the tables."""
        made = SQLAlchemySession(session, engine=self._engine, create_tables=not self._sessions)
        self._sessions[session] = made
        await made.get_items(limit=1)

    async def turn(self, session: str, number: int, text: str = TEXT) -> None:
        """Add an item."""
        del number
        await self._sessions[session].add_items([{"role": "assistant", "content": text}])

    async def load(self, session: str) -> int:
        """Read the items."""
        return len(await self._sessions[session].get_items())

    async def close(self) -> None:
        """Close the engine."""
        await self._engine.dispose()


class Adk(Store):
    """`DatabaseSessionService` on asyncpg."""

    name = "Google ADK"

    async def open(self, url: str) -> None:
        """Make the service."""
        self._service = DatabaseSessionService(with_asyncpg(url), pool_size=CONNECTIONS)
        await self._service.list_sessions(app_name="turns")
        self._sessions: dict[str, Any] = {}

    async def create(self, session: str) -> None:
        """Create it."""
        self._sessions[session] = await self._service.create_session(
            app_name="turns", user_id="ada", session_id=session
        )

    async def turn(self, session: str, number: int, text: str = TEXT) -> None:
        """Append an event."""
        content = types.Content(role="model", parts=[types.Part(text=text)])
        event = Event(invocation_id=str(number), author="agent", content=content)
        await self._service.append_event(self._sessions[session], event)

    async def load(self, session: str) -> int:
        """Read the session with its events."""
        found = await self._service.get_session(app_name="turns", user_id="ada", session_id=session)
        assert found is not None
        return len(found.events)

    async def close(self) -> None:
        """Close the engine."""
        await self._service.close()


def with_asyncpg(url: str) -> str:
    """The URL as SQLAlchemy wants it for asyncpg."""
    return url.replace("postgresql://", "postgresql+asyncpg://", 1)

"""A process that imports a store, opens it, makes a session and saves a turn: `python -m benchmarks.first_save KEY URL`.

It prints when its packages were imported and when the turn was durable, by the machine's monotonic clock. With `setup` as
third argument it makes the store's tables before; ours are there.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable

# Nothing else is imported up here: what a store needs is part of what is measured.
_SESSION = f"first-{os.getpid()}"
_TEXT = "A message of an ordinary length, as somebody might write it. " * 17
Imported = Callable[[], None]


def lifecycle(url: str, imported: Imported, _setup: bool) -> None:
    """Ours, on any database."""
    from lifecycle import SessionManager

    imported()
    with SessionManager.open(url) as manager:
        manager.create_session(session_id=_SESSION)
        manager.save_state(_SESSION, append=[{"role": "assistant", "content": _TEXT}])


def raw_psycopg(url: str, imported: Imported, _setup: bool) -> None:
    """Two hand-written statements."""
    import psycopg

    from benchmarks import floor_postgresql as floor

    imported()
    with psycopg.connect(url, autocommit=True) as raw:
        raw.execute(*floor.create(_SESSION))
        raw.execute(*floor.add(_SESSION, "m", _TEXT))


def raw_sqlite3(url: str, imported: Imported, _setup: bool) -> None:
    """The same on SQLite."""
    from benchmarks import floor_sqlite as floor

    imported()
    raw = floor.connect(url)
    floor.create(raw, _SESSION)
    floor.add(raw, _SESSION, ["m"], _TEXT)
    raw.close()


def langgraph(url: str, imported: Imported, setup: bool) -> None:
    """LangGraph's saver for the database."""
    from typing import Any

    from langgraph.checkpoint.base import create_checkpoint, empty_checkpoint

    made: Any
    if url.startswith("sqlite"):
        from langgraph.checkpoint.sqlite import SqliteSaver

        made, url = SqliteSaver, url.removeprefix("sqlite:///")
    else:
        from langgraph.checkpoint.postgres import PostgresSaver

        made = PostgresSaver
    imported()
    with made.from_conn_string(url) as saver:
        if setup:
            saver.setup()
        checkpoint: Any = create_checkpoint(empty_checkpoint(), None, 1)
        version = saver.get_next_version(None, None)
        checkpoint["channel_values"] = {"messages": [_TEXT]}
        checkpoint["channel_versions"] = {"messages": version}
        config: Any = {"configurable": {"thread_id": _SESSION, "checkpoint_ns": ""}}
        saver.put(config, checkpoint, {"source": "loop", "step": 1, "parents": {}}, {"messages": version})


def openai(url: str, imported: Imported, setup: bool) -> None:
    """The OpenAI Agents SDK's session for the database."""
    from typing import Any

    session: Any
    if url.startswith("sqlite"):
        from agents import SQLiteSession

        imported()
        session = SQLiteSession(_SESSION, url.removeprefix("sqlite:///"))
    else:
        from agents.extensions.memory import SQLAlchemySession

        imported()
        session = SQLAlchemySession.from_url(_SESSION, url=_with(url, "asyncpg"), create_tables=setup)
    asyncio.run(session.add_items([{"role": "assistant", "content": _TEXT}]))


def adk(url: str, imported: Imported, _setup: bool) -> None:
    """The ADK's session service."""
    from google.adk.events import Event
    from google.adk.sessions import DatabaseSessionService
    from google.genai import types

    imported()

    async def save() -> None:
        driver = "aiosqlite" if url.startswith("sqlite") else "asyncpg"
        service = DatabaseSessionService(_with(url, driver))
        session = await service.create_session(app_name="first", user_id="ada", session_id=_SESSION)
        content = types.Content(role="model", parts=[types.Part(text=_TEXT)])
        await service.append_event(session, Event(invocation_id="1", author="agent", content=content))

    asyncio.run(save())


def _with(url: str, driver: str) -> str:
    """The URL as SQLAlchemy wants it for a driver."""
    return url.replace("://", f"+{driver}://", 1)


STORES = {
    "lifecycle": lifecycle,
    "psycopg": raw_psycopg,
    "sqlite3": raw_sqlite3,
    "langgraph": langgraph,
    "openai": openai,
    "adk": adk,
}


def main(key: str, url: str, setup: bool) -> None:
    """Save, and print the times."""
    times = {}

    def imported() -> None:
        times["imported"] = time.monotonic()

    STORES[key](url, imported, setup)
    times["saved"] = time.monotonic()
    sys.stdout.write(json.dumps(times) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:] == ["setup"])

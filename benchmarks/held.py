"""A process that keeps many sessions open: `python -m benchmarks.held KEY URL NUMBER` prints the bytes that takes.

It prints the memory of the process with one session open, with NUMBER more, and how many bytes of that are one's.
"""

import asyncio
import ctypes
import gc
import json
import sys
from typing import Any

import psutil

_AT_ONCE = 32


def memory() -> int:
    """Bytes of this process in memory, without what it could give back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(psutil.Process().memory_info().rss)


async def leases(url: str, number: int) -> tuple[int, int]:
    """Ours: leases that are kept alive."""
    from lifecycle import AsyncSessionManager

    async with AsyncSessionManager.open(url) as manager:
        held = await manager.claim(["held"], ttl=600)
        before = memory()
        while len(held) <= number:
            held += await manager.claim(["held"], ttl=600, limit=min(1000, number + 1 - len(held)))
        after = memory()
        assert all(lease.held for lease in held)
        for lease in held:
            lease.released = True
        return before, after


async def sessions(url: str, number: int) -> tuple[int, int]:
    """Ours: sessions as they are read."""
    from lifecycle import AsyncSessionManager

    async with AsyncSessionManager.open(url) as manager:

        async def opened(name: str) -> Any:
            return await manager.open_session(name, title=name)

        return await _held(opened, number)


async def openai(url: str, number: int) -> tuple[int, int]:
    """The OpenAI Agents SDK's session objects on one engine."""
    from agents.extensions.memory import SQLAlchemySession
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(url.replace("://", "+asyncpg://", 1))
    tables = True

    async def opened(name: str) -> Any:
        nonlocal tables
        session = SQLAlchemySession(name, engine=engine, create_tables=tables)
        tables = False
        await session.get_items(limit=1)
        return session

    found = await _held(opened, number)
    await engine.dispose()
    return found


async def adk(url: str, number: int) -> tuple[int, int]:
    """The ADK's sessions as its service gives them."""
    from google.adk.sessions import DatabaseSessionService

    service = DatabaseSessionService(url.replace("://", "+asyncpg://", 1))

    async def opened(name: str) -> Any:
        return await service.create_session(app_name="held", user_id="ada", session_id=name)

    found = await _held(opened, number)
    await service.close()
    return found


async def langgraph(url: str, number: int) -> tuple[int, int]:
    """LangGraph's threads: the checkpoint and the config that the next one is put on."""
    from langgraph.checkpoint.base import empty_checkpoint
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

    async with AsyncPostgresSaver.from_conn_string(url) as saver:
        await saver.setup()

        async def opened(name: str) -> Any:
            checkpoint = empty_checkpoint()
            config: Any = {"configurable": {"thread_id": name, "checkpoint_ns": ""}}
            return await saver.aput(config, checkpoint, {"source": "input", "step": -1, "parents": {}}, {}), checkpoint

        return await _held(opened, number)


async def _held(opened: Any, number: int) -> tuple[int, int]:
    """The memory with one of them, and with so many more."""
    held = [await opened("held-first")]
    for start in range(0, 100, _AT_ONCE):
        await asyncio.gather(*(opened(f"warm-{start + n}") for n in range(_AT_ONCE)))
    before = memory()
    for start in range(0, number, _AT_ONCE):
        names = [f"held-{n:06}" for n in range(start, min(start + _AT_ONCE, number))]
        held += await asyncio.gather(*(opened(name) for name in names))
    after = memory()
    assert len(held) == number + 1
    return before, after


STORES = {"leases": leases, "sessions": sessions, "openai": openai, "adk": adk, "langgraph": langgraph}


if __name__ == "__main__":
    _, key, address, wanted = sys.argv
    before, after = asyncio.run(STORES[key](address, int(wanted)))
    sys.stdout.write(json.dumps({"before": before, "after": after, "each": (after - before) / int(wanted)}) + "\n")

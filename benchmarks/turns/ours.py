"""Lifecycle: a message for each turn, under the lease of the session."""

import contextlib
from typing import Any

from benchmarks.turns.store import TEXT, Store
from lifecycle import AsyncSessionManager


class Lifecycle(Store):
    """`add_message` with a lease, on the default pool of eight connections."""

    name = "Lifecycle, under leases"

    async def open(self, url: str) -> None:
        """Open a manager."""
        self._manager = AsyncSessionManager.open(url)
        await self._manager.setup()
        self._leases: dict[str, Any] = {}
        self._held = contextlib.AsyncExitStack()

    async def create(self, session: str) -> None:
        """Create and lease it."""
        await self._manager.create_session(session_id=session, title=session)
        self._leases[session] = await self._held.enter_async_context(self._manager.lease(session, ttl=300))

    async def turn(self, session: str, number: int) -> None:
        """Add a message."""
        await self._manager.add_message(session, "assistant", TEXT, message_id=str(number), lease=self._leases[session])

    async def count(self, session: str) -> int:
        """Its count of messages."""
        found = await self._manager.get_session(session)
        assert found is not None
        return found.message_count

    async def close(self) -> None:
        """Give the leases back, and close the manager."""
        await self._held.aclose()
        await self._manager.close()


class LifecycleStates(Lifecycle):
    """`save_state` with `append`, a step and a lease."""

    name = "Lifecycle, save_state(append=...)"

    async def turn(self, session: str, number: int) -> None:
        """Append to the conversation."""
        entry = {"role": "assistant", "content": TEXT}
        await self._manager.save_state(session, append=[entry], step=number, lease=self._leases[session])

    async def count(self, session: str) -> int:
        """The length of the conversation."""
        state = await self._manager.load_state(session)
        return 0 if state is None or state.conversation is None else len(state.conversation)

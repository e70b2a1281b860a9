"""Lifecycle, in the ways that a turn can be saved; each write carries the session's lease."""

import contextlib
from typing import Any, Final

from benchmarks.stores.store import TEXT, Store
from lifecycle import AsyncSessionManager

# Longer than any run, so that no beat falls into what is measured.
_TTL: Final = 7200
_PAGE: Final = 500


class _Lifecycle(Store):
    """An async manager with the default pool of eight connections."""

    ours = True

    async def open(self, url: str) -> None:
        """Open a manager."""
        self._manager = AsyncSessionManager.open(url)
        self._leases: dict[str, Any] = {}
        self._held = contextlib.AsyncExitStack()

    async def create(self, session: str) -> None:
        """Create and lease it."""
        await self._manager.create_session(session_id=session, title=session)
        self._leases[session] = await self._held.enter_async_context(self._manager.lease(session, ttl=_TTL))

    async def close(self) -> None:
        """Give the leases back, and close the manager."""
        await self._held.aclose()
        await self._manager.close()


class Messages(_Lifecycle):
    """A message for each turn."""

    name = "Lifecycle, add_message"

    async def turn(self, session: str, number: int, text: str = TEXT) -> None:
        """Add a message."""
        await self._manager.add_message(session, "assistant", text, message_id=str(number), lease=self._leases[session])

    async def load(self, session: str) -> int:
        """Read the messages, page after page."""
        found = 0
        while page := await self._manager.get_messages(session, limit=_PAGE, offset=found):
            found += len(page)
            if len(page) < _PAGE:
                break
        return found


class Appends(_Lifecycle):
    """The saved state's conversation grows by an entry."""

    name = "Lifecycle, save_state(append=)"

    async def turn(self, session: str, number: int, text: str = TEXT) -> None:
        """Append to the conversation."""
        await self._manager.save_state(session, append=[_entry(text)], step=number, lease=self._leases[session])

    async def load(self, session: str) -> int:
        """Load the state."""
        state = await self._manager.load_state(session)
        return 0 if state is None or state.conversation is None else len(state.conversation)


class Wholes(Appends):
    """As a caller who knows nothing of appending: the whole conversation at every turn."""

    name = "Lifecycle, whole lists"

    async def open(self, url: str) -> None:
        """Open a manager."""
        await super().open(url)
        self._conversations: dict[str, list[dict[str, str]]] = {}

    async def turn(self, session: str, number: int, text: str = TEXT) -> None:
        """Save the whole, longer by an entry."""
        conversation = self._conversations.setdefault(session, [])
        conversation.append(_entry(text))
        await self._manager.save_state(
            session, conversation=conversation, step=number, lease=self._leases[session]
        )  # fmt: skip


class Checkpoints(Appends):
    """A checkpoint at every step."""

    name = "Lifecycle, checkpoints"

    async def turn(self, session: str, number: int, text: str = TEXT) -> None:
        """Append, and keep a checkpoint."""
        await super().turn(session, number, text)
        await self._manager.checkpoint(session, f"step {number}", lease=self._leases[session])


def _entry(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}

"""Lifecycle in the ways one uses it: under `expected_version`, under a lease, and under neither."""

import contextlib
from typing import Any, ClassVar

import sqlalchemy as sa

from benchmarks.races.store import START, Standing, Store
from lifecycle import Conflict, Lease, SessionManager, urls


class Unguarded(Store):
    """Saves that say nothing about what they build on: the last one wins."""

    refusals: ClassVar[tuple[type[Exception], ...]] = (Conflict,)

    def __init__(self, url: str) -> None:
        self._url = url
        self._manager = SessionManager.open(url)
        self._entries: dict[str, list[str]] = {}
        self._versions: dict[str, int] = {}

    def setup(self) -> None:
        """Migrate to this release's schema."""
        self._manager.setup()

    def create(self, session: str) -> None:
        """Create it, with its first state."""
        self._manager.create_session(session_id=session, context={"entries": [START]})

    def read(self, session: str) -> None:
        """Load the state and its version."""
        state = self._manager.load_state(session)
        if state is None:
            raise RuntimeError(f"session {session!r} has no state")
        self._entries[session], self._versions[session] = state.context["entries"], state.version

    def write(self, session: str, entry: str) -> None:
        """Save the new list under the guard."""
        entries = [*self._entries[session], entry]
        self._versions[session] = self._manager.save_state(
            session, context={"entries": entries}, step=len(entries), **self._guard(session)
        )
        self._entries[session] = entries

    def standing(self, session: str) -> Standing:
        """Load the state; there is one version after the other, hence one end."""
        state = self._manager.load_state(session)
        return Standing([] if state is None else state.context["entries"])

    def close(self) -> None:
        """Close the manager."""
        self._manager.close()

    def _guard(self, session: str) -> dict[str, Any]:  # noqa: ARG002 - the guards of the others need it
        return {}


class Versioned(Unguarded):
    """Saves that name the version they build on."""

    def _guard(self, session: str) -> dict[str, Any]:
        return {"expected_version": self._versions[session]}


class Leased(Unguarded):
    """Saves under a lease that was taken before the state was read."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._open: dict[str, contextlib.ExitStack] = {}
        self._leases: dict[str, Lease] = {}
        self._engine = sa.create_engine(urls.engine_url(url))

    def hold(self, session: str, ttl: float, wait: float) -> None:
        """Take the lease. The one that this process had before is given back, if it still has it."""
        self.release(session)
        stack = contextlib.ExitStack()
        self._leases[session] = stack.enter_context(self._manager.lease(session, ttl=ttl, wait=wait))
        self._open[session] = stack

    def give_up(self, session: str) -> None:
        """Move the clock: write a time that has passed into the row."""
        with self._engine.begin() as connection:
            connection.execute(
                sa.text(
                    "UPDATE sessions SET lease_expires_at = now() - interval '1 second'"
                    " WHERE tenant = '' AND session_id = :session"
                ),
                {"session": session},
            )

    def release(self, session: str) -> None:
        """Give the lease back."""
        if session in self._open:
            self._open.pop(session).close()

    def close(self) -> None:
        """Close the manager, and the way to the clock."""
        super().close()
        self._engine.dispose()

    def _guard(self, session: str) -> dict[str, Any]:
        return {"lease": self._leases[session]}

"""One run of a handler on one session: what the handler is given to work with."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from lifecycle.errors import LeaseLost, LifecycleError, SessionNotFound, StorageUnavailable
from lifecycle.lease import Lease
from lifecycle.lease_keeper import keeper_for
from lifecycle.log import get_logger, mask_passwords
from lifecycle.manager.blocking import SessionManager
from lifecycle.models.reads import Approval, Checkpoint, Message, SavedState, Session
from lifecycle.unset import UNSET, Unset

log = get_logger(__name__)


class RunStopped(BaseException):
    """The runner stops: the save before this was made, and another process goes on from it."""


class Run:
    """A claimed session under its lease. Everything that is written through it is fenced.

    `session` is the session as it was claimed, `state` what was saved last, or None, and `step` its step or 0.
    """

    def __init__(self, manager: SessionManager, lease: Lease, session: Session) -> None:
        self.manager = manager
        self.lease = lease
        self.session = session
        self.session_id = session.session_id
        self.stop_requested = False
        self.progressed = False
        self._state: SavedState | None = None
        self._loaded = False
        self._over = False
        self._holds = True

    @property
    def state(self) -> SavedState | None:
        """What was saved last; None where nothing was."""
        if not self._loaded:
            # Of a session that somebody has ended meanwhile too: None would have the handler begin from the beginning.
            state = self.manager.load_state(self.session_id, any_state=True)
            if state is None and self.manager.get_session(self.session_id) is None:
                raise SessionNotFound(self.session_id)
            self._state, self._loaded = state, True
        return self._state

    @property
    def step(self) -> int:
        """The last saved step; 0 where there is none."""
        state = self.state
        return 0 if state is None or state.step is None else state.step

    @property
    def over(self) -> bool:
        """Whether the session was moved on or given back."""
        return self._over

    @property
    def lost(self) -> Any:
        """An event: the lease is gone, and nothing that is written any more will be accepted."""
        return self.lease.lost

    def save(self, **values: Any) -> int:
        """`save_state` under the lease; the new version. Raises `LeaseLost` once another has taken over.

        Where the runner stops it ends the handler here, the save being made: `RunStopped` passes through
        `except Exception`.
        """
        version = self._save(values)
        self._stop_here()
        return version

    def add_message(self, role: str, content: Any, **values: Any) -> Message:
        """`add_message` under the lease."""
        return self.manager.add_message(self.session_id, role, content, lease=self.lease, **values)

    def add_messages(self, messages: Sequence[Mapping[str, Any]]) -> list[Message]:
        """`add_messages` under the lease."""
        return self.manager.add_messages(self.session_id, messages, lease=self.lease)

    def checkpoint(self, label: str, data: Any = None) -> Checkpoint:
        """`checkpoint` under the lease."""
        return self.manager.checkpoint(self.session_id, label, data, lease=self.lease)

    def suspend(self, reason: str | None = None) -> None:
        """Put the session aside; return from the handler then. When it is resumed a runner takes it up again."""
        self.move("suspend", reason)

    def complete(self, reason: str | None = None) -> None:
        """Finish the session, as returning from the handler does; with a reason."""
        self.move("complete", reason)

    def end(self, reason: str | None = None) -> None:
        """Finish the session without success; return from the handler then."""
        self.move("end", reason)

    def request_approval(self, action: str, **values: Any) -> Approval:
        """Ask a person, the session being suspended until the answer; return from the handler then."""
        asked = self.manager.request_approval(
            self.session_id, action, suspend=True, requested_by=self.lease.holder, lease=self.lease, **values
        )
        self._over = True
        return asked

    def move(self, trigger: str, reason: str | None = None) -> None:
        """Fire a trigger under the lease: the run is over then."""
        fire = getattr(self.manager, f"{trigger}_session")
        moved = fire(self.session_id, reason=reason, actor=self.lease.holder, lease=self.lease)
        self._over, self._holds = True, moved.lease_holder is not None

    def finish(self) -> None:
        """Complete the session unless the handler decided otherwise."""
        if not self._over:
            self.move("complete")

    def hand_back(self, retry_in: float, *, forget: bool = False) -> None:
        """Let any runner take the session up again, in so many seconds."""
        if self._over:
            return
        holder, epoch = self.lease.holder, self.lease.epoch
        self.manager.hand_back(self.session_id, holder=holder, epoch=epoch, retry_in=retry_in, forget=forget)
        self._over, self._holds = True, False

    def let_go(self) -> None:
        """Beat for the lease no longer; give it back where the run's end left it with us."""
        lease = self.lease
        give_back, lease.released = self._over and self._holds and lease.held, True
        with contextlib.suppress(LifecycleError):  # the manager is closed
            keeper_for(self.manager).drop(lease)
        if give_back:
            try:
                self.manager.release_lease(self.session_id, holder=lease.holder, epoch=lease.epoch)
            except StorageUnavailable as error:
                log.warning("lease_not_released", session_id=self.session_id, error=mask_passwords(str(error)))

    def _save(self, values: dict[str, Any]) -> int:
        state = self.state
        version = self.manager.save_state(self.session_id, lease=self.lease, **values)
        self.progressed = True
        self._state = _merged(self.session_id, state, values, version)
        return version

    def _stop_here(self) -> None:
        if self.stop_requested:
            raise RunStopped


class AsyncRun(Run):
    """`Run` for async handlers: the same names, awaited."""

    cancel: Callable[[], Any] = staticmethod(lambda: None)

    async def save(self, **values: Any) -> int:  # type: ignore[override]
        """`save_state` under the lease; the new version. Raises `LeaseLost` once another has taken over.

        Where the runner stops it ends the handler here, the save being made: `RunStopped` passes through
        `except Exception`.
        """
        version = await asyncio.to_thread(self._save, values)
        self._stop_here()
        return version

    async def add_message(self, role: str, content: Any, **values: Any) -> Message:  # type: ignore[override]
        """`add_message` under the lease."""
        return await asyncio.to_thread(super().add_message, role, content, **values)

    async def add_messages(self, messages: Sequence[Mapping[str, Any]]) -> list[Message]:  # type: ignore[override]
        """`add_messages` under the lease."""
        return await asyncio.to_thread(super().add_messages, messages)

    async def checkpoint(self, label: str, data: Any = None) -> Checkpoint:  # type: ignore[override]
        """`checkpoint` under the lease."""
        return await asyncio.to_thread(super().checkpoint, label, data)

    async def suspend(self, reason: str | None = None) -> None:  # type: ignore[override]
        """Put the session aside; return from the handler then. When it is resumed a runner takes it up again."""
        await asyncio.to_thread(super().suspend, reason)

    async def complete(self, reason: str | None = None) -> None:  # type: ignore[override]
        """Finish the session, as returning from the handler does; with a reason."""
        await asyncio.to_thread(super().complete, reason)

    async def end(self, reason: str | None = None) -> None:  # type: ignore[override]
        """Finish the session without success; return from the handler then."""
        await asyncio.to_thread(super().end, reason)

    async def request_approval(self, action: str, **values: Any) -> Approval:  # type: ignore[override]
        """Ask a person, the session being suspended until the answer; return from the handler then."""
        return await asyncio.to_thread(super().request_approval, action, **values)


_DOCUMENTS = ("conversation", "context", "plan", "phase", "step")


def _merged(session_id: str, old: SavedState | None, values: dict[str, Any], version: int) -> SavedState:
    """The state after a save, without reading it again."""
    state: dict[str, Any] = {name: getattr(old, name, None) for name in _DOCUMENTS}
    given: dict[str, Any | Unset] = {name: values[name] for name in _DOCUMENTS if values.get(name, UNSET) is not UNSET}
    state |= given
    if values.get("append"):
        state["conversation"] = [*(state["conversation"] or ()), *values["append"]]
    return SavedState.of({"session_id": session_id, **state, "version": version, "saved_at": datetime.now(UTC)})


__all__ = ["AsyncRun", "LeaseLost", "Run", "RunStopped"]

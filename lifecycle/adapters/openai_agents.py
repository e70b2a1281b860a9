"""The OpenAI Agents SDK's sessions: `Runner.run(agent, "Hello", session=LifecycleSession("user-123", manager))`.

An item of the conversation is a message. A plain one, of a role and its content, is stored as just that, so that it can
be read, searched and added with the manager too; any other is stored whole. Order is that of the messages' numbers.
"""

import json
from datetime import UTC, datetime
from typing import Any, Final, cast

from agents import SessionSettings, TResponseInputItem

from lifecycle.adapters.calls import Calls, Manager
from lifecycle.errors import InvalidArgument, InvalidTransition, SessionBusy, SessionNotFound
from lifecycle.models.reads import Message
from lifecycle.operations.fencing import Held

_PLAIN: Final = {"role", "content"}
_LAST: Final = 2**63 - 1
_ROLE_CHARS: Final = 255


class LifecycleSession:
    """A conversation of the OpenAI Agents SDK in a session of the manager's tenant.

    The session is the one with this id; where there is none, the first item creates it with `values`, which are those of
    `create_session` (kind, user_id, agent_id, metadata, idle_timeout and so on). One that has expired is reopened by the
    next item, unless `reopen` is false; one that is completed or ended refuses items with `InvalidTransition`. Under a
    `lease` all writes are made under it; without one they raise `SessionBusy` while somebody holds the session.

    `manager` may be a `SessionManager`, for any number of event loops, or an `AsyncSessionManager`, for the one that
    uses it first. `session_settings` are the SDK's: its `limit` is that of `get_items()`.
    """

    def __init__(
        self,
        session_id: str,
        manager: Manager,
        *,
        session_settings: SessionSettings | dict[str, Any] | None = None,
        lease: Held | None = None,
        reopen: bool = True,
        **values: Any,
    ) -> None:
        self.session_id = session_id
        self.session_settings: SessionSettings | None = SessionSettings().resolve(session_settings)
        self.lease = lease
        self._calls = Calls(manager)
        self._reopen = reopen
        self._values = values

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """The last `limit` items in order, or all (None, or less than 0), as they stood at one moment.

        None takes the limit of the session's settings. Rows that are not items are left out.
        """
        if limit is None and self.session_settings is not None:
            limit = self.session_settings.limit
        if limit is not None and limit < 0:
            limit = None
        while True:
            found = await self._last_items(limit)
            if found is not None:
                return found

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Add items, all or none, behind all that are there.

        Raises `NotSerializable` and `LimitExceeded` for what cannot be stored as it is, `InvalidTransition`,
        `SessionBusy`, `LeaseLost`.
        """
        if not items:
            return
        messages = [_message(item, f"items[{i}]") for i, item in enumerate(items)]
        # To be created, then to be reopened, and once more where somebody else does the same at the same moment.
        for last in (False, False, False, True):
            try:
                await self._calls.do("add_messages", self.session_id, messages, lease=self.lease)
            except SessionNotFound:
                if last:
                    raise
                await self._calls.do("open_session", self.session_id, **self._values)
            except InvalidTransition as error:
                if last or not self._reopen or error.state != "expired":
                    raise
                await self._calls.do("reopen_session", self.session_id, reason="the conversation goes on")
            except SessionBusy as error:
                if last or error.until is None or error.until > datetime.now(UTC):
                    raise
                # What refused it is over: the session was not there, say, and then another made it.
            else:
                return

    async def pop_item(self) -> TResponseInputItem | None:
        """Remove the last item and return it; None when there is none. No two callers get the same one.

        Rows behind it that are not items are removed with it.
        Raises `InvalidTransition` (the session is over), `SessionBusy`, `LeaseLost`.
        """
        while True:
            try:
                message = await self._calls.do("pop_message", self.session_id, lease=self.lease)
            except SessionNotFound:
                return None
            except json.JSONDecodeError:
                continue  # somebody broke the row; it is gone
            if message is None:
                return None
            item = _item(message)
            if item is not None:
                return item

    async def clear_session(self) -> None:
        """Remove all items at once. The session itself stays, with its title, its state and who holds it.

        Raises `InvalidTransition` (the session is over), `SessionBusy`, `LeaseLost`.
        """
        try:
            await self._calls.do("clear_messages", self.session_id, lease=self.lease)
        except SessionNotFound:
            return

    async def _last_items(self, limit: int | None) -> list[TResponseInputItem] | None:
        """The last items, read page by page towards the first; None where some were removed meanwhile."""
        page = size = self._calls.manager.settings.limits.messages_page
        newest: Message | None = None
        reads, before = 0, _LAST
        found: list[TResponseInputItem] = []  # the last one first
        while limit is None or len(found) < limit:
            wanted = size if limit is None else min(size, limit - len(found))
            try:
                messages = await self._messages(before=before, limit=wanted)
            except json.JSONDecodeError:
                # Somebody broke a row, which must hide no other: come nearer to it, then pass over it.
                if wanted > 1:
                    size = wanted // 2
                else:
                    size, before = page, await self._last_before(before)
                continue
            reads += 1
            found += [item for message in reversed(messages) if (item := _item(message)) is not None]
            if len(messages) < wanted:
                break
            before = messages[0].seq
            newest = newest or messages[0]
        # Items are removed from the end, or all of them: while one is there, so are those before it.
        if reads > 1 and newest is not None and not await self._is_there(newest):
            return None
        return found[::-1]

    async def _is_there(self, message: Message) -> bool:
        found = await self._messages(after=message.seq - 1, before=message.seq + 1, limit=1)
        return [one.message_id for one in found] == [message.message_id]

    async def _last_before(self, before: int) -> int:
        """The number of the last message before one, which cannot be read itself: where the first is behind it that finds none."""
        low, high = 0, before
        while high - low > 1:
            middle = (low + high) // 2
            try:
                found = await self._messages(after=middle - 1, before=before, limit=1)
            except json.JSONDecodeError:
                found = [None]
            low, high = (middle, high) if found else (low, middle)
        return low

    async def _messages(self, **bounds: int) -> list[Any]:
        messages: list[Any] = await self._calls.ask("get_messages", self.session_id, **bounds)
        return messages


def _message(item: Any, where: str) -> dict[str, Any]:
    """What an item is stored as."""
    if not isinstance(item, dict):
        raise InvalidArgument(f"{where} must be a dict, not {type(item).__name__}")
    role = item.get("role")
    if item.keys() == _PLAIN and _is_role(role) and isinstance(item["content"], str | list):
        return {"role": role, "content": item["content"]}
    names = (name for name in (role, item.get("type"), "item") if _is_role(name))
    return {"role": next(names), "content": item}


def _is_role(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _ROLE_CHARS and value.isprintable()


def _item(message: Message) -> TResponseInputItem | None:
    """The item that a message stands for; None where it is none."""
    content = message.content
    if isinstance(content, dict):
        return cast("TResponseInputItem", content)
    return (
        cast("TResponseInputItem", {"role": message.role, "content": content})
        if isinstance(content, str | list)
        else None
    )

"""Messages: added in order, read by page, removed by id."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from lifecycle import states
from lifecycle.documents import decode, encode
from lifecycle.errors import InvalidArgument, LimitExceeded
from lifecycle.folding import fold, folded_copy
from lifecycle.ids import uuid7
from lifecycle.models.reads import Message
from lifecycle.operations import rows
from lifecycle.operations.context import Context, check_count
from lifecycle.operations.fencing import Held, fence_of
from lifecycle.operations.refusal import explain
from lifecycle.operations.requests import (
    AddMessages,
    AddMissingMessages,
    DuplicateKey,
    Fence,
    GetMessages,
    RemoveMessage,
    Row,
)
from lifecycle.operations.sessions import _aware
from lifecycle.operations.typing import Steps

_FIELDS = {"role", "content", "agent_id", "metadata", "message_id"}


def add_message(
    context: Context,
    session_id: str,
    role: str,
    content: Any,
    *,
    agent_id: str | None = None,
    metadata: dict[str, Any] | None = None,
    message_id: str | None = None,
    lease: Held | None = None,
) -> Steps[Message]:
    """Append a message to an active or suspended session and return it.

    `content` is text, or any JSON value such as a list of typed parts. With the caller's `message_id` a repeat is
    safe: it returns the message that is there. The first text of a user becomes the title of a session without one.
    Raises `SessionNotFound`, `InvalidTransition` (it is finished), `SessionBusy` (another holds a lease), `LeaseLost`,
    `MessageExists`, `LimitExceeded`, `NotSerializable`.
    """
    item = {"role": role, "content": content, "agent_id": agent_id, "metadata": metadata, "message_id": message_id}
    added = yield from add_messages(context, session_id, [item], lease=lease)
    return added[0]


def add_messages(
    context: Context, session_id: str, messages: Sequence[Mapping[str, Any]], *, lease: Held | None = None
) -> Steps[list[Message]]:
    """Append messages (mappings with role, content, and optionally agent_id, metadata, message_id), all or none.

    Returns them in order. Raises what `add_message` raises.
    """
    session_id = context.check_id(session_id)
    if len(messages) > context.limits.batch_messages:
        raise LimitExceeded(
            "messages", len(messages), context.limits.batch_messages, "messages", "limits.batch_messages"
        )
    new = tuple(_row(context, item, f"messages[{i}]") for i, item in enumerate(messages))
    if not new:
        return []
    if len({row["message_id"] for row in new}) != len(new):
        raise InvalidArgument("messages: two of them have the same message_id")
    fence = fence_of(context.tenant, session_id, lease)
    try:
        placed = yield AddMessages(context.tenant, session_id, new, _auto_title(context, new), fence)
    except DuplicateKey:
        return (yield from _repeat(context, session_id, new, fence))
    if placed is None:
        yield from explain(context, session_id, "add a message to", needs=states.LIVE, fence=fence)
    return [
        rows.placed_message(row, session_id, seq, created_at)
        for row, (seq, created_at) in zip(new, placed, strict=True)
    ]


def _repeat(context: Context, session_id: str, new: tuple[Row, ...], fence: Fence | None) -> Steps[list[Message]]:
    """Some ids are taken: add the rest, all or none, where the taken ones say the same; give all of them back."""
    found = yield AddMissingMessages(context.tenant, session_id, new, fence)
    if found is None:
        yield from explain(context, session_id, "add a message to", needs=states.LIVE, fence=fence)
    by_id = {row["message_id"]: row for row in found}
    return [rows.message(by_id[row["message_id"]]) for row in new]


def get_messages(
    context: Context,
    session_id: str,
    *,
    limit: int = 100,
    offset: int = 0,
    since: datetime | None = None,
    after: int | None = None,
    before: int | None = None,
) -> Steps[list[Message]]:
    """Messages in order: at most `limit` of those created since a time, after one seq and before another.

    With `before` and no `after` they are the last ones before it. Raises `InvalidArgument`.
    """
    check_count(limit, "limit", 1, context.limits.messages_page, "limits.messages_page")
    check_count(offset, "offset", 0, None)
    for name, value in (("after", after), ("before", before)):
        if value is not None:
            check_count(value, name, 0, 2**63 - 1)
    found = yield GetMessages(
        context.tenant, context.check_id(session_id), limit, offset, _aware(since, "since"), after, before
    )
    return [rows.message(row) for row in found]


def pop_message(context: Context, session_id: str, *, lease: Held | None = None) -> Steps[Message | None]:
    """Remove the last message and return it; None when there is none.

    No two callers get the same one. Raises `SessionNotFound`, `InvalidTransition`, `SessionBusy`, `LeaseLost`.
    """
    row = yield from _remove(context, session_id, None, lease)
    return None if row is None else rows.message(row)


def delete_message(context: Context, session_id: str, message_id: str, *, lease: Held | None = None) -> Steps[bool]:
    """Remove a message by its id; whether it was there.

    Raises `SessionNotFound`, `InvalidTransition`, `SessionBusy`, `LeaseLost`.
    """
    row = yield from _remove(context, session_id, context.check_id(message_id, "message_id"), lease)
    return row is not None


def _remove(context: Context, session_id: str, message_id: str | None, lease: Held | None) -> Steps[Row | None]:
    session_id = context.check_id(session_id)
    fence = fence_of(context.tenant, session_id, lease)
    answer = yield RemoveMessage(context.tenant, session_id, message_id, fence)
    if answer is None:
        yield from explain(context, session_id, "remove a message of", needs=states.LIVE, fence=fence)
    return answer or None


def _row(context: Context, item: Mapping[str, Any], where: str) -> Row:
    if not (item.keys() <= _FIELDS and "role" in item and "content" in item):
        raise InvalidArgument(f"{where}: give role and content, and at most agent_id, metadata, message_id")
    content = item["content"]
    bound = context.limits.message_chars
    if isinstance(content, str) and "\x00" not in content:
        text, encoding = content, "text"
        if len(text) > bound:
            raise LimitExceeded(f"{where}.content", len(text), bound, "characters", "limits.message_chars")
        if not text.isascii():
            encode(text, f"{where}.content", limit=bound * 8)
        folded = folded_copy(text)
    else:
        text = encode(content, f"{where}.content", limit=bound * 4, depth=context.limits.document_depth)
        encoding = "json"
        if len(text) > bound:
            raise LimitExceeded(f"{where}.content", len(text), bound, "characters", "limits.message_chars")
        folded = fold("\n".join(_texts(content)).replace("\x00", ""))
    message_id = item.get("message_id")
    metadata = item.get("metadata")
    return {
        "message_id": uuid7() if message_id is None else context.check_id(message_id, "message_id"),
        "role": context.check_id(item["role"], "role"),
        "content": text,
        "encoding": encoding,
        "content_folded": folded,
        "agent_id": context.check_short(item.get("agent_id"), "agent_id"),
        "metadata": context.metadata(metadata, f"{where}.metadata") if metadata else None,
    }


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for child in value.values() for text in _texts(child)]
    if isinstance(value, list):
        return [text for child in value for text in _texts(child)]
    return []


def _auto_title(context: Context, new: tuple[Row, ...]) -> tuple[str, str] | None:
    for row in new:
        if row["role"] == "user":
            content = row["content"] if row["encoding"] == "text" else " ".join(_texts(decode(row["content"])))
            line = " ".join(content[: context.limits.title_chars * 4].replace("\x00", "").split())
            if line:
                bound = min(80, context.limits.title_chars)
                title = line if len(line) <= bound else line[: bound - 1].rstrip() + "…"
                return title, fold(title)
    return None

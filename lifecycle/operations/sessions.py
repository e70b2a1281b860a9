"""Creating, reading, listing, changing and removing sessions."""

import base64
import binascii
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from lifecycle import states
from lifecycle.durations import parse_duration
from lifecycle.errors import (
    InvalidArgument,
    SessionExists,
    SessionNotFound,
    VersionConflict,
)
from lifecycle.folding import fold
from lifecycle.ids import uuid7
from lifecycle.models.reads import Session, SessionPage, Stats, TransitionRecord
from lifecycle.operations import rows
from lifecycle.operations.context import Context, check_count, check_text
from lifecycle.operations.requests import (
    CreateSession,
    DeleteSessions,
    DuplicateKey,
    EraseArchived,
    GetHistory,
    GetSession,
    GetStats,
    ListSessions,
    Row,
    SoftDelete,
    UpdateSession,
)
from lifecycle.operations.typing import Steps
from lifecycle.pieces import Document
from lifecycle.unset import UNSET, Unset

SORTS = ("updated_at", "created_at", "last_active_at", "title", "session_id")
Duration = str | int | timedelta


def create_session(
    context_: Context,
    *,
    session_id: str | None = None,
    kind: str = "chat",
    user_id: str | None = None,
    agent_id: str | None = None,
    parent_id: str | None = None,
    title: str | None = None,
    metadata: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    context: Any = UNSET,
    conversation: list[Any] | Unset = UNSET,
    phase: str | None = None,
    idle_timeout: Duration | None = None,
    protected: bool = False,
    available_at: datetime | None = None,
    actor: str | None = None,
) -> Steps[Session]:
    """Create a session and return it.

    Without `session_id` it gets a UUIDv7. `context` and `conversation` become its first saved state.
    `idle_timeout` (seconds, a timedelta, or text like `30m`) replaces the idle limit of its kind while it is active.
    `available_at` makes it claimable by a runner from then on.
    Raises `SessionExists`, `NotSerializable`, `LimitExceeded`, `InvalidArgument`.
    """
    request = _creation(
        context_,
        session_id=session_id,
        kind=kind,
        user_id=user_id,
        agent_id=agent_id,
        parent_id=parent_id,
        title=title,
        metadata=metadata,
        config=config,
        context=context,
        conversation=conversation,
        phase=phase,
        idle_timeout=idle_timeout,
        protected=protected,
        available_at=available_at,
        actor=actor,
    )
    row = yield from _create(request)
    if row is None:
        raise SessionExists(request.session_id)
    return rows.session(row)


def open_session(context_: Context, /, session_id: str, **values: Any) -> Steps[Session]:
    """Get the session, or create it with the given values (those of `create_session`): exactly one caller creates it.

    Raises `SessionExists` when a soft-deleted session has the id.
    """
    request = _creation(context_, session_id=session_id, **values)
    tenant = context_.tenant
    for _ in range(10):
        row = yield GetSession(tenant, request.session_id)
        if row is None:
            row = yield from _create(request)
        if row is not None:
            return rows.session(row)
        hidden = yield GetSession(tenant, request.session_id, deleted=True)
        if hidden is not None and hidden["deleted_at"] is not None:
            break
    raise SessionExists(request.session_id)


def get_session(context: Context, session_id: str) -> Steps[Session | None]:
    """The session, or None when there is none (or it is soft-deleted)."""
    row = yield GetSession(context.tenant, context.check_id(session_id))
    return None if row is None else rows.session(row)


def update_session(
    context: Context,
    session_id: str,
    *,
    title: str | Unset | None = UNSET,
    metadata: dict[str, Any] | Unset = UNSET,
    config: dict[str, Any] | Unset = UNSET,
    kind: str | Unset = UNSET,
    user_id: str | Unset | None = UNSET,
    agent_id: str | Unset | None = UNSET,
    parent_id: str | Unset | None = UNSET,
    protected: bool | Unset = UNSET,
    idle_timeout: Duration | Unset | None = UNSET,
    available_at: datetime | Unset | None = UNSET,
    expected_version: int | None = None,
) -> Steps[Session]:
    """Change what is passed and return the session; its version grows by one.

    Raises `SessionNotFound`, `VersionConflict`, `LimitExceeded`, `NotSerializable`.
    """
    values: Row = {}
    if title is not UNSET:
        values |= _title(context, title)
    if metadata is not UNSET:
        values["metadata"] = context.metadata(metadata, "metadata")
    if config is not UNSET:
        values["config"] = context.metadata(config, "config")
    if kind is not UNSET:
        values["kind"] = context.check_id(kind, "kind")
    for name, value in (("user_id", user_id), ("agent_id", agent_id), ("parent_id", parent_id)):
        if value is not UNSET:
            values[name] = context.check_short(value, name)
    if protected is not UNSET:
        values["protected"] = bool(protected)
    if available_at is not UNSET:
        values["available_at"] = _aware(available_at, "available_at")
        values |= {"runs": available_at is not None, "attempts": 0, "rescues": 0}
    if idle_timeout is not UNSET:
        values["idle_active"] = _duration(idle_timeout, "idle_timeout")
        values["idle_override"] = True
    session_id = context.check_id(session_id)
    row = yield UpdateSession(context.tenant, session_id, values, expected_version, idle_timeout is not UNSET)
    if row is None:
        current = yield GetSession(context.tenant, session_id)
        if current is None or expected_version is None:
            raise SessionNotFound(session_id)
        raise VersionConflict(session_id, expected_version, current["version"])
    return rows.session(row)


def delete_session(
    context: Context, session_id: str, *, soft: bool = False, force: bool = False, actor: str | None = None
) -> Steps[bool]:
    """Remove the session with all it owns; False when there is none.

    `soft` hides it instead, until its retention ends or `undelete_session` brings it back.
    A protected or leased session needs `force`. With an archive (config: `archive.directory`) it is written there
    first. Raises `SessionProtected`, `SessionBusy`, and `FileUnavailable`: then it was not removed.
    """
    session_id = context.check_id(session_id)
    key = (context.tenant, session_id)
    if soft:
        retention = {state: context.policies.retention_map(state) for state in states.TERMINAL}
        row = yield SoftDelete(*key, True, context.check_short(actor, "actor"), retention, force)
        return row is not None
    actor = context.check_short(actor, "actor")
    removed = yield DeleteSessions((key,), actor, None, force, archive=context.archive)
    return bool(removed)


def undelete_session(context: Context, session_id: str, *, actor: str | None = None) -> Steps[Session]:
    """Bring a soft-deleted session back and return it; one that is not deleted is returned as it is.

    Raises `SessionNotFound` when it is gone.
    """
    session_id = context.check_id(session_id)
    retention = {state: context.policies.retention_map(state) for state in states.TERMINAL}
    row = yield SoftDelete(context.tenant, session_id, False, context.check_short(actor, "actor"), retention)
    if row is None:
        raise SessionNotFound(session_id)
    return rows.session(row)


def delete_user(context: Context, user_id: str, *, actor: str | None = None) -> Steps[int]:
    """Remove every session of a user, protected and soft-deleted ones too; the number removed.

    They are not written to the archive, and those that are in it are erased from it. Raises `FileUnavailable` and
    `InvalidFile` when they cannot be: call it again.
    """
    user_id = context.check_id(user_id, "user_id")
    total = 0
    while True:
        found, _ = yield ListSessions(
            context.tenant, {"user_id": user_id, "deleted": True}, "session_id", False, 200, 0, None, False
        )
        if not found:
            break
        keys = tuple((row["tenant"], row["session_id"]) for row in found)
        total += yield DeleteSessions(keys, context.check_short(actor, "actor"), "user deleted", True)
    archive = context.archive
    if archive is not None:
        yield EraseArchived(archive, context.tenant, user_id)
    return total


def list_sessions(
    context: Context,
    *,
    user_id: str | None = None,
    agent_id: str | None = None,
    kind: str | None = None,
    state: str | None = None,
    parent_id: str | None = None,
    search: str | None = None,
    search_messages: bool = False,
    metadata: Mapping[str, Any] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    sort: str = "updated_at",
    order: str = "desc",
    limit: int = 20,
    offset: int = 0,
    cursor: str | None = None,
    count: bool = False,
    where: Any = None,
) -> Steps[SessionPage]:
    """A page of sessions.

    `search` finds a substring of titles, whatever the case, and with `search_messages` of messages too (a bounded
    scan). `metadata` compares top-level values. `since` and `until` bound `updated_at`. `sort` is one of updated_at,
    created_at, last_active_at, title, session_id; `order` asc or desc. Pages go by `offset`, or by the `cursor` of
    the page before. `count` asks for the total. `where` takes any SQLAlchemy condition over the session's columns.
    Raises `InvalidArgument`, `SearchTimeout`.
    """
    if sort not in SORTS:
        raise InvalidArgument(f"sort must be one of {', '.join(SORTS)}, not {sort!r}")
    if order not in {"asc", "desc"}:
        raise InvalidArgument(f"order must be asc or desc, not {order!r}")
    if state is not None and state not in states.STATES:
        raise InvalidArgument(f"state must be one of {', '.join(states.STATES)}, not {state!r}")
    check_count(limit, "limit", 1, context.limits.page_size, "limits.page_size")
    check_count(offset, "offset", 0, None)
    if cursor is not None and offset:
        raise InvalidArgument("pass either cursor or offset, not both")
    filters: dict[str, Any] = {
        name: check_text(value, name, context.limits.id_chars)
        for name, value in (
            ("user_id", user_id),
            ("agent_id", agent_id),
            ("kind", kind),
            ("state", state),
            ("parent_id", parent_id),
        )
        if value is not None
    }
    if since is not None:
        filters["since"] = _aware(since, "since")
    if until is not None:
        filters["until"] = _aware(until, "until")
    if search:
        filters["search"] = fold(check_text(search, "search", 1000))
        filters["search_messages"] = bool(search_messages)
    if metadata:
        filters["metadata"] = _metadata_filter(context, metadata)
    place = None if cursor is None else _read_cursor(cursor, sort, order)
    found, total = yield ListSessions(
        context.tenant_or_all, filters, sort, order == "desc", limit, offset, place, count, where
    )
    more = len(found) > limit
    page = found[:limit]
    return SessionPage.of(
        {
            "items": [rows.session(row) for row in page],
            "total": total,
            "has_more": more,
            "next_cursor": _write_cursor(page[-1], sort, order) if more else None,
        }
    )


def get_active_sessions(context: Context, *, kind: str | None = None, limit: int = 100) -> Steps[list[Session]]:
    """The active sessions, those last changed first; at most `limit`."""
    page: SessionPage = yield from list_sessions(context, state="active", kind=kind, limit=limit)
    return page.items


def history(context: Context, session_id: str, *, limit: int = 1000) -> Steps[list[TransitionRecord]]:
    """The audit log of a session, oldest first, its creation and deletion included; empty when nothing is known of it."""
    check_count(limit, "limit", 1, 10_000)
    found = yield GetHistory(context.tenant, context.check_id(session_id), limit)
    return [rows.transition(row) for row in found]


def get_stats(context: Context) -> Steps[Stats]:
    """Totals: by state, kind and agent, messages, age of what is due to expire, sizes in bytes."""
    values = yield GetStats(context.tenant_or_all)
    return Stats.of(values)


def _create(request: CreateSession) -> Steps[Row | None]:
    """Make the session; None when somebody else has, be it between our look and our insert."""
    try:
        row: Row | None = yield request
    except DuplicateKey:
        return None
    return row


def _creation(
    context_: Context,
    *,
    session_id: str | None,
    kind: str = "chat",
    user_id: str | None = None,
    agent_id: str | None = None,
    parent_id: str | None = None,
    title: str | None = None,
    metadata: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    context: Any = UNSET,
    conversation: list[Any] | Unset = UNSET,
    phase: str | None = None,
    idle_timeout: Duration | None = None,
    protected: bool = False,
    available_at: datetime | None = None,
    actor: str | None = None,
) -> CreateSession:
    policy = context_.policies.for_kind(context_.check_id(kind, "kind"))
    documents: dict[str, Document] = {}
    if context is not UNSET and context is not None:
        documents["context"] = context_.stored(context, "context")
    entries = None
    if conversation is not UNSET and conversation is not None:
        entries = context_.entries(conversation, "conversation")
    idle = policy.idle_active if idle_timeout is None else _duration(idle_timeout, "idle_timeout")
    values: Row = {
        "kind": kind,
        "user_id": context_.check_short(user_id, "user_id"),
        "agent_id": context_.check_short(agent_id, "agent_id"),
        "parent_id": context_.check_short(parent_id, "parent_id"),
        "metadata": "{}" if not metadata else context_.metadata(metadata, "metadata"),
        "config": "{}" if not config else context_.metadata(config, "config"),
        "phase": context_.check_short(phase, "phase"),
        "protected": bool(protected),
        "idle_active": idle,
        "idle_suspended": policy.idle_suspended,
        "idle_override": idle_timeout is not None,
        "available_at": _aware(available_at, "available_at"),
        "runs": available_at is not None,
        **_title(context_, title),
    }
    return CreateSession(
        context_.tenant,
        uuid7() if session_id is None else context_.check_id(session_id),
        values,
        documents,
        entries,
        policy.max_age,
        idle,
        policy.ghosts if not documents and entries is None else None,
        context_.check_short(actor, "actor"),
    )


def _title(context: Context, title: str | None) -> Row:
    if title is None:
        return {"title": None, "title_folded": None}
    check_text(title, "title", context.limits.title_chars, "limits.title_chars")
    return {"title": title, "title_folded": fold(title)}


def _duration(value: Duration | None, name: str) -> int | None:
    try:
        return None if value is None else parse_duration(value)
    except ValueError as error:
        raise InvalidArgument(f"{name}: {error}") from error


def _aware(value: Any, name: str) -> datetime | None:
    if value is None:
        return None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise InvalidArgument(f"{name} must be a datetime with a time zone, not {value!r}")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise InvalidArgument(f"{name} must be in the years 1 to 9999 in UTC, not {value.isoformat()}") from None


def _metadata_filter(context: Context, wanted: Mapping[Any, Any]) -> tuple[tuple[str, str], ...]:
    for name, value in wanted.items():
        if not isinstance(name, str) or isinstance(value, (dict, list)):
            raise InvalidArgument(f"metadata filter {name!r}: compare a name with text, a number, a boolean or None")
        # Beyond what may be stored as metadata nothing can match. U+0000 can, and no database can be asked for it.
        for text in (name, value) if isinstance(value, str) else (name,):
            check_text(text, "metadata filter", context.limits.metadata_bytes, "limits.metadata_bytes")
    return tuple((name, context.metadata({name: value}, "metadata")[1:-1]) for name, value in wanted.items())


def _write_cursor(row: Row, sort: str, order: str) -> str:
    value = row["title_folded"] or "" if sort == "title" else row[sort]
    listed = row["listed_at"].isoformat()
    at = value.isoformat() if isinstance(value, datetime) else value
    place = [sort, order, listed, at, row["tenant"], row["session_id"]]
    return base64.urlsafe_b64encode(json.dumps(place, separators=(",", ":")).encode()).decode().rstrip("=")


def _read_cursor(cursor: str, sort: str, order: str) -> tuple[Any, ...]:
    try:
        place = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        was_sort, was_order, listed, value, tenant, session_id = place
        if (was_sort, was_order) != (sort, order):
            raise InvalidArgument(f"this cursor is of a list sorted by {was_sort} {was_order}, not {sort} {order}")
        if sort.endswith("_at"):
            value = datetime.fromisoformat(value)
        if not (isinstance(tenant, str) and isinstance(session_id, str)):
            raise ValueError("not text")  # noqa: TRY004 - told to the caller as a bad cursor
        return datetime.fromisoformat(listed), value, tenant, session_id
    except InvalidArgument:
        raise
    except (ValueError, TypeError, binascii.Error, AttributeError) as error:
        raise InvalidArgument("cursor: not one that list_sessions gave; begin without a cursor") from error

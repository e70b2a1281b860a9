"""A session's page: where it stands, what happened to it, what was said, and what was saved."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from lifecycle import states
from lifecycle.errors import InvalidArgument, SessionNotFound
from lifecycle.manager.asynchronous import AsyncSessionManager
from lifecycle.models.reads import Checkpoint, Message, SavedState, Session
from lifecycle.web.dashboard import machine, trees
from lifecycle.web.dashboard.rendering import page
from lifecycle.web.dashboard.viewer import TheViewer, Viewer

router = APIRouter()

# The header with which the script asks for what it takes over of a page, and for no more.
PART: Final = "Lifecycle-Part"
MESSAGES: Final = 20
TIMELINE: Final = 100
_SHOWN_CHARS: Final = 4000
_DONE: Final = {
    **{row.trigger: f"The session is {row.target}." for row in states.TRANSITIONS},
    "undelete": "The session is back.",
}
DOCUMENTS: Final = ("context", "plan", "conversation")


@dataclass(frozen=True, slots=True)
class Asked:
    """Which session, which of its messages, and which two of its states to compare (`now`, or a checkpoint's seq)."""

    id: str
    tenant: str = ""
    before: int | None = None
    after: int | None = None
    one: str = ""
    other: str = "now"


@dataclass(slots=True)
class Said:
    """A message as the page shows it."""

    message: Message
    text: str
    cut: int = 0


@dataclass(slots=True)
class Compared:
    """Two states of a session and the places in which they differ."""

    one: str
    other: str
    documents: Mapping[str, Any] = field(default_factory=dict)

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not any(found for found, _ in self.documents.values())


@router.get("/session")
async def session(
    request: Request,
    viewer: TheViewer,
    id: str,  # noqa: A002 -- the query's name
    tenant: str = "",
    before: int | None = None,
    after: int | None = None,
    one: str = "",
    other: str = "now",
    done: str = "",
) -> Response:
    """The page."""
    return await show(request, viewer, Asked(id, tenant, before, after, one, other), said=_DONE.get(done))


async def show(
    request: Request, viewer: Viewer, asked: Asked, *, said: str | None = None, problem: str | None = None,
    status: int = 200,
) -> Response:  # fmt: skip
    """The page of a session. Raises `SessionNotFound`, and `InvalidArgument` for a state that cannot be compared."""
    manager = viewer.manager_for(asked.tenant)
    found = await manager.get_session(asked.id)
    if found is None:
        raise SessionNotFound(asked.id)
    saved: SavedState | None = None
    checkpoints: list[Checkpoint] = []
    messages: list[Message] = []
    # A page that only wants to know where the session stands now need not have its documents read.
    if PART not in request.headers:
        saved = await manager.load_state(asked.id, any_state=True)
        checkpoints = await manager.list_checkpoints(asked.id)
        messages = await manager.get_messages(asked.id, limit=MESSAGES, before=_end(asked), after=asked.after)
    return page(
        request, viewer, "session.html", status=status, session=found, said=said, problem=problem,
        machine=machine.draw(found.state), triggers=states.allowed(found.state),
        timeline=await manager.recent_transitions(session_id=asked.id, limit=TIMELINE), timeline_most=TIMELINE,
        messages=[_said(message) for message in messages],
        first=messages[0].seq if messages else None, last=messages[-1].seq if messages else None,
        latest=asked.before is None and asked.after is None,
        saved=saved, documents=_trees(saved), checkpoints=checkpoints[::-1],
        compared=await _compared(manager, asked, saved, checkpoints),
        approvals=await manager.list_approvals(asked.id, state="pending", limit=20),
        details=[trees.tree(found.metadata, "metadata"), trees.tree(found.config, "config")],
    )  # fmt: skip


@router.get("/session/message")
async def message(viewer: TheViewer, id: str, seq: int, tenant: str = "") -> Response:  # noqa: A002 -- the query's name
    """The whole content of a message, as text."""
    if seq < 1:
        raise InvalidArgument(f"seq must be at least 1, not {seq}")
    manager = viewer.manager_for(tenant)
    if await manager.get_session(id) is None:
        raise SessionNotFound(id)
    found = await manager.get_messages(id, limit=1, after=seq - 1, before=seq + 1)
    if not found:
        raise InvalidArgument(f"seq: the session has no message {seq}")
    return _plain(_text(found[0].content))


@router.get("/session/state")
async def state(viewer: TheViewer, id: str, tenant: str = "", checkpoint: int | None = None) -> Response:  # noqa: A002 -- as above
    """The whole of a saved state, as JSON text."""
    manager = viewer.manager_for(tenant)
    if await manager.get_session(id) is None:
        raise SessionNotFound(id)
    found: Any
    if checkpoint is None:
        found = await manager.load_state(id, any_state=True)
        if found is None:
            raise InvalidArgument("nothing was saved in this session yet")
    else:
        found = await manager.get_checkpoint(id, checkpoint)
    return _plain(json.dumps({name: getattr(found, name) for name in DOCUMENTS}, indent=2, ensure_ascii=False))


def _plain(text: str) -> Response:
    # Lone surrogates cannot be stored, so whatever comes from the database can be encoded.
    return Response(text, media_type="text/plain; charset=utf-8")


def _end(asked: Asked) -> int | None:
    """Without a place, the last messages."""
    return 2**63 - 1 if asked.before is None and asked.after is None else asked.before


def _text(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content, indent=2, ensure_ascii=False)


def _said(message: Message) -> Said:
    text = _text(message.content)
    return Said(message, text[:_SHOWN_CHARS], max(0, len(text) - _SHOWN_CHARS))


def _trees(saved: SavedState | None) -> list[trees.Node]:
    if saved is None:
        return []
    values = {name: getattr(saved, name) for name in DOCUMENTS}
    return [trees.tree(value, name) for name, value in values.items() if value is not None]


async def _compared(
    manager: AsyncSessionManager, asked: Asked, saved: SavedState | None, checkpoints: list[Checkpoint]
) -> Compared | None:
    """What differs between the two states that are asked for; by default, since the last checkpoint."""
    if not checkpoints:
        return None
    one = asked.one or str(checkpoints[-1].seq)
    sides = [await _state(manager, asked.id, name, saved) for name in (one, asked.other)]
    found = {name: trees.differences(*(side.get(name) for side in sides)) for name in (*DOCUMENTS, "phase", "step")}
    return Compared(one, asked.other, found)


async def _state(manager: AsyncSessionManager, session_id: str, name: str, saved: SavedState | None) -> dict[str, Any]:
    if name == "now":
        found: Any = saved
    elif name.isascii() and name.isdecimal() and len(name) < 19:  # noqa: PLR2004 -- digits of a 64-bit number
        found = await manager.get_checkpoint(session_id, max(1, int(name)))
    else:
        raise InvalidArgument(f"compare a checkpoint's number or now, not {name[:50]!r}")
    return {} if found is None else {key: getattr(found, key) for key in (*DOCUMENTS, "phase", "step")}


__all__ = ["Asked", "Session", "router", "show"]

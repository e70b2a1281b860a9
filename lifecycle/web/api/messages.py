"""Messages of a session."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request, Response
from pydantic import Discriminator, Tag

from lifecycle.models.reads import Message
from lifecycle.web.api import documents as d
from lifecycle.web.api.answers import answer, items, link, nothing
from lifecycle.web.api.held import Held
from lifecycle.web.api.idempotency import Attempted
from lifecycle.web.api.inputs import Moment, NewMessage, NewMessages
from lifecycle.web.api.paths import MessageId, SessionId
from lifecycle.web.api.routes import ApiRoute
from lifecycle.web.api.tenancy import Reading, Writing
from lifecycle.web.problems import Refused

router = APIRouter(route_class=ApiRoute, tags=["messages"])


class MessageNotFound(Refused):
    """The session has no such message."""

    status = 404


def _number(value: Any) -> str:
    many = isinstance(value, NewMessages) or (isinstance(value, dict) and "messages" in value)
    return "many" if many else "one"


OneOrMany = Annotated[
    Annotated[NewMessage, Tag("one")] | Annotated[NewMessages, Tag("many")],
    Discriminator(_number),
    Body(
        openapi_examples={
            "one": {"value": {"role": "user", "content": "My order is late"}},
            "many": {
                "value": {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]}
            },
        }
    ),
]


@router.get("/sessions/{session_id}/messages", response_model=d.Items[Message], responses=d.read(d.PAGE))
async def get_messages(
    request: Request,
    session_id: SessionId,
    work: Reading,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
    offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
    since: Annotated[Moment | None, Query(description="Created at that time or later.")] = None,
    after: Annotated[int | None, Query(ge=0, le=2**63 - 1, description="Behind this seq.")] = None,
    before: Annotated[int | None, Query(ge=0, le=2**63 - 1, description="The last ones before this seq.")] = None,
) -> Response:
    """Messages in order; none of a session that is not there. `Link` leads on: `next`, or `prev` with `before`."""
    found = await work.one.get_messages(session_id, limit=limit, offset=offset, since=since, after=after, before=before)
    if len(found) < limit:
        return items(found)
    if before is not None and after is None:
        return items(found, link(request, "prev", ("offset",), before=found[0].seq))
    return items(found, link(request, "next", ("offset",), after=found[-1].seq))


@router.post(
    "/sessions/{session_id}/messages", status_code=201, response_model=Message | d.Items[Message],
    responses=d.post(d.MADE_MESSAGES, d.NO_SESSION, d.MOVED, d.BUSY, d.OTHER_MESSAGE),
)  # fmt: skip
async def add_messages(
    session_id: SessionId, body: OneOrMany, work: Writing, lease: Held, attempt: Attempted
) -> Response:
    """Append one message, or `messages` in order: all or none. The answer is the message, or the `items`."""
    given = body.messages if isinstance(body, NewMessages) else [body]
    new = [message.model_dump() for message in given]
    for place, message in enumerate(new):
        message["message_id"] = message["message_id"] or attempt.derived_id(place)
    added = await work.one.add_messages(session_id, new, lease=lease)
    return answer({"items": added} if isinstance(body, NewMessages) else added[0], 201)


@router.post(
    "/sessions/{session_id}/messages:pop", response_model=Message,
    responses=d.post(d.NO_MESSAGE, d.MOVED, d.BUSY),
)  # fmt: skip
async def pop_message(session_id: SessionId, work: Writing, lease: Held) -> Response:
    """Remove the last message and get it. No two callers get the same one."""
    popped = await work.one.pop_message(session_id, lease=lease)
    if popped is None:
        raise MessageNotFound(f"session {session_id!r} has no message")
    return answer(popped)


@router.delete(
    "/sessions/{session_id}/messages", response_model=d.Removed,
    responses=d.write(d.NO_SESSION, d.MOVED, d.BUSY),
)  # fmt: skip
async def clear_messages(session_id: SessionId, work: Writing, lease: Held) -> Response:
    """Remove all messages of a session; how many there were."""
    return answer({"removed": await work.one.clear_messages(session_id, lease=lease)})


@router.delete(
    "/sessions/{session_id}/messages/{message_id}", status_code=204,
    responses=d.write(d.NO_MESSAGE, d.MOVED, d.BUSY),
)  # fmt: skip
async def delete_message(session_id: SessionId, message_id: MessageId, work: Writing, lease: Held) -> Response:
    """Remove a message by its id."""
    if not await work.one.delete_message(session_id, message_id, lease=lease):
        raise MessageNotFound(f"session {session_id!r} has no message {message_id!r}")
    return nothing()

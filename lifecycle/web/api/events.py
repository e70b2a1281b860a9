"""`/events`: every transition as it is committed, as Server-Sent Events that a browser's `EventSource` reads.

Each event's id is a cursor of `manager.watch`; a client that comes back with it as `Last-Event-ID` goes on behind it,
on whatever server. The streams that are open end when the server stops, which would wait for them otherwise.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event

from lifecycle.errors import LifecycleError
from lifecycle.log import get_logger
from lifecycle.watch import AsyncWatch
from lifecycle.web.access import still_opens
from lifecycle.web.api import documents as d
from lifecycle.web.api.inputs import Short
from lifecycle.web.api.routes import ApiRoute
from lifecycle.web.api.tenancy import Reading
from lifecycle.web.service import TheService
from lifecycle.web.streams import Streams

log = get_logger(__name__)
router = APIRouter(route_class=ApiRoute, tags=["events"])

KEEP_ALIVE: Final = 15.0
_RETRY_MS: Final = 2000
_CURSOR_CHARS: Final = 8192


class EventStream(StreamingResponse):
    """A stream of events. FastAPI's own class would have its router write them, cursors and end left out."""

    media_type = "text/event-stream"


@router.get(
    "/events",
    response_class=EventStream,
    responses=d.read(
        {
            200: {
                "description": "Events, for as long as the client listens.",
                "content": {
                    "text/event-stream": {
                        "schema": {"type": "string"},
                        "examples": {"one": {"value": "event: transition\ndata: {…}\nid: WyJzcWxpdGUiLDE3LDE3XQ\n\n"}},
                    }
                },
            }
        }
    ),
)
async def watch(
    work: Reading,
    service: TheService,
    session_id: Annotated[Short | None, Query(description="Of this session only.")] = None,
    after: Annotated[
        str | None,
        Query(max_length=_CURSOR_CHARS, description="Begin behind this event's id; empty for all that is kept."),
    ] = None,
    timeout: Annotated[  # noqa: ASYNC109 -- a parameter of the API
        float | None,
        Query(ge=0, le=3600, description="End after so many seconds without an event; 0 takes what is there."),
    ] = None,
    last_event_id: Annotated[
        str | None, Header(max_length=_CURSOR_CHARS, description="As `after`; a browser sends it when it comes back.")
    ] = None,
) -> Response:
    """Transitions, creations and deletions too, as they are committed: each once, as `event: transition`.

    `data` is a line of the audit log, `id` its cursor. Without `after` and `Last-Event-ID` it begins with what is
    committed from now on.
    """
    service.streams.require_open()
    place = last_event_id or after
    manager = work.manager if session_id is None else work.one
    stream = manager.watch(place, session_id=session_id, timeout=timeout)
    # Before the answer begins, so that a cursor of another database is a problem and not a stream that breaks off.
    await stream.__aenter__()
    return EventStream(
        _events(stream, service.streams, lambda: still_opens(work.caller, service)),
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _events(stream: AsyncWatch, streams: Streams, opens: Callable[[], Awaitable[bool]]) -> AsyncIterator[bytes]:
    await streams.add(stream)
    try:
        # An id without data: a client that is cut off before the first event comes back to where it began.
        yield format_sse_event(id=stream.cursor, retry=_RETRY_MS)
        while True:
            try:
                async with asyncio.timeout(KEEP_ALIVE):
                    event: Any = await anext(stream)
                if not await opens():
                    return
            except TimeoutError:
                if not await opens():
                    return
                yield format_sse_event(comment="keep-alive", id=stream.cursor)
                continue
            except StopAsyncIteration:
                return
            data = event.__pydantic_serializer__.to_json(event).decode()
            yield format_sse_event(event="transition", data_str=data, id=event.cursor)
    except LifecycleError as error:
        # The answer has begun; the client comes back to where it was.
        log.warning("events_broken_off", error=type(error).__name__)
    finally:
        streams.remove(stream)
        await stream.aclose()

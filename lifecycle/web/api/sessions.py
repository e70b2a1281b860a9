"""Sessions: created, read, listed, changed, removed."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response

from lifecycle import states
from lifecycle.errors import InvalidArgument, SessionExists, SessionNotFound
from lifecycle.models.reads import Session, SessionPage, SweepReport, TransitionRecord
from lifecycle.web.api import documents as d
from lifecycle.web.api.answers import answer, items, link, nothing, session_answer
from lifecycle.web.api.bodies import parse
from lifecycle.web.api.conditions import Expected, Known, PreconditionFailed, etag
from lifecycle.web.api.held import CarriedLease, Held
from lifecycle.web.api.idempotency import Attempt, Attempted
from lifecycle.web.api.inputs import (
    Acting,
    Cleanup,
    Fork,
    Ids,
    Moment,
    NewSession,
    SessionChanges,
    SessionValues,
    Short,
    Status,
)
from lifecycle.web.api.paths import SessionId, UserId
from lifecycle.web.api.routes import ApiRoute
from lifecycle.web.api.tenancy import Administering, Reading, Work, Writing

router = APIRouter(route_class=ApiRoute, tags=["sessions"])
_MOVED = ("status", "reason", "actor")


@router.get("/sessions/{session_id}", response_model=Session, responses=d.read(d.NOT_MODIFIED, d.NO_SESSION))
async def get_session(session_id: SessionId, work: Reading, known: Known) -> Response:
    """The session. Its `ETag` is its version, which saves and transitions raise; messages, touches and leases do not."""
    session = await work.one.get_session(session_id)
    if session is None:
        raise SessionNotFound(session_id)
    tag = etag(session.version)
    if known & {tag, "*"}:
        return Response(status_code=304, headers={"ETag": tag})
    return answer(session, headers={"ETag": tag})


@router.get("/sessions", response_model=SessionPage, responses=d.read(d.TIMED_OUT, d.PAGE))
async def list_sessions(
    request: Request,
    work: Reading,
    user_id: Short | None = None,
    agent_id: Short | None = None,
    kind: Short | None = None,
    state: Status | None = None,
    parent_id: Short | None = None,
    search: Annotated[str | None, Query(max_length=1000, description="Part of a title, whatever the case.")] = None,
    search_messages: Annotated[bool, Query(description="Search the messages too, within a bound of time.")] = False,
    metadata: Annotated[
        str | None,
        Query(
            description="A JSON object of top-level values that must be equal.",
            openapi_examples={"ticket": {"value": '{"ticket": 17}'}},
        ),
    ] = None,
    since: Annotated[Moment | None, Query(description="Changed at that time or later.")] = None,
    until: Annotated[Moment | None, Query(description="Changed before that time.")] = None,
    sort: Literal["updated_at", "created_at", "last_active_at", "title", "session_id"] = "updated_at",
    order: Literal["asc", "desc"] = "desc",
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
    offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
    cursor: Annotated[
        str | None, Query(max_length=10_000, description="Of the page before; not with `offset`.")
    ] = None,
    count: Annotated[bool, Query(description="Count all that match.")] = False,
) -> Response:
    """A page of sessions. `Link` with `rel="next"` leads to the next one."""
    wanted = None if metadata is None else parse(metadata.encode("utf-8", "surrogatepass"))
    if wanted is not None and not isinstance(wanted, dict):
        raise InvalidArgument("metadata: must be a JSON object")
    page = await work.manager.list_sessions(
        user_id=user_id, agent_id=agent_id, kind=kind, state=state, parent_id=parent_id, search=search,
        search_messages=search_messages, metadata=wanted, since=since, until=until, sort=sort, order=order,
        limit=limit, offset=offset, cursor=cursor, count=count,
    )  # fmt: skip
    return answer(page, headers=link(request, "next", ("offset",), cursor=page.next_cursor) if page.has_more else None)


@router.post("/sessions", status_code=201, response_model=Session, responses=d.post(d.CREATED_SESSION, d.TAKEN))
async def create_session(body: NewSession, work: Writing, attempt: Attempted) -> Response:
    """Create a session."""
    values = body.model_dump(exclude_unset=True, exclude={"actor"})
    derived = attempt.derived_id()
    if values.get("session_id") is None and derived is not None:
        values["session_id"] = derived
    try:
        session = await work.one.create_session(**values, actor=work.actor(body.actor))
    except SessionExists:
        session = await _made_before(work, values.get("session_id"), derived, attempt)
    return session_answer(session, 201, created=True)


async def _made_before(work: Work, session_id: str | None, derived: str | None, attempt: Attempt) -> Session:
    """A session that this very request made before the process that carried it out died.

    Raises `SessionExists`; `OutcomeUnknown` where its id is the client's, and so anybody may have made it.
    """
    made = await work.one.get_session(derived) if derived is not None and session_id == derived else None
    if made is None:
        raise attempt.unknown() if attempt.taken_over else SessionExists(session_id or "")
    return made


@router.put("/sessions/{session_id}", response_model=Session, responses=d.write(d.OPENED, d.TAKEN, d.STALE))
async def open_session(
    session_id: SessionId, work: Writing, known: Known, body: SessionValues | None = None
) -> Response:
    """Get the session (200), or create it with the given values (201): exactly one caller creates it.

    With `If-None-Match: *` it is only created: 412 if it is there.
    """
    body = body or SessionValues()
    values = body.model_dump(exclude_unset=True, exclude={"actor"}) | {"actor": work.actor(body.actor)}
    if (found := await work.one.get_session(session_id)) is None:
        try:
            return session_answer(await work.one.create_session(session_id=session_id, **values), 201, created=True)
        except SessionExists:
            found = await work.one.open_session(session_id, **values)
    if known & {etag(found.version), "*"}:
        raise PreconditionFailed(f"If-None-Match: session {session_id!r} is there, at version {found.version}")
    return session_answer(found)


@router.patch(
    "/sessions/{session_id}", response_model=Session, responses=d.write(d.CHANGED, d.NO_SESSION, d.MOVED, d.STALE)
)
async def update_session(
    session_id: SessionId, body: SessionChanges, work: Writing, expected: Expected, lease: Held
) -> Response:
    """Change what is given, or move the session with `status` (and `reason`): one or the other."""
    given = body.model_dump(exclude_unset=True)
    if body.status is None:
        if "reason" in given or "actor" in given:
            raise InvalidArgument("reason and actor go with status")
        if lease is not None:
            raise InvalidArgument("Lease-Holder, Lease-Epoch: only a change of status is made under a lease")
        given.pop("status", None)
        return session_answer(await work.one.update_session(session_id, **given, expected_version=expected))
    if set(given) - set(_MOVED):
        raise InvalidArgument(f"status: change {', '.join(sorted(set(given) - set(_MOVED)))} in a request of its own")
    session = await _moved_to(
        work, session_id, body.status, expected, reason=body.reason, actor=body.actor, lease=lease
    )
    return session_answer(session)


async def _moved_to(
    work: Work,
    session_id: str,
    status: str,
    expected: int | None,
    *,
    reason: str | None,
    actor: str | None,
    lease: CarriedLease | None,
) -> Session:
    """Fire the trigger that leads to a state: where several do, the one that the session's state allows."""
    triggers = [row.trigger for row in states.TRANSITIONS if row.target == status]
    trigger = triggers[0]
    if len(triggers) > 1:
        session = await work.one.get_session(session_id)
        if session is None:
            raise SessionNotFound(session_id)
        trigger = next((one for one in triggers if session.state in states.transition(one).sources), trigger)
    return await move(work, trigger, session_id, expected, reason=reason, actor=actor, lease=lease)


async def move(
    work: Work,
    trigger: str,
    session_id: str,
    expected: int | None,
    *,
    reason: str | None,
    actor: str | None,
    lease: CarriedLease | None,
) -> Session:
    """Fire a trigger."""
    method = getattr(work.one, f"{trigger}_session")
    session: Session = await method(
        session_id, reason=reason, actor=work.actor(actor), lease=lease, expected_version=expected
    )
    return session


@router.delete("/sessions/{session_id}", status_code=204, responses=d.write(d.NO_SESSION, d.GUARDED))
async def delete_session(
    session_id: SessionId,
    work: Writing,
    soft: Annotated[bool, Query(description="Hide it until its retention ends; `:undelete` brings it back.")] = False,
    force: Annotated[bool, Query(description="Although it is protected or leased.")] = False,
) -> Response:
    """Remove the session with all it owns."""
    if not await work.one.delete_session(session_id, soft=soft, force=force, actor=work.actor(None)):
        raise SessionNotFound(session_id)
    return nothing()


@router.get("/sessions/{session_id}/transitions", response_model=d.Items[TransitionRecord], responses=d.read())
async def history(
    session_id: SessionId, work: Reading, limit: Annotated[int, Query(ge=1, le=10_000)] = 1000
) -> Response:
    """The audit log of a session, oldest first; empty when nothing is known of it."""
    return items(await work.one.history(session_id, limit=limit))


@router.post("/sessions/{session_id}:touch", response_model=d.Touched, responses=d.post(d.NO_SESSION, d.MOVED))
async def touch_session(session_id: SessionId, work: Writing) -> Response:
    """A sign of life: the session does not expire for as long as it may idle."""
    return answer({"touched": await work.one.touch_session(session_id)})


@router.post("/sessions:touch", response_model=d.Touched, responses=d.post())
async def touch_sessions(body: Ids, work: Writing) -> Response:
    """A sign of life of many sessions; those that are finished or not there are passed over."""
    return answer({"touched": await work.one.touch_session(body.session_ids)})


@router.post(
    "/sessions/{session_id}:fork", status_code=201, response_model=Session,
    responses=d.post(d.CREATED_SESSION, d.NO_SESSION, d.TAKEN),
)  # fmt: skip
async def fork_session(session_id: SessionId, work: Writing, attempt: Attempted, body: Fork | None = None) -> Response:
    """Create a session that goes on from this one's state, or from a checkpoint of it."""
    body = body or Fork()
    derived = attempt.derived_id()
    target = body.session_id or derived
    try:
        session = await work.one.fork_session(
            session_id, checkpoint=body.checkpoint, new_id=target, actor=work.actor(body.actor)
        )
    except SessionExists:
        session = await _made_before(work, target, derived, attempt)
    return session_answer(session, 201, created=True)


@router.post("/sessions/{session_id}:undelete", response_model=Session, responses=d.post(d.CHANGED, d.NO_SESSION))
async def undelete_session(session_id: SessionId, work: Writing, body: Acting | None = None) -> Response:
    """Bring a soft-deleted session back."""
    actor = work.actor(None if body is None else body.actor)
    return session_answer(await work.one.undelete_session(session_id, actor=actor))


@router.post("/sessions/{session_id}:cleanup", response_model=SweepReport, responses=d.post(d.NO_SESSION, d.GUARDED))
async def cleanup_after_delegation(session_id: SessionId, work: Writing, body: Cleanup | None = None) -> Response:
    """End and remove a sub-session whose work is done, with those below it: all or none."""
    body = body or Cleanup()
    return answer(await work.one.cleanup_after_delegation(session_id, reason=body.reason, actor=work.actor(body.actor)))


@router.delete("/users/{user_id}", response_model=d.Removed, responses=d.read())
async def delete_user(user_id: UserId, work: Administering) -> Response:
    """Remove every session of a user, protected, soft-deleted and archived ones too."""
    removed: Any = await work.one.delete_user(user_id, actor=work.actor(None))
    return answer({"removed": removed})

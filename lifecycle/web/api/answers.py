"""Answers, written straight from what the managers give: it was valid when it was stored."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import Request, Response
from pydantic import BaseModel
from pydantic_core import to_json

from lifecycle.models.reads import Session
from lifecycle.web.api.conditions import etag
from lifecycle.web.api.paths import encoded

PREFIX: Final = "/api/v1"


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A value as JSON."""
    body = value.__pydantic_serializer__.to_json(value) if isinstance(value, BaseModel) else to_json(value)
    return Response(body, status, headers, "application/json")


def session_answer(session: Session, status: int = 200, *, created: bool = False) -> Response:
    """A session with its ETag, and where it is if it is new."""
    headers = {"ETag": etag(session.version)}
    if created:
        headers["Location"] = location("sessions", session.session_id)
    return answer(session, status, headers)


def items(found: Sequence[Any], headers: Mapping[str, str] | None = None, **more: Any) -> Response:
    """A list of values."""
    return answer({"items": list(found), **more}, headers=headers)


def nothing() -> Response:
    """An answer without a body."""
    return Response(status_code=204)


def location(*segments: str) -> str:
    """The path of a resource."""
    return "/".join((PREFIX, *map(encoded, segments)))


def link(request: Request, rel: str, drop: Sequence[str] = (), **changed: Any) -> dict[str, str]:
    """The `Link` header to the same list from another place."""
    gone = {*drop, *changed}
    query = [(name, value) for name, value in request.query_params.multi_items() if name not in gone]
    query += [(name, str(value)) for name, value in changed.items()]
    return {"Link": f'<{request.scope["path"]}?{urlencode(query)}>; rel="{rel}"'}

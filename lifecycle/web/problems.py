"""Errors as RFC 9457 problem documents."""

import json
import math
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from lifecycle.errors import ConfigError, FileUnavailable, LifecycleError, StorageUnavailable
from lifecycle.faults import http_status
from lifecycle.log import get_logger, mask_passwords
from lifecycle.web.methods import methods_of
from lifecycle.web.request_log import route_of

log = get_logger(__name__)

# What of an error is told beside its text.
_FIELDS: Final = frozenset(
    {
        "session_id", "seq", "approval_id", "message_id", "token", "action", "state", "allowed", "expected", "current",
        "holder", "until", "epoch", "path", "what", "size", "limit", "outcome_unknown",
    }
)  # fmt: skip
# What went wrong here and not with the request.
_OURS: Final = (StorageUnavailable, FileUnavailable, ConfigError)
_AWAY: Final = "it cannot be served now; why is in the log"

MEDIA_TYPE: Final = "application/problem+json"


class Problem(BaseModel):
    """A problem document (RFC 9457). `error` is the name of the error, as the Python library has it."""

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str = Field(examples=["Conflict"])
    status: int = Field(examples=[409])
    detail: str = Field(examples=["cannot resume session 's-1': it is completed; allowed from here: nothing"])
    error: str = Field(examples=["InvalidTransition"])


class Refused(Exception):
    """A request that HTTP itself refuses: the status, the error's name, and what is wrong."""

    status = 400
    headers: dict[str, str] = {}  # noqa: RUF012 -- never changed

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Unauthorized(Refused):
    """No key, or one that opens nothing."""

    status = 401
    headers = {"WWW-Authenticate": 'Bearer realm="lifecycle"'}  # noqa: RUF012 -- never changed


class Forbidden(Refused):
    """The key is good, but not for this."""

    status = 403

    def __init__(self, scope: str) -> None:
        super().__init__(f"this needs a key with the scope {scope!r}")


class TooMany(Refused):
    """Too many requests, or failed ones, from one sender; `Retry-After` says when the next is welcome."""

    status = 429

    def __init__(self, detail: str, wait: float) -> None:
        super().__init__(detail)
        self.headers = {"Retry-After": str(math.ceil(wait))}


def problem(status: int, detail: str, error: str, headers: dict[str, str] | None = None, **more: Any) -> Response:
    """The response that reports a problem."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    text = json.dumps(body | {"detail": detail, "error": error} | more, ensure_ascii=False, default=_plain)
    # What is refused may be quoted, and need not be Unicode text.
    return Response(text.encode("utf-8", "replace"), status, headers, MEDIA_TYPE)


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def install(app: FastAPI) -> None:
    """Have every error of an application answered with a problem document."""
    app.add_exception_handler(LifecycleError, _of_library)
    app.add_exception_handler(Refused, _of_request)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(Exception, _unexpected)


async def _of_library(request: Request, error: Exception) -> Response:
    assert isinstance(error, LifecycleError)  # noqa: S101 -- for the types; Starlette calls it for these only
    status, name = http_status(type(error)), type(error).__name__
    fields = {field: value for field, value in vars(error).items() if field in _FIELDS}
    headers = {}
    if status == HTTPStatus.LOCKED:
        headers["Retry-After"] = str(_until(fields.get("until")))
    elif status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = "1" if isinstance(error, StorageUnavailable) else "30"
    detail = mask_passwords(str(error))
    if isinstance(error, _OURS):
        # Which server, file or key it is, is for who runs this, not for who asks.
        log.warning(
            "request_not_served", method=request.method, route=route_of(request.scope), error=name, problem=detail
        )
        unknown = getattr(error, "outcome_unknown", False)
        detail = _AWAY + ("; it is not known whether the write was committed" if unknown else "")
    return problem(status, detail, name, headers, **fields)


def _until(end: object) -> int:
    """Seconds until a lease ends, at least one."""
    if not isinstance(end, datetime):
        return 1
    return max(1, math.ceil((end - datetime.now(UTC)).total_seconds()))


async def _of_request(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)  # noqa: S101 -- as above
    return problem(error.status, error.detail, type(error).__name__, error.headers)


async def _of_validation(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 -- as above
    wrong = [
        {"where": ".".join(str(part) for part in one["loc"]), "problem": one["msg"].removeprefix("Value error, ")}
        for one in error.errors()
    ]
    detail = "; ".join(f"{one['where']}: {one['problem']}" for one in wrong)
    return problem(422, detail, "InvalidArgument", errors=wrong)


async def _of_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 -- as above
    if error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return problem(413, "the body is larger than what is taken (config: web.body_bytes)", "BodyTooLarge")
    name = HTTPStatus(error.status_code).phrase
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = methods_of(request.app, request.scope["path"])
    return problem(error.status_code, str(error.detail), name.replace(" ", ""), headers)


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("request_failed", method=request.method, route=route_of(request.scope), exc_info=error)
    # This answer is made outside of all middleware.
    from lifecycle.web.hardening import HEADERS

    return problem(500, "something went wrong here; it is in the log", "InternalError", HEADERS)

"""Errors as pages in the dashboard's looks: what happened, and what to do about it."""

from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from lifecycle.errors import ConfigError, FileUnavailable, LifecycleError, SchemaOutdated, StorageUnavailable
from lifecycle.faults import http_status
from lifecycle.log import get_logger, mask_passwords
from lifecycle.web import login
from lifecycle.web.dashboard.rendering import page
from lifecycle.web.problems import Refused, Unauthorized

log = get_logger(__name__)

# What went wrong here and not with the request.
OURS: Final = (StorageUnavailable, FileUnavailable, ConfigError)
_TITLES: Final = {
    400: "That cannot be read",
    401: "Who are you?",
    403: "Not with this key",
    404: "There is nothing here",
    409: "It cannot be done now",
    413: "Too much at once",
    422: "That cannot be asked",
    423: "Somebody else has it",
    429: "Too many requests",
    500: "Something went wrong",
}
_ADVICE: Final = {
    403: "Your key does not reach this far. An administrator can make another: lifecycle keys create.",
    404: "It may have been removed by its retention or by somebody, or the address is not complete.",
    500: "It is in the log of this process. The rest of the dashboard works on.",
    503: "The pages come back by themselves once the database answers; this one tries again every few seconds.",
}


def install(pages: FastAPI) -> None:
    """Have every error of the dashboard answered with a page."""
    pages.add_exception_handler(LifecycleError, _of_library)
    pages.add_exception_handler(Refused, _of_request)
    pages.add_exception_handler(RequestValidationError, _of_validation)
    pages.add_exception_handler(HTTPException, _of_http)
    pages.add_exception_handler(Exception, _unexpected)


def failed(request: Request, status: int, detail: str, *, title: str | None = None) -> Response:
    """The page of an error."""
    return page(
        request, None, "error.html", status=status, code=status, title=title or _TITLES.get(status) or HTTPStatus(status).phrase, detail=detail,
        advice=_ADVICE.get(status),
    )  # fmt: skip


async def _of_library(request: Request, error: Exception) -> Response:
    assert isinstance(error, LifecycleError)  # noqa: S101 -- for the types; Starlette calls it for these only
    status, detail = http_status(type(error)), mask_passwords(str(error))
    if isinstance(error, OURS):
        # Which server, file or key it is, is for who runs this, not for who looks.
        log.warning("page_failed", path=request.url.path, error=detail)
        if not isinstance(error, StorageUnavailable):
            return failed(request, status, "It cannot be served now; why is in the log.")
        unknown = " It is not known whether the write was committed." if error.outcome_unknown else ""
        return failed(request, status, "The database does not answer." + unknown, title="The database is away")
    if isinstance(error, SchemaOutdated):
        return failed(request, status, detail, title="The database needs a migration")
    return failed(request, status, detail[:1].upper() + detail[1:])


async def _of_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)  # noqa: S101 -- as above
    if isinstance(error, Unauthorized) and request.method == "GET":
        return await login.unauthorized(request, error)
    response = failed(request, error.status, error.detail[:1].upper() + error.detail[1:])
    response.headers.update(error.headers)
    return response


async def _of_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 -- as above
    wrong = "; ".join(f"{one['loc'][-1]}: {one['msg']}" for one in error.errors())
    return failed(request, 422, wrong)


async def _of_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 -- as above
    detail = "There is no such page." if error.status_code == HTTPStatus.NOT_FOUND else str(error.detail)
    return failed(request, error.status_code, detail)


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("page_failed", method=request.method, path=request.url.path, error=type(error).__name__)
    return failed(request, 500, "This page could not be made.")

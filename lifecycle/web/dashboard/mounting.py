"""Puts the dashboard into the application, as an application of its own with error pages of its own."""

from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from lifecycle.web.dashboard import (
    acting,
    approvals,
    bulk,
    failures,
    listing,
    overview,
    session,
    stuck,
    sweeps,
    tenancy,
)
from lifecycle.web.dashboard.rendering import PREFIX

_STATIC: Final = Path(__file__).parent / "static"


def mount(app: FastAPI) -> None:
    """Serve the dashboard under its prefix, and lead `/` to it."""
    pages = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    # Whatever the application holds, its manager above all, is the dashboard's too.
    pages.state = app.state
    failures.install(pages)
    for part in (overview, listing, bulk, session, acting, approvals, stuck, sweeps, tenancy):
        pages.include_router(part.router)
    pages.mount("/static", _Static(directory=_STATIC), name="static")
    app.mount(PREFIX, pages, name="dashboard")
    for path in ("/", PREFIX):
        app.add_api_route(path, _home, include_in_schema=False)


class _Static(StaticFiles):
    """Files that a browser keeps and asks about by their ETag: they are nobody's secret."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """A file's response."""
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


async def _home(_request: Request) -> RedirectResponse:
    return RedirectResponse(f"{PREFIX}/", 303)

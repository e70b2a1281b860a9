"""Whose sessions the pages show, for those who may see everybody's."""

from typing import Annotated

from fastapi import APIRouter, Form, Response
from fastapi.responses import RedirectResponse

from lifecycle.operations.context import ALL, check_text
from lifecycle.web.dashboard.rendering import link, remember_tenant
from lifecycle.web.dashboard.viewer import TheViewer

router = APIRouter()


@router.post("/tenant")
async def choose(viewer: TheViewer, tenant: Annotated[str, Form()] = "") -> Response:
    """Show one tenant's sessions from now on, or everybody's (`*`). Raises `NotYourTenant`."""
    viewer.caller.in_tenant(ALL)
    check_text(tenant, "tenant", viewer.service.settings.limits.id_chars)
    response = RedirectResponse(link("/"), 303)
    remember_tenant(response, viewer, tenant)
    return response

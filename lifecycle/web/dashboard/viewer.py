"""Who looks at a page: the caller, and the managers of the sessions that he may see."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from lifecycle.manager.asynchronous import AsyncSessionManager
from lifecycle.operations.context import ALL
from lifecycle.web.access import TENANT_COOKIE, Caller, Scope, caller_of, manager_of
from lifecycle.web.problems import Forbidden
from lifecycle.web.service import Service, TheService


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks at a page."""

    caller: Caller
    service: Service

    @property
    def of_all(self) -> bool:
        """Whether he looks at the sessions of every tenant."""
        return self.caller.tenant is ALL

    @property
    def manager(self) -> AsyncSessionManager:
        """A manager of all that he looks at."""
        return manager_of(self.caller, self.service)

    def manager_for(self, tenant: str) -> AsyncSessionManager:
        """A manager of one tenant's sessions: his own, whatever tenant is named, unless he may name any."""
        return self.service.manager.for_tenant(tenant) if self.caller.of_all else self.manager

    def may(self, scope: Scope) -> bool:
        """Whether he may do what needs a scope."""
        return self.caller.may(scope)

    def require(self, scope: Scope) -> None:
        """Raise `Forbidden` if he may not."""
        if not self.may(scope):
            raise Forbidden(scope)


async def viewer_of(request: Request, caller: Annotated[Caller, Depends(caller_of)], service: TheService) -> Viewer:
    """Who looks at a page. Who may see every tenant does, unless he chose one. Raises what `caller_of` and `require` do."""
    if caller.of_all and TENANT_COOKIE not in request.cookies:
        caller = caller.in_tenant(ALL)
    viewer = Viewer(caller, service)
    viewer.require("read")
    return viewer


TheViewer = Annotated[Viewer, Depends(viewer_of)]

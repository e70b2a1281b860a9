"""Whose sessions a route works on: a manager of the caller's, and for a single session one of a single tenant."""

from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Request

from lifecycle.manager.asynchronous import AsyncSessionManager
from lifecycle.web.access import SCOPES, TENANT_HEADER, Caller, Scope, caller_of, caller_with, manager_of
from lifecycle.web.api.conditions import require_taken
from lifecycle.web.problems import Refused
from lifecycle.web.service import Service


class TenantRequired(Refused):
    """A caller of all tenants asked for a single session without saying whose."""

    status = 400


@dataclass(frozen=True, slots=True)
class Work:
    """What a route works with: the caller, and a manager of his sessions."""

    caller: Caller
    manager: AsyncSessionManager

    @property
    def one(self) -> AsyncSessionManager:
        """The manager, for a call about one session. Raises `TenantRequired`."""
        if not isinstance(self.caller.tenant, str):
            raise TenantRequired(f"say whose session it is in the header {TENANT_HEADER}")
        return self.manager

    def actor(self, given: str | None) -> str:
        """The name for the audit log: the caller's own, and behind it whom he acts for."""
        return self.caller.name if given is None else f"{self.caller.name}/{given}"


async def _work(request: Request, scope: Scope) -> Work:
    # Asked here and not by dependencies, of which each costs a request some 30 µs.
    service: Service = request.app.state.service
    caller = await _CHECKS[scope](await caller_of(request, service))
    require_taken(request)
    return Work(caller, manager_of(caller, service))


async def _reading(request: Request) -> Work:
    return await _work(request, "read")


async def _writing(request: Request) -> Work:
    return await _work(request, "write")


async def _administering(request: Request) -> Work:
    return await _work(request, "admin")


_CHECKS: Final = {scope: caller_with(scope) for scope in SCOPES}
Reading = Annotated[Work, Depends(_reading)]
Writing = Annotated[Work, Depends(_writing)]
Administering = Annotated[Work, Depends(_administering)]

"""What the options before the command settle: configuration, tenant, and the form of the output."""

from dataclasses import dataclass
from typing import Any

import typer

from lifecycle import ALL, SessionManager, Settings
from lifecycle.operations.context import AllTenants


@dataclass(frozen=True, slots=True)
class Scope:
    """What a command works on."""

    settings: Settings
    tenant: str | AllTenants
    as_json: bool

    def manager(self) -> SessionManager:
        """The manager to work with; use it as a context manager."""
        return SessionManager.open(self.settings, self.tenant)


def scope_of(ctx: typer.Context) -> Scope:
    """The scope that the top-level options made."""
    values: dict[str, Any] = ctx.obj
    tenant = ALL if values["all_tenants"] else values["tenant"]
    return Scope(values["settings"], tenant, values["as_json"])

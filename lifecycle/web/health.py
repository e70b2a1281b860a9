"""Whether this process lives, whether it can work, and its numbers: `/livez`, `/readyz` and `/metrics`.

The first two need no key and tell nothing that needs one; a look at the database serves all who ask within a second.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, Response

from lifecycle import metrics, migrate, overdue
from lifecycle.errors import LifecycleError, SchemaOutdated, StorageUnavailable
from lifecycle.log import get_logger, mask_passwords
from lifecycle.manager.asynchronous import AsyncSessionManager
from lifecycle.models.reads import Health
from lifecycle.settings import Settings
from lifecycle.web import access
from lifecycle.web.fresh import Fresh
from lifecycle.web.problems import Refused, problem
from lifecycle.web.service import TheService

log = get_logger(__name__)

# What hangs in the process, or None: asked from the event loop, so that whoever answers at all ticks.
Beating = Callable[[], str | None]

_FRESH_SECONDS: Final = 1.0
_PATIENCE: Final = 4.0
_HEADERS: Final = {"Cache-Control": "no-store"}


class NotOfAll(Refused):
    """The numbers are of all tenants together, and the key is bound to one."""

    status = 403


class NotServed(Refused):
    """`web.metrics` is off."""

    status = 404


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at the database found: `error` is the name of what is wrong with it, `problem` says it."""

    health: Health | None
    jobs: tuple[overdue.Standing, ...] = ()
    error: str | None = None
    problem: str | None = None


class Probe:
    """Looks at the database for those who ask how it is, at most once a second."""

    def __init__(self, settings: Settings, manager: AsyncSessionManager, beating: Beating | None) -> None:
        self.settings = settings
        self.beating = beating or _beats
        self._manager = manager
        self._looks: Fresh[Look] = Fresh(_FRESH_SECONDS)
        self._head = migrate.head()

    async def look(self) -> Look:
        """How the database is, as of a second ago at most."""
        found = await self._looks.get("", self._look)
        return found or Look(None)

    async def _look(self) -> Look:
        try:
            async with asyncio.timeout(_PATIENCE):
                health = await self._manager.get_health()
        except SchemaOutdated:
            return self._outdated(None)
        except (StorageUnavailable, TimeoutError) as error:
            log.debug("database_unavailable", error=mask_passwords(str(error)))
            return Look(None, error="StorageUnavailable", problem="the database does not answer")
        except LifecycleError as error:
            log.warning("look_failed", error=mask_passwords(f"{type(error).__name__}: {error}"))
            return Look(
                None, error=type(error).__name__, problem="the database cannot be worked with; the log says why"
            )
        if health.schema_revision != self._head:
            return self._outdated(health)
        return Look(health, tuple(overdue.standings(self.settings, health)))

    def _outdated(self, health: Health | None) -> Look:
        at = "none" if health is None or health.schema_revision is None else health.schema_revision
        return Look(
            health, error="SchemaOutdated",
            problem=f"the database's schema is {at}, this release's is {self._head}: run `lifecycle db upgrade`",
        )  # fmt: skip


def _beats() -> str | None:
    return None


router = APIRouter(include_in_schema=False)


@router.api_route("/livez", methods=["GET", "HEAD"])
async def livez(request: Request) -> Response:
    """Whether the event loop ticks, which it does if this is answered, and the worker's scheduler where there is one."""
    hangs = _probe(request).beating()
    if hangs is not None:
        return problem(503, hangs, "NotAlive", _HEADERS)
    return JSONResponse({"status": "ok"}, headers=_HEADERS)


@router.api_route("/readyz", methods=["GET", "HEAD"])
async def readyz(request: Request) -> Response:
    """Whether the database answers and has this release's schema; `degraded` when sweeps are overdue."""
    found = await _probe(request).look()
    if found.problem is not None:
        return problem(503, found.problem, found.error or "NotReady", _HEADERS)
    reasons = [one.overdue for one in found.jobs if one.overdue is not None]
    status = "degraded" if reasons else "ok"
    return JSONResponse({"status": status, "reasons": reasons}, headers=_HEADERS)


@router.api_route("/metrics", methods=["GET", "HEAD"])
async def show_metrics(request: Request, service: TheService) -> Response:
    """The numbers of this process and of the database, in Prometheus' formats."""
    await _require_reader(request, service)
    found = await _probe(request).look()
    text, headers = metrics.of_process().exposition(
        ",".join(request.headers.getlist("accept")),
        ",".join(request.headers.getlist("accept-encoding")),
        metrics.of_database(found.health, found.jobs, current=found.error is None),
    )
    return Response(text, headers=headers | _HEADERS)


async def _require_reader(request: Request, service: TheService) -> None:
    match service.settings.web.metrics:
        case "off":
            raise NotServed("web.metrics is off")
        case "keys":
            caller = await access.caller_of(request, service)
            if not caller.of_all:
                raise NotOfAll("metrics are of all tenants: this needs a key that is bound to none of them")


def measure(settings: Settings) -> None:
    """Have metrics taken from now on, ahead of what the process does before its application has started."""
    if settings.web.metrics != "off":
        metrics.of_process()


def install(app: FastAPI, settings: Settings, manager: AsyncSessionManager, beating: Beating | None) -> None:
    """Have an application that starts know how it is; its routes are `router`."""
    app.state.probe = Probe(settings, manager, beating)
    if settings.web.metrics != "off":
        metrics.of_process().add_pool("web", manager._driver)  # noqa: SLF001 -- the manager's own connections


def _probe(request: Request) -> Probe:
    probe: Probe = request.app.state.probe
    return probe

"""Upkeep: sweeps and what came of them, workers, totals, policies."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from lifecycle.models.reads import Stats, StuckSession, SweepReport, TransitionRecord
from lifecycle.web.api import documents as d
from lifecycle.web.api.answers import answer, items
from lifecycle.web.api.inputs import (
    DryRun,
    Limit,
    PruneSweep,
    ReapSweep,
    SessionSweep,
    StaleSweep,
    Sweep,
    Trimming,
)
from lifecycle.web.api.routes import ApiRoute
from lifecycle.web.api.tenancy import Administering, Reading, Work

router = APIRouter(route_class=ApiRoute, tags=["upkeep"])


@router.get("/stats", response_model=Stats, responses=d.read())
async def get_stats(work: Reading) -> Response:
    """Totals by state, kind and agent, and what is due. They are counted: ask for them now and then."""
    stats = await work.manager.get_stats()
    # The tables hold everybody's rows, so how large they are is for those who may see everybody's.
    return answer(stats if work.caller.of_all else Stats.of({**dict(stats), "sizes": {}}))


@router.get("/stuck", response_model=d.Items[StuckSession], responses=d.read())
async def list_stuck(
    work: Reading,
    silent_for: Annotated[int, Query(ge=1, le=2**31 - 1, description="Seconds.")] = 60,
    limit: Annotated[int, Query(ge=1, le=1000, description="For each reason.")] = 20,
) -> Response:
    """The sessions that nobody seems to get on with, and why."""
    return items(await work.manager.list_stuck(silent_for=silent_for, limit=limit))


@router.get("/transitions", response_model=d.Items[TransitionRecord], responses=d.read())
async def recent_transitions(work: Reading, limit: Limit = 50) -> Response:
    """The newest lines of the audit log, newest first, of all sessions."""
    return items(await work.manager.recent_transitions(limit=limit))


async def _swept(work: Work, name: str, body: Sweep, **more: Any) -> Response:
    options = body.model_dump(exclude_none=True, exclude={"actor"})
    report = await getattr(work.manager, name)(**options, **more)
    return answer(report)


@router.post("/sweeps/expire_idle", response_model=SweepReport, responses=d.post())
async def expire_idle(work: Administering, body: SessionSweep | None = None) -> Response:
    """Expire the live sessions whose deadline has passed; never a protected or leased one."""
    return await _swept(work, "expire_idle", body or SessionSweep(), actor=work.actor(None))


@router.post("/sweeps/prune_sessions", response_model=SweepReport, responses=d.post())
async def prune_sessions(work: Administering, body: PruneSweep | None = None) -> Response:
    """Remove finished sessions with all they own, once their retention has passed, or those older than you say."""
    return await _swept(work, "prune_sessions", body or PruneSweep(), actor=work.actor(None))


@router.post("/sweeps/delete_ghosts", response_model=SweepReport, responses=d.post())
async def delete_ghosts(work: Administering, body: Sweep | None = None) -> Response:
    """Remove live sessions in which nothing was ever stored."""
    return await _swept(work, "delete_ghosts", body or Sweep(), actor=work.actor(None))


@router.post("/sweeps/expire_approvals", response_model=SweepReport, responses=d.post())
async def expire_approvals(work: Administering, body: Sweep | None = None) -> Response:
    """Expire pending approvals whose time has passed."""
    return await _swept(work, "expire_approvals", body or Sweep(), actor=work.actor(None))


@router.post("/sweeps/reap_connections", response_model=SweepReport, responses=d.post())
async def reap_connections(work: Administering, body: ReapSweep | None = None) -> Response:
    """Remove the connections that have been silent for so long."""
    return await _swept(work, "reap_connections", body or ReapSweep())


@router.post("/sweeps/cleanup_stale_sessions", response_model=SweepReport, responses=d.post())
async def cleanup_stale_sessions(work: Administering, body: StaleSweep) -> Response:
    """End the live sessions without activity for `max_age`."""
    return await _swept(work, "cleanup_stale_sessions", body, actor=work.actor(None))


@router.post("/sweeps/trim", response_model=d.Trimmed, responses=d.post())
async def trim(work: Administering, body: Trimming | None = None) -> Response:
    """Remove what is kept for a while only: audit rows of removed sessions, retry tokens, stored answers."""
    body = body or Trimming()
    return answer({"removed": await work.manager.trim(batch=body.batch, budget=body.budget)})


@router.get("/sweeps", response_model=d.Items[d.Job], responses=d.read())
async def list_sweeps(work: Administering) -> Response:
    """The workers' jobs with their last runs."""
    return items((await _workers(work))["jobs"])


@router.get("/workers", response_model=d.Workers, responses=d.read())
async def list_workers(work: Administering) -> Response:
    """The workers with their last sign of life, and their jobs with their last runs."""
    return answer(await _workers(work))


async def _workers(work: Work) -> dict[str, list[dict[str, Any]]]:
    found = await work.manager.list_workers()
    jobs = found["jobs"]
    if not work.caller.of_all:
        # The others tell how much is done for other tenants.
        jobs = [row for row in jobs if row["job"].partition(":")[2] == work.caller.tenant != ""]
    return {
        "workers": [_renamed(row, release_name="release") for row in found["workers"]],
        "jobs": [
            _renamed(row, slice_no="slice")
            | {"last_result": None if row["last_result"] is None else json.loads(row["last_result"])}
            for row in jobs
        ],
    }


def _renamed(row: dict[str, Any], **names: str) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in row.items()}


@router.post("/policies:apply", response_model=d.Changed, responses=d.post())
async def apply_policies(work: Administering, body: DryRun | None = None) -> Response:
    """Stamp the deadlines of the sessions anew, after a change of the policies."""
    dry_run = (body or DryRun()).dry_run
    return answer({"changed": await work.manager.apply_policies(dry_run=dry_run), "dry_run": dry_run})

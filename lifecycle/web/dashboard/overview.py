"""The overview: how much there is, whether it gets on, and what happened last."""

import json
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from lifecycle.operations.oversight import WHYS
from lifecycle.web.dashboard.numbers import read_numbers
from lifecycle.web.dashboard.rendering import page
from lifecycle.web.dashboard.viewer import TheViewer

router = APIRouter()

RECENT: Final = 15
SOME: Final = 100
# A worker that was silent for so many of its heartbeats is dead, as the daemon itself has it.
_DEAD_AFTER: Final = 10
_LATE_AFTER: Final = 3


@router.get("/")
async def overview(request: Request, viewer: TheViewer) -> Response:
    """The page."""
    manager, settings = viewer.manager, viewer.service.settings
    found = await manager.list_workers()
    stuck = await manager.list_stuck(limit=SOME)
    return page(
        request, viewer, "overview.html",
        numbers=await read_numbers(manager),
        recent=await manager.recent_transitions(limit=RECENT), most=RECENT,
        waiting=len(await manager.list_approvals(limit=SOME)),
        stuck={why: Counter(one.why for one in stuck)[why] for why in WHYS},
        stuck_count=len({(one.session.tenant, one.session.session_id) for one in stuck}),
        some=SOME,
        workers=[_worker(row, settings.worker.heartbeat) for row in found["workers"]],
        jobs=[_job(row) for row in found["jobs"]] if viewer.caller.of_all else [],
    )  # fmt: skip


def _worker(row: Mapping[str, Any], heartbeat: float) -> dict[str, Any]:
    """A worker, and how it is by the time since its last beat."""
    silent = datetime.now(UTC) - row["beat_at"]
    health = "running"
    if silent > timedelta(seconds=heartbeat * _DEAD_AFTER):
        health = "dead"
    elif silent > timedelta(seconds=heartbeat * _LATE_AFTER):
        health = "late"
    elif row["state"] != "running":
        health = row["state"]
    return {**row, "health": health}


def _job(row: Mapping[str, Any]) -> dict[str, Any]:
    """A job with the numbers of its last run."""
    result = json.loads(row["last_result"]) if row["last_result"] else {}
    return {**row, "result": result, "running": row["holder"] is not None}

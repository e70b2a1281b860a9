"""Workers and the leases of their jobs on any database."""

import json

import sqlalchemy as sa

from lifecycle import deadlines
from lifecycle.models import tables as t
from lifecycle.models.types import now
from lifecycle.operations import requests as r
from lifecycle.recipes.portable.base import NOW, Recipe, Row, bound, insert, p, setting
from lifecycle.recipes.statement import Statement


def beat_worker(request: r.BeatWorker) -> Recipe:
    """Insert, renew or remove a worker's row."""
    (clock,) = yield NOW, {}
    own = {"worker_id": request.worker_id}
    if request.state is None:
        yield _DROP_WORKER, bound(own)
        return
    if (yield setting(t.workers, own, {"beat_at": clock["now"], "state": request.state})) == 0:
        values = {
            **own, "host": request.host, "pid": request.pid, "release_name": request.release, "state": request.state,
            "started_at": clock["now"], "beat_at": clock["now"],
        }  # fmt: skip
        yield insert(t.workers, tuple(values)), bound(values)


_DROP_WORKER = Statement(sa.delete(t.workers).where(t.workers.c.worker_id == p("worker_id")))


_WORKERS = Statement(sa.select(*t.workers.c).order_by(t.workers.c.started_at))


# What was never taken is no job, but a place that a watch or the samples keep.
_JOBS = Statement(
    sa.select(*t.worker_jobs.c)
    .where(t.worker_jobs.c.last_started_at.is_not(None))
    .order_by(t.worker_jobs.c.job, t.worker_jobs.c.slice_no)
)


_JOB = Statement(
    sa.select(*t.worker_jobs.c, now().label("now"))
    .where(t.worker_jobs.c.job == p("job"), t.worker_jobs.c.slice_no == p("slice_no"))
    .with_for_update()
)


def list_workers(_request: r.ListWorkers) -> Recipe:
    """Read workers and jobs."""
    workers = yield _WORKERS, {}
    jobs = yield _JOBS, {}
    return workers, jobs


def take_job(request: r.TakeJob) -> Recipe:
    """Lease a job if nobody holds it: the next term."""
    own = {"job": request.job, "slice_no": request.slice}
    found = yield _JOB, bound(own)
    if not found:
        yield insert(t.worker_jobs, (*own, "term")), bound(own | {"term": 0})
        found = yield _JOB, bound(own)
    row = found[0]
    if row["holder"] not in {None, request.holder} and row["lease_expires_at"] > row["now"]:
        return None
    term = row["term"] + 1
    yield setting(
        t.worker_jobs,
        own,
        {
            "holder": request.holder,
            "term": term,
            "lease_expires_at": deadlines.later(row["now"], request.ttl),
            "last_started_at": row["now"],
        },
    )
    return term


def end_job(request: r.EndJob) -> Recipe:
    """Give a job back under its term."""
    own = {"job": request.job, "slice_no": request.slice}
    found = yield _JOB, bound(own)
    if not found or found[0]["holder"] != request.holder or found[0]["term"] != request.term:
        return False
    values: Row = {
        "holder": None,
        "lease_expires_at": None,
        "last_finished_at": found[0]["now"],
        "last_error": request.error,
    }
    if request.result is not None:
        # A later run that fails leaves it, and with it when the last good one was.
        result = json.loads(request.result)
        if isinstance(result, dict):
            result["finished_at"] = found[0]["now"].isoformat()
        values["last_result"] = json.dumps(result)
    yield setting(t.worker_jobs, own, values)
    return True


_SCHEMA = Statement(sa.select(sa.column("version_num", sa.Text())).select_from(sa.table("lifecycle_schema")))


def read_schema(_request: r.ReadSchema) -> Recipe:
    """Read the revision that the migrations left."""
    found = yield _SCHEMA, {}
    return found[0]["version_num"] if found else None

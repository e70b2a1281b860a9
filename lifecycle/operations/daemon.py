"""What a worker keeps in the database: its sign of life, and who runs which job."""

from typing import Any

from lifecycle.errors import InvalidArgument
from lifecycle.operations.context import Context, check_text
from lifecycle.operations.requests import BeatWorker, DuplicateKey, EndJob, ListWorkers, TakeJob
from lifecycle.operations.typing import Steps


def beat_worker(
    context: Context, worker_id: str, *, host: str, pid: int, release: str, state: str = "running"
) -> Steps[None]:
    """Register a worker, or renew its sign of life."""
    del context
    yield BeatWorker(_name(worker_id, "worker_id"), host, pid, release, state)


def remove_worker(context: Context, worker_id: str) -> Steps[None]:
    """Take a worker's row away, as it stops."""
    del context
    yield BeatWorker(_name(worker_id, "worker_id"), "", 0, "", None)


def list_workers(context: Context) -> Steps[dict[str, list[dict[str, Any]]]]:
    """The workers with their last sign of life, and the jobs with their last run."""
    del context
    workers, jobs = yield ListWorkers()
    return {"workers": workers, "jobs": jobs}


def take_job(context: Context, job: str, *, holder: str, ttl: int, slice_no: int = 0) -> Steps[int | None]:
    """Lease a slice of a job for `ttl` seconds: the term, one higher than the last, or None while another holds it."""
    del context
    request = TakeJob(_name(job, "job"), slice_no, holder, ttl)
    try:
        term: int | None = yield request
    except DuplicateKey:  # another process made the job's row between our look and our insert
        term = yield request
    return term


def end_job(
    context: Context,
    job: str,
    *,
    holder: str,
    term: int,
    slice_no: int = 0,
    result: str | None = None,
    error: str | None = None,
) -> Steps[bool]:
    """Give a job back with its result; False when the term was taken over meanwhile."""
    del context
    return bool((yield EndJob(_name(job, "job"), slice_no, holder, term, result, error)))


def _name(value: str, name: str) -> str:
    # The column's width: `limits.id_chars` bounds what users choose, not these.
    if not value:
        raise InvalidArgument(f"{name} must not be empty")
    return check_text(value, name, 255)

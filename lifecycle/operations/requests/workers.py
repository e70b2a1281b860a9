"""Requests about workers and their jobs."""

from dataclasses import dataclass

from lifecycle.operations.requests.base import Request


@dataclass(slots=True)
class BeatWorker(Request):
    """Register a worker or renew its sign of life; removing it with state None."""

    worker_id: str
    host: str
    pid: int
    release: str
    state: str | None


@dataclass(slots=True)
class ListWorkers(Request):
    """Read workers and jobs: (worker rows, job rows)."""


@dataclass(slots=True)
class TakeJob(Request):
    """Lease a job's slice: its new term, or None while another holds it."""

    job: str
    slice: int
    holder: str
    ttl: int


@dataclass(slots=True)
class EndJob(Request):
    """Give a job's slice back with what came of it: whether the term was still ours."""

    job: str
    slice: int
    holder: str
    term: int
    result: str | None
    error: str | None

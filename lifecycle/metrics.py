"""Metrics of a process, and of the database it works on, for Prometheus. docs/monitoring says what each one means.

Nothing is measured until somebody asks for `of_process()`: the HTTP API and the worker's port do, and an application
that embeds Lifecycle may, to add `of_process().registry` to what it exports itself. Needs prometheus-client (the extra
`web`). No label holds a tenant's name, a session's id or anything else that callers make up.
"""

import functools
import gzip
import time
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.exposition import choose_encoder, gzip_accepted
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

import lifecycle
from lifecycle import observing
from lifecycle.drivers.pool_use import pool_use
from lifecycle.lease_keeper import leases_held
from lifecycle.models.reads import Health
from lifecycle.overdue import Standing

# Seconds: from a read by key of SQLite's to what a statement's time limit allows.
_OPERATION_SECONDS: Final = (0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_HTTP_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SWEEP_SECONDS: Final = (0.005, 0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120)


class Metrics(observing.Observer):
    """What one process did, in a registry of its own. See `of_process`."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        self._pools: dict[str, weakref.ref[Any]] = {}
        self._operation = Histogram(
            "lifecycle_operation_duration_seconds",
            "Calls of a manager, by operation and by result: ok, or the name of the error.",
            ("operation", "result"), buckets=_OPERATION_SECONDS, registry=own,
        )  # fmt: skip
        self._children: dict[tuple[str, str], Any] = {}
        self.http = Histogram(
            "lifecycle_http_request_duration_seconds",
            "HTTP requests, by the template of their route, to the end of the answer; streams of events to its beginning.",
            ("method", "route", "status"), buckets=_HTTP_SECONDS, registry=own,
        )  # fmt: skip
        self.http_in_progress = Gauge(
            "lifecycle_http_requests_in_progress", "HTTP requests under way, streams too.", registry=own
        )
        self._sweep = Histogram(
            "lifecycle_sweep_duration_seconds", "Runs of the worker's jobs in this process, by result: ok or error.",
            ("sweep", "result"), buckets=_SWEEP_SECONDS, registry=own,
        )  # fmt: skip
        self._rows = Counter(
            "lifecycle_sweep_rows", "Rows that sweeps in this process acted on.", ("sweep",), registry=own
        )
        self._lost = Counter(
            "lifecycle_leases_lost", "Leases of this process that others took, or that ran out.", registry=own
        )
        self._rescues = Counter(
            "lifecycle_rescues", "Sessions of dead runners that this process took over.", registry=own
        )
        held = Gauge("lifecycle_leases_held", "Leases that this process keeps alive.", registry=own)
        held.set_function(leases_held)
        build = Info("lifecycle_build", "The release that runs.", registry=own)
        build.info({"version": lifecycle.__version__})
        self.registry.register(_Pools(self._pools))
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)

    def add_pool(self, name: str, driver: Any) -> None:
        """Export how a driver's connections are used, as the pool of this name, for as long as the driver is there."""
        self._pools[name] = weakref.ref(driver)

    def begin(self, name: str, manager: Any) -> observing.End:
        """Take the time of an operation."""
        del manager
        began = time.perf_counter()

        def end(error: BaseException | None, result: Any) -> None:
            key = name, "ok" if error is None else type(error).__name__
            child = self._children.get(key)
            if child is None:
                child = self._children[key] = self._operation.labels(*key)
            child.observe(time.perf_counter() - began)
            if name == "claim_sessions" and error is None:
                self._rescues.inc(sum(1 for session in result if session.rescues))

        return end

    def swept(self, name: str, done: dict[str, Any], error: BaseException | None) -> None:
        """Count a run of a job."""
        self._sweep.labels(name, "ok" if error is None else "error").observe(done["seconds"])
        self._rows.labels(name).inc(done["count"])

    def lease_lost(self, why: str) -> None:
        """Count a lost lease."""
        del why
        self._lost.inc()

    def exposition(
        self, accept: str, accept_encoding: str, database: Iterable[Metric] = ()
    ) -> tuple[bytes, dict[str, str]]:
        """All of it as text, in the format that the client prefers, and the headers that say which."""
        encode, content_type = choose_encoder(accept)
        text = encode(_Together(self.registry, database))
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if gzip_accepted(accept_encoding):
            text = gzip.compress(text, 5)
            headers["Content-Encoding"] = "gzip"
        return text, headers


@functools.cache
def of_process() -> Metrics:
    """The metrics of this process, which are measured from the first call on."""
    metrics = Metrics()
    observing.observe(metrics)
    return metrics


def of_database(health: Health | None, jobs: Iterable[Standing], *, current: bool) -> Iterator[Metric]:
    """What the database says, the same from whichever process: `health` is None when it does not answer."""
    yield GaugeMetricFamily("lifecycle_database_up", "Whether the database answers.", float(health is not None))
    yield GaugeMetricFamily("lifecycle_schema_current", "Whether its tables are of this release.", float(current))
    if health is None:
        return
    yield GaugeMetricFamily("lifecycle_workers", "Workers that are registered.", float(len(health.workers)))
    yield from _jobs(jobs)
    counts = health.counts
    if counts is None:
        return
    at = counts.sampled_at.timestamp()
    yield GaugeMetricFamily("lifecycle_sampled_timestamp_seconds", "When a worker last counted what follows.", at)
    sessions = GaugeMetricFamily("lifecycle_sessions", "Sessions by state.", labels=("state",))
    for state, number in counts.by_state.items():
        sessions.add_metric((state,), number)
    yield sessions
    due = GaugeMetricFamily("lifecycle_sessions_due", "Sessions that a sweep should have acted on.", labels=("sweep",))
    due.add_metric(("expire_idle",), counts.due_to_expire)
    due.add_metric(("prune_sessions",), counts.due_to_prune)
    yield due
    yield GaugeMetricFamily(
        "lifecycle_backlog_age_seconds", "How late the oldest of those to expire is.", counts.backlog_age
    )
    yield GaugeMetricFamily("lifecycle_sessions_leased", "Sessions that somebody holds.", counts.leased)
    yield GaugeMetricFamily(
        "lifecycle_approvals_pending", "Approvals that wait for a person.", counts.pending_approvals
    )
    transitions = CounterMetricFamily(
        "lifecycle_transitions", "Lines of the audit log, by trigger.", labels=("trigger",)
    )
    for trigger, number in counts.transitions.items():
        transitions.add_metric((trigger,), number)
    yield transitions


def _jobs(jobs: Iterable[Standing]) -> Iterator[Metric]:
    good = GaugeMetricFamily(
        "lifecycle_sweep_last_good_timestamp_seconds", "When a job last went well, on any worker.", labels=("sweep",)
    )
    failing = GaugeMetricFamily("lifecycle_sweep_failing", "Whether its last run failed.", labels=("sweep",))
    overdue = GaugeMetricFamily(
        "lifecycle_sweep_overdue", "Whether it has not gone well for three of its intervals.", labels=("sweep",)
    )
    for one in jobs:
        if one.last_good is not None:
            good.add_metric((one.job,), one.last_good.timestamp())
        failing.add_metric((one.job,), float(one.failed))
        overdue.add_metric((one.job,), float(one.overdue is not None))
    yield from (good, failing, overdue)


class _Pools(Collector):
    """The use of connection pools, looked at when it is asked for."""

    def __init__(self, pools: dict[str, weakref.ref[Any]]) -> None:
        self._pools = pools

    def collect(self) -> Iterator[Metric]:
        """The families."""
        size = GaugeMetricFamily("lifecycle_pool_size", "Connections that may be open at most.", labels=("pool",))
        use = GaugeMetricFamily("lifecycle_pool_connections", "Open connections.", labels=("pool", "state"))
        waiting = GaugeMetricFamily("lifecycle_pool_waiting", "Callers that wait for a connection.", labels=("pool",))
        for name, driver in list(self._pools.items()):
            found = None if (there := driver()) is None else pool_use(there)
            if found is not None:
                size.add_metric((name,), found.size)
                use.add_metric((name, "in_use"), found.in_use)
                use.add_metric((name, "idle"), found.idle)
                waiting.add_metric((name,), found.waiting)
        yield from (size, use, waiting)


class _Together(Collector):
    """The process's metrics, then the database's."""

    def __init__(self, registry: CollectorRegistry, database: Iterable[Metric]) -> None:
        self._registry = registry
        self._database = database

    def collect(self) -> Iterator[Metric]:
        """The families."""
        yield from self._registry.collect()
        yield from self._database

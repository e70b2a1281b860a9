"""How real daemons say that they are: alive, ready, degraded."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa

from lifecycle import ALL, SessionManager, Settings, migrate, overdue
from lifecycle.models import tables as t
from lifecycle.models.reads import Health
from tests.managers import backdate, connected
from tests.servers import PostgresServer, ServerUnavailable, find_postgres
from tests.serving import serving

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0
PATHS = ("/livez", "/readyz")

MAIN = """
import json, sys
from lifecycle import Settings
from workers import run

sys.exit(run(Settings(**json.loads(sys.argv[1])), serve="serve" in sys.argv))
"""
SERVE = """
import json, sys
from lifecycle import Settings
from lifecycle.log import configure_logging
from lifecycle.web import WebServer

settings = Settings(**json.loads(sys.argv[1]))
configure_logging("info", "json")
WebServer(settings).run()
"""


def until(condition: Callable[[], Any], what: str) -> Any:
    """Poll until the condition gives something true, and return that; fail after a minute."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {PATIENCE:.0f} s for {what}")
        time.sleep(0.02)
    return found


class Process:
    """A process that serves, and where it does."""

    def __init__(self, folder: Path, code: str, settings: dict[str, Any], *arguments: str, **env: str) -> None:
        self.log = folder / f"{len(list(folder.glob('*.log')))}.log"
        given = {"logging": {"format": "json"}} | settings
        with self.log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, json.dumps(given), *arguments],
                cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)} | env, stderr=stderr,
            )  # fmt: skip

    def url(self, event: str) -> str:
        """The address that it logged in an event."""

        def look() -> Any:
            text = self.log.read_text()
            found = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("}\n")]
            assert self.process.poll() is None, f"it ended: {text}"
            return [one["url"] for one in found if one["event"] == event]

        return str(until(look, f"{event}: {self.log.read_text()}")[0])

    def end(self) -> None:
        """Kill it, stopped or not."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts processes, and kills those that a test leaves behind."""
    started: list[Process] = []

    def start(code: str, settings: dict[str, Any], *arguments: str, **env: str) -> Process:
        started.append(Process(tmp_path, code, settings, *arguments, **env))
        return started[-1]

    yield start
    for one in started:
        one.end()


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A PostgreSQL that the test may kill."""
    try:
        binaries = find_postgres(18)
    except ServerUnavailable as reason:
        pytest.skip(str(reason))
    with PostgresServer(binaries, settings={"fsync": "off"}) as server:
        yield server


def status(url: str, path: str) -> int | None:
    """The status that a path is answered with; None where nobody answers."""
    with contextlib.suppress(httpx2.HTTPError):
        return httpx2.get(url + path, timeout=10).status_code
    return None


def monitored(url: str, **more: Any) -> dict[str, Any]:
    """Settings of a worker with a port of its own."""
    database = {"url": url, "connect_timeout": 1} if "postgresql" in url else {"url": url}
    return {"database": database, "worker": {"port": 0, "heartbeat": 1}, "web": {"port": 0}, **more}


KINDS = [(MAIN, "monitoring", ()), (MAIN, "serving", ("serve",)), (SERVE, "serving", ())]


@pytest.mark.parametrize(("code", "event", "arguments"), KINDS, ids=["worker", "up", "serve"])
def test_a_process_is_alive_while_the_database_is_gone(
    own_server: PostgresServer, launch: Callable[..., Process], code: str, event: str, arguments: tuple[str, ...]
) -> None:
    """Not ready, with a problem that says what of and nothing else; ready again by itself as the database returns."""
    url = own_server.create_database("mine")
    migrate.upgrade(url)
    base = launch(code, monitored(url), *arguments).url(event)
    until(lambda: status(base, "/readyz") == 200, "it to be ready")
    assert status(base, "/livez") == 200

    own_server.kill()
    until(lambda: status(base, "/readyz") == 503, "it to notice")
    assert status(base, "/livez") == 200
    answer = httpx2.get(f"{base}/readyz", timeout=10)
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["error"], problem["detail"]) == ("StorageUnavailable", "the database does not answer")
    assert own_server.url("mine") not in answer.text

    own_server.start()
    until(lambda: status(base, "/readyz") == 200, "it to be ready again")
    assert status(base, "/livez") == 200


def test_a_worker_that_waits_for_its_database_is_alive(
    own_server: PostgresServer, launch: Callable[..., Process]
) -> None:
    """From its start on, so that whoever watches it does not end it over and over."""
    url = own_server.create_database("mine")
    migrate.upgrade(url)
    own_server.stop()
    base = launch(MAIN, monitored(url)).url("monitoring")
    until(lambda: status(base, "/livez") == 200, "it to serve")
    assert status(base, "/readyz") == 503
    own_server.start()
    until(lambda: status(base, "/readyz") == 200, "it to be ready")


def test_an_outdated_schema_is_not_ready(migrated_sqlite_url: str) -> None:
    """It is said which it is, which it should be, and what to do."""
    with serving(migrated_sqlite_url) as served:
        assert status(served.url, "/readyz") == 200
        with connected(migrated_sqlite_url) as connection:
            connection.execute(sa.text("UPDATE lifecycle_schema SET version_num = '0001'"))
        until(lambda: status(served.url, "/readyz") == 503, "it to notice")
        problem = httpx2.get(f"{served.url}/readyz").json()
        assert problem["error"] == "SchemaOutdated"
        assert f"is 0001, this release's is {migrate.head()}: run `lifecycle db upgrade`" in problem["detail"]
        with connected(migrated_sqlite_url) as connection:
            connection.execute(sa.text("DROP TABLE lifecycle_schema"))
        until(lambda: "is none" in httpx2.get(f"{served.url}/readyz").json()["detail"], "it to notice")


def ready(base: str) -> dict[str, Any]:
    """What is said about readiness; nothing where nobody answers yet."""
    with contextlib.suppress(httpx2.ConnectError):
        found: dict[str, Any] = httpx2.get(f"{base}/readyz", timeout=10).json()
        return found
    return {"status": None}


def test_sweeps_that_are_overdue_degrade(migrated_sqlite_url: str, launch: Callable[..., Process]) -> None:
    """It goes on being ready, says which they are and since when, and is well again after a good run."""
    jobs = {name: {"every": 3600} for name in Settings().worker.jobs.by_name()}
    worker = {"port": 0, "jobs": jobs, "heartbeat": 1}
    base = launch(MAIN, monitored(migrated_sqlite_url, worker=worker)).url("monitoring")
    until(lambda: ready(base) == {"status": "ok", "reasons": []}, "all jobs to have run once")
    assert status(base, "/livez") == 200
    job = t.worker_jobs.c.job
    past = datetime.now(UTC) - timedelta(hours=3, seconds=5)
    backdate(migrated_sqlite_url, t.worker_jobs, job.in_(["expire_idle"]), last_finished_at=past)
    until(lambda: ready(base)["status"] == "degraded", "it to notice")
    answer = httpx2.get(f"{base}/readyz")
    assert answer.status_code == 200
    (reason,) = answer.json()["reasons"]
    assert reason.startswith("the last good run of expire_idle was 3h")
    # One that fails counts for nothing, however recent: what went well before it counts.
    finished = {"last_finished_at": datetime.now(UTC), "last_error": "ValueError: a secret"}
    backdate(migrated_sqlite_url, t.worker_jobs, job == "expire_idle", **finished)
    until(lambda: ready(base)["status"] == "ok", "the run before it to count")
    result = json.dumps({"finished_at": past.isoformat()})
    backdate(migrated_sqlite_url, t.worker_jobs, job == "expire_idle", last_result=result)
    until(lambda: ready(base)["status"] == "degraded", "it to notice again")
    assert "secret" not in httpx2.get(f"{base}/readyz").text
    backdate(migrated_sqlite_url, t.worker_jobs, job == "expire_idle", last_error=None)
    until(lambda: ready(base)["status"] == "ok", "it to be well again")


def test_a_job_with_a_cron_line_is_measured_by_it(migrated_sqlite_url: str) -> None:
    """Three of its times must have passed, not so many hours: over a weekend, nothing is missing from mon-fri."""
    jobs = {"prune_sessions": {"cron": "0 3 * * mon-fri"}}
    settings = Settings(database={"url": migrated_sqlite_url}, worker={"jobs": jobs})
    with SessionManager.open(settings, ALL) as manager:
        term = manager.take_job("prune_sessions", holder="me", ttl=60)
        assert term is not None
        manager.end_job("prune_sessions", holder="me", term=term, result='{"count": 1}')
        health = manager.get_health()
    friday = datetime(2026, 11, 20, 3, 0, 5, tzinfo=UTC)
    (row,) = [row for row in health.jobs if row["job"] == "prune_sessions"]
    row["last_finished_at"] = friday
    # The budget is 20 seconds: until then the third run may be under way.
    for at, expected in (
        (datetime(2026, 11, 23, 2, 59, tzinfo=UTC), False),
        (datetime(2026, 11, 25, 3, 0, 19, tzinfo=UTC), False),
        (datetime(2026, 11, 25, 3, 0, 21, tzinfo=UTC), True),
    ):
        (found,) = [
            one
            for one in overdue.standings(settings, Health.of(vars(health) | {"at": at}))
            if one.job == "prune_sessions"
        ]
        assert (found.last_good, found.overdue is not None) == (friday, expected)


def test_a_hung_event_loop_is_not_alive(migrated_sqlite_url: str) -> None:
    """Nobody is answered while it hangs; as it goes on, all are."""
    held, release = threading.Event(), threading.Event()

    def hang() -> None:
        held.set()
        release.wait(PATIENCE)

    with serving(migrated_sqlite_url) as served:

        @served.app.get("/hang")
        async def hanging() -> None:
            hang()

        assert status(served.url, "/livez") == 200
        with contextlib.suppress(httpx2.TimeoutException):
            httpx2.get(f"{served.url}/hang", timeout=0.5)
        assert held.wait(PATIENCE)
        with pytest.raises(httpx2.TimeoutException):
            httpx2.get(f"{served.url}/livez", timeout=0.5)
        release.set()
        until(lambda: status(served.url, "/livez") == 200, "it to go on")


def test_a_stopped_process_is_not_alive(migrated_sqlite_url: str, launch: Callable[..., Process]) -> None:
    """SIGSTOP: its port takes connections, and nobody answers."""
    worker = launch(MAIN, monitored(migrated_sqlite_url))
    base = worker.url("monitoring")
    until(lambda: status(base, "/livez") == 200, "it to serve")
    worker.process.send_signal(signal.SIGSTOP)
    with pytest.raises(httpx2.TimeoutException):
        httpx2.get(f"{base}/livez", timeout=0.5)
    worker.process.send_signal(signal.SIGCONT)
    until(lambda: status(base, "/livez") == 200, "it to go on")


HANG = """
import json, sys, threading
from apscheduler.schedulers.base import BaseScheduler
from lifecycle import Settings
from workers import run, serving

serving._HANGS_AFTER = 3.0
process_jobs, runs = BaseScheduler._process_jobs, []

def hang(self):
    runs.append(1)
    if len(runs) > 3:
        threading.Event().wait()
    return process_jobs(self)

BaseScheduler._process_jobs = hang
sys.exit(run(Settings(**json.loads(sys.argv[1])), serve="serve" in sys.argv))
"""


@pytest.mark.parametrize(("event", "arguments"), [("monitoring", ()), ("serving", ("serve",))], ids=["worker", "up"])
def test_a_hung_scheduler_is_not_alive(
    migrated_sqlite_url: str, launch: Callable[..., Process], event: str, arguments: tuple[str, ...]
) -> None:
    """The event loop that answers is well, but nothing is swept: a problem says so."""
    base = launch(HANG, monitored(migrated_sqlite_url), *arguments).url(event)
    until(lambda: status(base, "/livez") == 503, "it to notice")
    problem = httpx2.get(f"{base}/livez").json()
    assert problem["error"] == "NotAlive"
    assert problem["detail"].startswith("the worker's scheduler has not ticked for ")


def test_health_needs_no_key_and_tells_no_secret(migrated_postgres_url: str, launch: Callable[..., Process]) -> None:
    """Where keys are needed for all else; the worker's port has nothing else."""
    with SessionManager.open(migrated_postgres_url, ALL) as manager:
        key = manager.create_key("of the test", "read").key
    worker = launch(MAIN, monitored(migrated_postgres_url), "serve")
    for base in (worker.url("monitoring"), worker.url("serving")):
        until(lambda base=base: status(base, "/readyz") == 200, "it to be ready")  # type: ignore[misc]
        assert [status(base, path) for path in PATHS] == [200, 200]
        assert status(base, "/metrics") == 401
        assert httpx2.get(f"{base}/metrics", headers={"authorization": f"Bearer {key}"}).status_code == 200
        assert "postgres" not in httpx2.get(f"{base}/readyz").text
    assert status(worker.url("monitoring"), "/api/v1/sessions") == 404
    assert status(worker.url("monitoring"), "/") == 404


RUNNER = """
from lifecycle import SessionRunner, Settings

runner = SessionRunner(Settings(**{settings}))

@runner.handler("k")
def handle(run):
    pass
"""


def test_a_runner_tells_of_its_rescues(
    migrated_sqlite_url: str, tmp_path: Path, launch: Callable[..., Process]
) -> None:
    """On a port of its own, if it is given one: a session that a dead runner left counts as rescued."""
    with SessionManager.open(migrated_sqlite_url) as manager:
        manager.create_session(session_id="s", kind="k", available_at=datetime.now(UTC))
        manager.claim_sessions(["k"], holder="dead", ttl=30)
    past = datetime.now(UTC) - timedelta(hours=1)
    backdate(migrated_sqlite_url, t.sessions, lease_expires_at=past)
    settings = {"database": {"url": migrated_sqlite_url}, "logging": {"format": "json"}}
    (tmp_path / "agents.py").write_text(RUNNER.format(settings=settings))
    code = (
        "import sys; from lifecycle.cli import main; sys.argv[1:] = ['runner', 'agents:runner', '--monitor=0']; main()"
    )
    base = launch(code, {}, PYTHONPATH=f"{ROOT}:{tmp_path}").url("monitoring")
    until(lambda: status(base, "/readyz") == 200, "it to be ready")
    until(lambda: "lifecycle_rescues_total 1.0" in httpx2.get(f"{base}/metrics").text, "the rescue to be told")


def test_a_port_that_is_taken_is_refused(migrated_sqlite_url: str, launch: Callable[..., Process]) -> None:
    """The worker ends with the code for a wrong configuration, and says which key it is."""
    with serving(migrated_sqlite_url) as served:
        port = int(served.url.rsplit(":", 1)[1])
        worker = launch(MAIN, monitored(migrated_sqlite_url, worker={"port": port}))
        assert worker.process.wait(PATIENCE) == 78
    assert "worker.host, worker.port" in worker.log.read_text()


class Collector(BaseHTTPRequestHandler):
    """Takes what is exported."""

    def do_POST(self) -> None:
        """Keep a body."""
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.bodies.append((self.path, body))  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_traces_go_to_a_collector_below_the_callers(migrated_sqlite_url: str, launch: Callable[..., Process]) -> None:
    """By the standard variables, and with the trace of who called over HTTP: request, then operation."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    collector = HTTPServer(("127.0.0.1", 0), Collector)
    collector.bodies = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=collector.serve_forever)
    thread.start()
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    try:
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_SERVICE_NAME": "sessions-of-the-test",
        }
        settings = monitored(migrated_sqlite_url, telemetry={"enabled": True})
        base = launch(SERVE, settings, **env).url("serving")
        until(lambda: status(base, "/livez") == 200, "it to serve")
        httpx2.get(f"{base}/api/v1/sessions/none", headers={"traceparent": f"00-{trace}-{parent}-01"})

        def spans() -> Any:
            found: dict[str, Any] = {}
            for path, body in list(collector.bodies):  # type: ignore[attr-defined]
                assert path == "/v1/traces"
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    names = {one.key: one.value.string_value for one in resource.resource.attributes}
                    assert names["service.name"] == "sessions-of-the-test"
                    for scope in resource.scope_spans:
                        found |= {one.name: one for one in scope.spans if one.trace_id.hex() == trace}
            return found if {"lifecycle get_session", "GET /api/v1/sessions/{session_id}"} <= found.keys() else None

        found = until(spans, "both spans")
        request = found["GET /api/v1/sessions/{session_id}"]
        assert request.parent_span_id.hex() == parent
        assert found["lifecycle get_session"].parent_span_id == request.span_id
        assert not [name for name in found if "livez" in name]
    finally:
        collector.shutdown()
        thread.join()
        collector.server_close()

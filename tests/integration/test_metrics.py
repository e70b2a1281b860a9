"""Metrics and traces: what is exported is what happened."""

import gzip
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import psycopg
import pytest
import sqlalchemy as sa
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from lifecycle import (
    ALL,
    AsyncSessionManager,
    SchemaOutdated,
    SessionManager,
    SessionNotFound,
    Settings,
    StorageUnavailable,
    metrics,
    observing,
    telemetry,
)
from lifecycle.drivers.pool_use import pool_use
from lifecycle.models import tables as t
from lifecycle.upkeep import Upkeep
from tests.managers import backdate, connected
from tests.serving import Served, serving

OPERATION = "lifecycle_operation_duration_seconds_count"
REQUEST = "lifecycle_http_request_duration_seconds_count"


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    """Metrics of this test's own, and nobody who looks on afterwards."""
    metrics.of_process.cache_clear()
    yield
    for observer in observing.OBSERVERS:
        observing.forget(observer)
    metrics.of_process.cache_clear()


@pytest.fixture
def served(migrated_sqlite_url: str) -> Iterator[Served]:
    """A server on SQLite."""
    with serving(migrated_sqlite_url) as found:
        yield found


Numbers = dict[tuple[str, frozenset[tuple[str, str]]], float]


def numbers_of(text: str) -> Numbers:
    """Every sample by its name and labels, as Prometheus' own parser reads them."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def number(numbers: Numbers, name: str, **labels: str) -> float | None:
    """One sample's value, or None where there is none."""
    return numbers.get((name, frozenset(labels.items())))


def scrape(url: str, **headers: str) -> Numbers:
    """What a server exports."""
    answer = httpx2.get(f"{url}/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    return numbers_of(answer.text)


def own() -> Numbers:
    """What this process exports of itself."""
    return numbers_of(metrics.of_process().exposition("", "")[0].decode())


class TestOperations:
    """Calls of managers."""

    def test_calls_are_counted_by_what_came_of_them(self, manager: Any) -> None:
        """Under the operation's name and ok, or the name of the error."""
        metrics.of_process()
        manager.create_session(session_id="s")
        for _ in range(3):
            manager.get_session("s")
        for _ in range(2):
            with pytest.raises(SessionNotFound):
                manager.complete_session("none")
        found = own()
        assert number(found, OPERATION, operation="get_session", result="ok") == 3
        assert number(found, OPERATION, operation="complete_session", result="SessionNotFound") == 2
        assert number(found, OPERATION, operation="complete_session", result="ok") is None
        seconds = number(found, OPERATION.replace("count", "sum"), operation="get_session", result="ok")
        assert seconds is not None
        assert 0 < seconds < 60

    def test_nothing_is_measured_before_somebody_asks(self, migrated_sqlite_url: str) -> None:
        """Nor after he said that it is enough."""
        with SessionManager.open(migrated_sqlite_url) as manager:
            manager.create_session(session_id="s")
            measured = metrics.of_process()
            manager.get_session("s")
            observing.forget(measured)
            manager.get_session("s")
        found = own()
        assert number(found, OPERATION, operation="create_session", result="ok") is None
        assert number(found, OPERATION, operation="get_session", result="ok") == 1

    def test_leases_held_lost_and_taken_over(self, migrated_sqlite_url: str) -> None:
        """A lease that ran out is one less that is held, and one lost; a dead runner's session is rescued."""
        metrics.of_process()
        with SessionManager.open(migrated_sqlite_url) as manager:
            manager.create_session(session_id="kept", kind="k", available_at=datetime.now(UTC))
            manager.create_session(session_id="left", kind="k", available_at=datetime.now(UTC))
            (first,) = manager.claim(["k"], holder="me", ttl=30, limit=1)
            held = "lifecycle_leases_held"
            assert number(own(), held) == 1
            first.lose("the test says so")
            found = own()
            assert number(found, "lifecycle_leases_lost_total") == 1
            manager.claim_sessions(["k"], holder="dead", ttl=30)
            past = datetime.now(UTC) - timedelta(hours=1)
            backdate(migrated_sqlite_url, t.sessions, t.sessions.c.lease_holder == "dead", lease_expires_at=past)
            assert number(own(), "lifecycle_rescues_total") == 0
            assert len(manager.claim_sessions(["k"], holder="next", ttl=30, limit=5)) == 1
            assert number(own(), "lifecycle_rescues_total") == 1
        assert number(own(), held) == 0

    def test_sweeps_are_counted_with_their_rows(self, migrated_sqlite_url: str) -> None:
        """By result, those that failed too."""
        metrics.of_process()
        with SessionManager.open(migrated_sqlite_url) as manager:
            for name in ("a", "b"):
                manager.create_session(session_id=name)
            backdate(migrated_sqlite_url, t.sessions, expires_at=datetime.now(UTC) - timedelta(hours=1))
            upkeep = Upkeep(manager)
            upkeep.run_job("expire_idle")
            upkeep.run_job("expire_idle")
            with connected(migrated_sqlite_url) as connection:
                connection.execute(sa.text("DROP TABLE session_approvals"))
            with pytest.raises(SchemaOutdated):
                upkeep.run_job("expire_approvals")
        found = own()
        assert number(found, "lifecycle_sweep_rows_total", sweep="expire_idle") == 2
        runs = "lifecycle_sweep_duration_seconds_count"
        assert number(found, runs, sweep="expire_idle", result="ok") == 2
        assert number(found, runs, sweep="expire_approvals", result="error") == 1


class TestPool:
    """Connections."""

    def test_a_pool_shows_who_uses_it_and_who_waits(self, migrated_postgres_url: str) -> None:
        """One of one in use, and one caller waiting, while a statement waits for a lock."""
        settings = Settings(database={"url": migrated_postgres_url, "pool_size": 1})
        with SessionManager.open(settings) as manager, psycopg.connect(migrated_postgres_url) as other:
            manager.create_session(session_id="s")
            driver: Any = manager._driver
            metrics.of_process().add_pool("here", driver)
            other.execute("SELECT 1 FROM sessions FOR UPDATE")
            threads = [threading.Thread(target=manager.touch_session, args=("s",)) for _ in range(2)]
            for thread in threads:
                thread.start()
            while (use := pool_use(driver)) is None or use.waiting == 0:
                assert any(thread.is_alive() for thread in threads)
            found = own()
            assert number(found, "lifecycle_pool_size", pool="here") == 1
            assert number(found, "lifecycle_pool_connections", pool="here", state="in_use") == 1
            assert number(found, "lifecycle_pool_connections", pool="here", state="idle") == 0
            assert number(found, "lifecycle_pool_waiting", pool="here") == 1
            other.rollback()
            for thread in threads:
                thread.join(30)
            assert number(own(), "lifecycle_pool_connections", pool="here", state="in_use") == 0

    @pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
    def test_servers_have_one_and_files_do_not(self, kind: str, request: pytest.FixtureRequest) -> None:
        """For managers of either kind."""
        name = {"postgresql": "migrated_postgres_url", "mariadb": "migrated_mariadb_url"}[kind]
        url = str(request.getfixturevalue(name))
        with SessionManager.open(url) as manager:
            manager.get_session("s")
            use = pool_use(manager._driver)
            assert use is not None
            assert (use.size, use.in_use, use.idle, use.waiting) == (8, 0, 1, 0)
        with SessionManager.open("sqlite://") as manager:
            assert pool_use(manager._driver) is None

    async def _used(self, url: str) -> Any:
        async with AsyncSessionManager.open(url) as manager:
            await manager.get_session("s")
            return pool_use(manager._driver)

    @pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
    def test_async_managers_have_one_too(self, kind: str, request: pytest.FixtureRequest) -> None:
        """Of their own."""
        import asyncio

        name = {"postgresql": "migrated_postgres_url", "mariadb": "migrated_mariadb_url"}[kind]
        use = asyncio.run(self._used(str(request.getfixturevalue(name))))
        assert use is not None
        assert (use.size, use.in_use, use.waiting) == (8, 0, 0)


class TestServed:
    """`/metrics`."""

    def test_requests_by_route_method_and_status(self, served: Served) -> None:
        """The template of the route, not what callers make of it; what matches none is one."""
        for path in ("/api/v1/sessions/one", "/api/v1/sessions/two", "/no/such/thing", "/nor/this"):
            assert httpx2.get(served.url + path).status_code == 404
        httpx2.request("BREW", f"{served.url}/livez")
        found = scrape(served.url)
        route = "/api/v1/sessions/{session_id}"
        assert number(found, REQUEST, method="GET", route=route, status="404") == 2
        assert number(found, REQUEST, method="GET", route="unmatched", status="404") == 2
        assert number(found, REQUEST, method="other", route="/livez", status="405") == 1
        assert number(found, "lifecycle_http_requests_in_progress") == 1

    def test_the_database_by_what_a_worker_counted(self, migrated_sqlite_url: str) -> None:
        """Nothing about sessions before one did, and no tenant's name at any time."""
        with serving(migrated_sqlite_url) as served, SessionManager.open(migrated_sqlite_url, ALL) as manager:
            before = scrape(served.url)
            assert number(before, "lifecycle_database_up") == number(before, "lifecycle_schema_current") == 1
            assert not [name for name, _ in before if name == "lifecycle_sessions"]
            for name in ("a", "b"):
                manager.for_tenant("a-tenants-name").create_session(session_id=name)
            manager.for_tenant("a-tenants-name").complete_session("a")
            upkeep = Upkeep(manager)
            upkeep.run_job("expire_idle")
            upkeep.run_job("sample_counts")
            found = until_sampled(served.url)
            text = httpx2.get(f"{served.url}/metrics").text
        assert number(found, "lifecycle_sessions", state="active") == 1
        assert number(found, "lifecycle_sessions", state="completed") == 1
        assert number(found, "lifecycle_transitions_total", trigger="create") == 2
        assert number(found, "lifecycle_backlog_age_seconds") == 0
        assert number(found, "lifecycle_sweep_overdue", sweep="expire_idle") == 0
        assert number(found, "lifecycle_sweep_overdue", sweep="prune_sessions") == 1
        good = number(found, "lifecycle_sweep_last_good_timestamp_seconds", sweep="expire_idle")
        assert good is not None
        assert abs(good - datetime.now(UTC).timestamp()) < 60
        assert "a-tenants-name" not in text

    def test_a_scrape_counts_no_rows(self, migrated_postgres_url: str) -> None:
        """It reads what was counted, by key: the table of sessions may be locked against everybody meanwhile."""
        with SessionManager.open(migrated_postgres_url, ALL) as manager:
            manager.for_tenant("").create_session(session_id="s")
            manager.take_sample()
        with serving(migrated_postgres_url) as served, psycopg.connect(migrated_postgres_url, autocommit=True) as other:
            other.execute("BEGIN; LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE")
            found = scrape(served.url)
            other.execute("ROLLBACK")
        assert number(found, "lifecycle_sessions", state="active") == 1

    def test_the_format_is_the_clients_to_choose(self, served: Served) -> None:
        """OpenMetrics for who asks for it, the text format else; packed for who takes that."""
        url = f"{served.url}/metrics"
        plain = httpx2.get(url, headers={"accept-encoding": "identity"})
        assert plain.headers["content-type"].startswith("text/plain; version=")
        assert "content-encoding" not in plain.headers
        asked = httpx2.get(url, headers={"accept": "application/openmetrics-text; version=1.0.0"})
        assert asked.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        assert asked.text.endswith("# EOF\n")
        with httpx2.stream("GET", url, headers={"accept-encoding": "gzip"}) as packed:
            raw = b"".join(packed.iter_raw())
        assert packed.headers["content-encoding"] == "gzip"
        assert b"lifecycle_database_up 1.0" in gzip.decompress(raw)

    def test_who_may_see_it(self, migrated_sqlite_url: str) -> None:
        """While there is no key, this machine; then whoever's key reads all tenants; or anybody, or nobody."""
        with SessionManager.open(migrated_sqlite_url, ALL) as manager, serving(migrated_sqlite_url) as served:
            assert httpx2.get(f"{served.url}/metrics").status_code == 200
            assert httpx2.get(f"{served.url}/metrics", headers={"host": "evil.example"}).status_code == 403
            bound = manager.for_tenant("a").create_key("bound", "admin").key
            of_all = manager.create_key("all", "read").key
        with serving(migrated_sqlite_url) as served:
            answers = {
                name: httpx2.get(
                    f"{served.url}/metrics", headers={} if key is None else {"authorization": f"Bearer {key}"}
                )
                for name, key in (("none", None), ("wrong", "lc_no"), ("bound", bound), ("all", of_all))
            }
            assert {name: answer.status_code for name, answer in answers.items()} == {
                "none": 401, "wrong": 401, "bound": 403, "all": 200,
            }  # fmt: skip
            assert answers["bound"].json()["error"] == "NotOfAll"
            for path in ("/livez", "/readyz"):
                assert httpx2.get(served.url + path).status_code == 200
        with serving(migrated_sqlite_url, metrics="open") as served:
            assert httpx2.get(f"{served.url}/metrics").status_code == 200
        with serving(migrated_sqlite_url, metrics="off") as served:
            assert httpx2.get(f"{served.url}/metrics").status_code == 404


def until_sampled(url: str) -> Numbers:
    """What is exported once a look at the database is newer than what was counted: one serves for a second."""
    for _ in range(1000):
        found = scrape(url)
        if number(found, "lifecycle_sessions", state="active") is not None:
            return found
    raise AssertionError("no samples were exported")


class TestTraces:
    """OpenTelemetry spans."""

    @pytest.fixture
    def spans(self) -> Iterator[InMemorySpanExporter]:
        """What is traced from here on, by a provider of the test's own."""
        exporter, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        observer = telemetry.trace_operations(provider)
        yield exporter
        observing.forget(observer)
        provider.shutdown()

    @staticmethod
    def told(span: ReadableSpan) -> tuple[Any, ...]:
        """Its name, the kind of database, the result, and whether it counts as an error."""
        given = span.attributes or {}
        return span.name, given["db.system.name"], given["lifecycle.result"], span.status.is_ok

    def test_each_operation_is_a_span(self, manager: Any, spans: InMemorySpanExporter, migrated_url: str) -> None:
        """A refusal is a result and no error; there is no id in it."""
        manager.create_session(session_id="the-id")
        with pytest.raises(SessionNotFound):
            manager.complete_session("none")
        system = {"sqlite": "sqlite", "jsonl": "other_sql", "postgresql": "postgresql"}.get(
            migrated_url.split(":", maxsplit=1)[0], "mariadb"
        )
        found = spans.get_finished_spans()
        assert [self.told(span) for span in found] == [
            ("lifecycle create_session", system, "ok", True),
            ("lifecycle complete_session", system, "SessionNotFound", True),
        ]
        assert "the-id" not in "".join(span.to_json() for span in found)

    def test_an_outage_is_an_error(self, spans: InMemorySpanExporter) -> None:
        """What the caller can do nothing about."""
        url = "postgresql://nobody@127.0.0.1:1/none"
        settings = Settings(database={"url": url, "connect_timeout": "1s"})
        with SessionManager.open(settings) as manager, pytest.raises(StorageUnavailable):
            manager.get_session("s")
        (span,) = spans.get_finished_spans()
        assert self.told(span) == ("lifecycle get_session", "postgresql", "StorageUnavailable", False)

    def test_one_call_inside_of_another_is_below_it(
        self, migrated_sqlite_url: str, spans: InMemorySpanExporter
    ) -> None:
        """Such as that of a hook."""
        with SessionManager.open(migrated_sqlite_url) as manager:
            manager.after("complete")(lambda session: manager.get_session(session.session_id))
            manager.create_session(session_id="s")
            manager.complete_session("s")
        by_name = {span.name: span for span in spans.get_finished_spans()}
        inner, outer = by_name["lifecycle get_session"], by_name["lifecycle complete_session"]
        assert inner.parent is not None
        assert inner.parent.span_id == outer.context.span_id

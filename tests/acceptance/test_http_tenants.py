"""Two tenants' keys against every route there is: of the other nothing is seen, changed, or to be told from nothing.

The routes are the application's own, looked up as the test runs: one that is new is called like all others, and one
whose parameters this file does not know fails it.
"""

import difflib
import functools
import json
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

import httpx2 as httpx
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import iter_route_contexts
from starlette.routing import Mount

from lifecycle import ALL, SessionManager, Settings
from lifecycle.models import tables as t
from lifecycle.web import logins
from tests.managers import backdate, connected
from tests.serving import Served, serving
from tests.wire import CountingProxy

PAST: Final = datetime(2020, 1, 1, tzinfo=UTC)
PATIENCE: Final = 60
# What the other's rows say wherever a row can say something, and nobody else does.
SECRET: Final = "sesame"  # noqa: S105 -- a word in rows
TRIES: Final = 4


@dataclass(frozen=True)
class Target:
    """The names of something of another tenant's, or of nothing: as long as each other."""

    tenant: str
    session: str
    message: str
    approval: str
    connection: str
    user: str
    holder: str

    def text(self, name: str) -> str:
        """The value for a parameter."""
        known = {
            "session_id": self.session, "id": self.session, "message_id": self.message, "approval_id": self.approval,
            "approval": self.approval, "connection_id": self.connection, "user_id": self.user, "user": self.user,
            "tenant": self.tenant, "seq": "1", "one": "1", "other": "2", "checkpoint": "1", "parent_id": self.session,
            "pick": json.dumps([self.tenant, self.session]), "trigger": "suspend", "action": "suspend",
            "decision": "approve", "sweep": "expire_idle",
        }  # fmt: skip
        assert name in known, f"a route takes {name!r}: say here what it is of somebody else's"
        return known[name]

    def names(self) -> list[str]:
        """All of them."""
        return [self.session, self.message, self.approval, self.connection, self.user, self.holder, self.tenant]


THEIRS: Final = Target("theirs", "their-s", "their-m", "their-a", "their-c", "their-u", "their-h")
NOBODY: Final = Target("nobody", "nobod-s", "nobod-m", "nobod-a", "nobod-c", "nobod-u", "nobod-h")

# The body of a call, where it must have one; by what the path ends with.
BODIES: Final[dict[tuple[str, str], Callable[[Target], Any]]] = {
    ("PATCH", "/sessions/{session_id}"): lambda _: {"status": "ended"},
    ("POST", "/sessions"): lambda target: {"session_id": target.session},
    ("POST", "/sessions:touch"): lambda target: {"session_ids": [target.session]},
    ("PATCH", "/state"): lambda _: {"step": 1},
    ("PUT", "/state"): lambda _: {"step": 1},
    ("POST", "/checkpoints"): lambda _: {"label": "mine"},
    ("POST", "/messages"): lambda _: {"role": "user", "content": "mine"},
    ("POST", "{session_id}/approvals"): lambda _: {"action": "mine"},
    ("POST", ":resolve"): lambda _: {"approved": True},
    ("POST", "/sessions:claim"): lambda _: {"kinds": ["chat"]},
    ("POST", "/sweeps/cleanup_stale_sessions"): lambda _: {"max_age": "1s"},
}
# These make something under the name they are given, of the caller's own; what comes behind them would find it.
MAKING: Final = {("PUT", "/api/v1/sessions/{session_id}"), ("POST", "/api/v1/sessions")}
# What a key that is bound to a tenant has no use for.
BOUND: Final = {"/dashboard/tenant"}
# Outside of the documents: how they are called, and whether they are the same for everybody.
PLAIN: Final = {
    "/": "GET", "/dashboard": "GET", "/login": "GET", "/logout": "POST", "/livez": "GET", "/readyz": "GET",
    "/metrics": "GET", "/api/v1/openapi.json": "GET",
}  # fmt: skip


@dataclass(frozen=True)
class Call:
    """One route with one method: what a caller of it names, and how."""

    method: str
    path: str
    query: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    page: bool = False
    lease: bool = False
    values: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def named(self) -> tuple[str, ...]:
        """The parameters in the path."""
        return tuple(re.findall(r"\{(\w+)", self.path))

    @property
    def targets(self) -> bool:
        """Whether it names anything."""
        said = {*self.named, *self.query, *self.fields} - {"trigger", "action", "decision", "sweep"}
        return bool(said or self.body(THEIRS) != self.body(NOBODY))

    def body(self, target: Target) -> Any:
        """What is sent as JSON, or None."""
        if self.page:
            return None
        found = [make for (method, end), make in BODIES.items() if method == self.method and self.path.endswith(end)]
        return found[0](target) if found else None

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def calls_of(app: FastAPI) -> list[Call]:
    """Every route of the application and of those mounted in it, with what it takes. Fails for one it cannot call."""
    pages = {route.path: route.app for route in app.routes if isinstance(route, Mount)}
    found: list[Call] = []
    for prefix, each in (("", app), *pages.items()):
        assert isinstance(each, FastAPI), f"something is mounted at {prefix}: say here how it is called"
        document = get_openapi(title="all", version="1", routes=each.routes)
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                if method != "parameters":
                    shared = operations.get("parameters", [])
                    found.append(_call(document, prefix, path, method.upper(), operation, shared))
        for route in iter_route_contexts(each.routes):
            path = f"{prefix}{route.path}"
            for method in getattr(route, "methods", None) or ():
                if method != "HEAD" and not any((one.method, one.path) == (method, path) for one in found):
                    assert path in PLAIN, f"{method} {path} is in no document: say here how it is called"
    found += [Call(method, path) for path, method in PLAIN.items()]
    return sorted(found, key=lambda one: ((one.method, one.path) in MAKING, one.method == "DELETE"))


def _call(document: Any, prefix: str, path: str, method: str, operation: Any, shared: Any) -> Call:
    parameters = [_resolved(document, one) for one in (*operation.get("parameters", ()), *shared)]
    query = [one["name"] for one in parameters if one["in"] == "query"]
    chosen = [
        name for name in query if name in {"id", "session_id", "user", "user_id", "parent_id", "tenant", "checkpoint"}
    ]
    chosen += [
        one["name"] for one in parameters if one["in"] == "query" and one.get("required") and one["name"] not in chosen
    ]
    fields: list[str] = []
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        if kind == "application/x-www-form-urlencoded":
            schema = _resolved(document, content["schema"])
            wanted = {*schema.get("required", ()), "tenant", "pick"}
            fields = [name for name in schema["properties"] if name in wanted]
    lease = any(one["name"].lower() == "lease-holder" for one in parameters)
    return Call(method, prefix + path, tuple(chosen), tuple(fields), bool(prefix), lease)


def _resolved(document: Any, value: Any) -> Any:
    while "$ref" in value:
        found = document
        for name in value["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        value = found
    return value


class Caller:
    """A tenant's admin with a key, and logged in to the dashboard with it."""

    def __init__(self, served: Served, key: str) -> None:
        self.http = httpx.Client(base_url=served.url, timeout=PATIENCE)
        self.pages = httpx.Client(base_url=served.url, timeout=PATIENCE)
        self.key = {"Authorization": f"Bearer {key}"}
        answer = self.pages.post("/login", data={"key": key})
        assert answer.status_code == 303
        secret = served.app.state.service.keyring.secret
        login = logins.read_cookie(secret, self.pages.cookies["lifecycle_login"])
        assert login is not None
        self.token = logins.token_for(secret, login.login_id)

    def close(self) -> None:
        """Close the connections."""
        self.http.close()
        self.pages.close()

    def send(self, call: Call, target: Target, **headers: str) -> httpx.Response:
        """Make the call about the target."""
        path = call.path
        for name in call.named:
            path = re.sub(rf"\{{{name}(:\w+)?\}}", target.text(name), path)
        query: dict[str, Any] = {name: target.text(name) for name in call.query}
        if call.path == "/api/v1/events":
            query |= {"timeout": "0", "after": ""}
        if call.path == "/logout":
            return self.http.post("/logout", headers=self.key)
        if not call.page:
            if call.lease:
                headers |= {"Lease-Holder": target.holder, "Lease-Epoch": "1"}
            body = call.body(target)
            content: dict[str, Any] = {} if body is None else {"json": body}
            return self.http.request(call.method, path, params=query, headers=self.key | headers, **content)
        data = {name: target.text(name) for name in call.fields}
        more: dict[str, Any] = {"headers": {"X-CSRF-Token": self.token} | headers} | (
            {"data": data} if call.fields else {}
        )
        return self.pages.request(call.method, path, params=query, **more)


def told(answer: httpx.Response, target: Target) -> Any:
    """What an answer tells, but for the names that it was asked for, times, and ids of its own."""
    text = answer.text
    for name in sorted(target.names(), key=len, reverse=True):
        text = text.replace(name, "NAME")
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?", "TIME", text)
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "ID", text)
    text = re.sub(r'"(seconds|backlog_age)":\s?[\d.e-]+', "SECONDS", text)
    text = re.sub(r"\b\d+ (s|min|h|d) ago\b|(?<=data-ago>)now\b", "AGO", text)
    text = re.sub(r"\bid: \S*", "CURSOR", text)
    headers = {
        name: value for name, value in answer.headers.items()
        if name not in {"date", "content-length", "set-cookie", "location", "link", "request-id"}
    }  # fmt: skip
    return answer.status_code, headers, text


# --- what runs --------------------------------------------------------------------------------------------------------


class Statements:
    """Counts what a server asks of its database: SQLite's statements with their text, PostgreSQL's round trips."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.proxy: CountingProxy | None = None

    def note(self, text: str) -> None:
        """Take a statement down, its values left out; keys are looked up every so often whatever is called."""
        if "api_keys" not in text and "service_secrets" not in text:
            self.seen.append(re.sub(r"'[^']*'|\b\d+\b", "?", text))

    def during(self, act: Callable[[], Any]) -> tuple[Any, Any]:
        """What a call returns, and what ran meanwhile."""
        self.seen.clear()
        before = self.proxy.round_trips if self.proxy else 0
        answer = act()
        return answer, self.proxy.round_trips - before if self.proxy else list(self.seen)


@contextmanager
def serving_counted(url: str, statements: Statements) -> Iterator[Served]:
    """A server whose statements are counted."""
    if url.startswith("sqlite"):

        def trace(connection: Any, _record: Any) -> None:
            if isinstance(connection, sqlite3.Connection):
                connection.set_trace_callback(statements.note)

        sa.event.listen(sa.pool.Pool, "connect", trace)
        try:
            with serving(url) as served:
                yield served
        finally:
            sa.event.remove(sa.pool.Pool, "connect", trace)
        return
    with CountingProxy(url) as proxy:
        statements.proxy = proxy
        settings = Settings(database={"url": proxy.url, "notify": False}, web={"port": 0})
        with serving(settings) as served:
            yield served


# --- the two tenants --------------------------------------------------------------------------------------------------


def fill(url: str, target: Target, secret: str) -> None:
    """Rows of a tenant in every table, all due for whatever sweep there is."""
    with SessionManager.open(url, target.tenant) as manager:
        manager.create_session(
            session_id=target.session, title=f"{secret} title", user_id=target.user, agent_id=f"{secret} agent",
            metadata={secret: secret}, config={secret: 1}, phase=f"{secret} phase",
        )  # fmt: skip
        manager.create_session(session_id=f"{target.session}-waits", title=secret, available_at=PAST)
        manager.save_state(target.session, conversation=[secret] * 20_000, context={secret: secret}, token=secret)
        manager.add_message(target.session, "user", f"{secret} words", message_id=target.message)
        manager.checkpoint(target.session, f"{secret} label", {secret: 1})
        manager.request_approval(target.session, f"{secret} action", details=secret, approval_id=target.approval)
        manager.open_connection(target.session, connection_id=target.connection, client=secret)
        manager.acquire_lease(target.session, holder=target.holder, ttl=86_400)
        manager.create_session(session_id=f"{target.session}-gone", title=secret)
        manager.end_session(f"{target.session}-gone", reason=f"{secret} reason")


def make_due(url: str, tenant: str) -> None:
    """Let every deadline of a tenant's rows be long past."""
    for table, names in (
        (t.sessions, ("expires_at", "prune_at", "ghost_at", "last_active_at", "listed_at", "updated_at")),
        (t.approvals, ("expires_at",)),
        (t.connections, ("beat_at", "silent_at")),
    ):
        columns = {name: PAST for name in names if name in table.c}
        backdate(url, table, table.c.tenant == tenant, **columns)


def rows_of(url: str, tenant: str) -> dict[str, list[Any]]:
    """Everything of a tenant."""
    with connected(url) as connection:
        return {
            table.name: sorted(map(repr, connection.execute(sa.select(table).where(table.c.tenant == tenant))))
            for table in t.metadata.sorted_tables
            if "tenant" in table.c
        }


@pytest.fixture(params=["migrated_sqlite_url", "migrated_postgres_url"])
def url(request: pytest.FixtureRequest) -> str:
    """The URL of a database with the schema in place."""
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def statements() -> Statements:
    """What the server asks of its database."""
    return Statements()


@dataclass
class World:
    """A server, one tenant's admin, and what the other has."""

    url: str
    served: Served
    caller: Caller
    calls: list[Call]


def key_of(url: str, tenant: Any, scope: str = "admin") -> str:
    """A key's text."""
    with SessionManager.open(url, tenant) as manager:
        return manager.create_key("admin of ours", scope).key


@pytest.fixture
def world(url: str, statements: Statements) -> Iterator[World]:
    """Where both tenants have something."""
    fill(url, Target("ours", "ours-s", "ours-m", "ours-a", "ours-c", "ours-u", "ours-h"), "plain")
    key = key_of(url, "ours")
    with serving_counted(url, statements) as served:
        caller = Caller(served, key)
        yield World(url, served, caller, calls_of(served.app))
        caller.close()


def test_what_is_of_another_is_as_if_it_were_not_there(world: World, statements: Statements) -> None:
    """Every route, asked for the other's things and for such as nobody has, answers the same and runs the same.

    That the work is the same is asserted by the statements that run, not by a clock. The other's rows stay as they are.
    """
    fill(world.url, THEIRS, SECRET)
    make_due(world.url, THEIRS.tenant)
    before = rows_of(world.url, THEIRS.tenant)
    asked = 0
    for call in world.calls:
        if not call.targets:
            continue
        for attempt in range(TRIES):  # something of the server's own may run beside one of the two
            other, ran = statements.during(functools.partial(world.caller.send, call, THEIRS))
            none, would = statements.during(functools.partial(world.caller.send, call, NOBODY))
            assert SECRET not in other.text, f"{call}: {other.text}"
            assert told(other, THEIRS) == told(none, NOBODY), str(call)
            if call.path in BOUND:
                break
            assert other.status_code not in {400, 401, 403, 405, 415, 422, 429, 500}, (
                f"{call} is not called: {other.text}"
            )
            if ran == would:
                break
            assert attempt < TRIES - 1, f"{call} runs {ran} for another's, {would} for nobody's"
        asked += 1
    assert asked > 30
    assert rows_of(world.url, THEIRS.tenant) == before


def test_what_is_asked_of_all_is_of_ones_own(world: World) -> None:
    """Lists, totals, events, sweeps and pages are the same with the other's rows in the database as without.

    Sweeps and claims are carried out; the other's rows, which all are due, stay as they are.
    """

    def read() -> dict[str, Any]:
        return {
            str(call): told(world.caller.send(call, NOBODY), THEIRS)
            for call in world.calls
            if call.method == "GET" and not call.named and not call.query
        }

    alone = read()
    fill(world.url, THEIRS, SECRET)
    make_due(world.url, THEIRS.tenant)
    before = rows_of(world.url, THEIRS.tenant)
    with SessionManager.open(world.url, ALL) as manager:
        assert len(manager.list_sessions(limit=100).items) > 3  # they are there to be seen
    beside = read()
    assert len(alone) > 15
    for name in alone:
        assert SECRET not in beside[name][2], name
        assert beside[name][:2] == alone[name][:2], name
        changed = difflib.unified_diff(alone[name][2].splitlines(), beside[name][2].splitlines(), lineterm="", n=0)
        assert "\n".join(changed) == "", name
    for call in world.calls:
        if (
            call.method == "POST"
            and not call.named
            and (call.method, call.path) not in MAKING
            and call.path not in BOUND
        ):
            answer = world.caller.send(call, NOBODY)
            assert answer.status_code < 400 or answer.status_code == 404, f"{call}: {answer.text}"
            assert SECRET not in answer.text
            assert not any(name in answer.text for name in THEIRS.names()), f"{call}: {answer.text}"
    assert rows_of(world.url, THEIRS.tenant) == before


def test_naming_the_other_is_refused_everywhere(world: World) -> None:
    """With the header, on every route that asks who calls: 403, the same whether there is such a tenant."""
    fill(world.url, THEIRS, SECRET)
    open_to_all = {"/", "/dashboard", "/login", "/livez", "/readyz", "/api/v1/openapi.json", "/logout"}
    for call in world.calls:
        if call.path in open_to_all:
            continue
        answers = [
            world.caller.send(call, THEIRS, **{"Lifecycle-Tenant": name})
            for name in (THEIRS.tenant, NOBODY.tenant, "*")
        ]
        assert {answer.status_code for answer in answers} == {403}, f"{call}: {answers[0].text}"
        assert len({answer.text for answer in answers}) == 1, str(call)


def test_nobody_is_let_in_without_a_key(world: World) -> None:
    """Every route but those that say whether the server lives, and the form: 401, or the way to the form."""
    open_to_all = {"/", "/dashboard", "/login", "/livez", "/readyz", "/api/v1/openapi.json"}
    with httpx.Client(base_url=world.served.url, timeout=PATIENCE) as client:
        stranger = Caller.__new__(Caller)
        stranger.http = stranger.pages = client
        stranger.key, stranger.token = {}, ""
        for call in world.calls:
            if call.path in open_to_all:
                continue
            answer = stranger.send(call, THEIRS) if call.path != "/logout" else client.post("/logout")
            assert answer.status_code in {401, 303}, f"{call}: {answer.status_code} {answer.text}"
            if answer.status_code == 303:
                assert answer.headers["location"].startswith("/login?"), str(call)


def test_a_key_to_read_changes_nothing(world: World, request: pytest.FixtureRequest) -> None:
    """Every method but GET is refused to it, on every route that changes something."""
    reader = Caller(world.served, key_of(world.url, "ours", "read"))
    request.addfinalizer(reader.close)
    before = rows_of(world.url, "ours")
    own = replace(THEIRS, tenant="ours", session="ours-s", message="ours-m", approval="ours-a", connection="ours-c")
    harmless = {"/login", "/logout", "/dashboard/sweeps"}  # pages preview a sweep with a POST
    for call in world.calls:
        if call.method == "GET" or call.path in harmless:
            continue
        answer = reader.send(call, own)
        assert answer.status_code == 403, f"{call}: {answer.status_code} {answer.text}"
    after = rows_of(world.url, "ours")
    assert after == before


def test_a_stream_of_events_is_of_ones_own_and_ends_with_its_key(world: World, request: pytest.FixtureRequest) -> None:
    """It passes over the other's transitions as they happen; once the key is revoked it is closed."""
    made = Caller(world.served, key_of(world.url, "ours", "read"))
    request.addfinalizer(made.close)
    with made.http.stream("GET", "/api/v1/events", headers=made.key) as stream:
        lines = stream.iter_lines()
        next(lines)
        fill(world.url, THEIRS, SECRET)
        with SessionManager.open(world.url, "ours") as manager:
            manager.create_session(session_id="ours-new")
        seen, end = [], time.monotonic() + PATIENCE
        for line in lines:
            seen.append(line)
            if line.startswith("data:"):
                break
        assert "ours-new" in seen[-1]
        assert SECRET not in "".join(seen)
        assert THEIRS.session not in "".join(seen)
        with SessionManager.open(world.url, ALL) as manager:
            for key in manager.list_keys():
                if key.scope == "read":
                    manager.revoke_key(key.key_id)
        for _ in lines:  # until it ends; the client gives up otherwise
            assert time.monotonic() < end, "the stream goes on"

"""`Idempotency-Key`: a POST that is sent again is answered again, and carried out once, whatever happens in between."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx2 as httpx
import pytest
import sqlalchemy as sa

from lifecycle import ALL, SessionManager, migrate
from lifecycle.models import tables as t
from tests.calling import PATIENCE, Api, calling, refused, server_process, until
from tests.managers import backdate, connected
from tests.serving import serving

PAST: Final = datetime(2020, 1, 1, tzinfo=UTC)
KEYS: Final = t.idempotency_keys


@pytest.fixture
def api(shared_url: str) -> Iterator[Api]:
    """A client of a server, on each database in turn."""
    with serving(shared_url) as served, calling(served.url) as made:
        yield made


@pytest.fixture
def sqlite_api(migrated_sqlite_url: str) -> Iterator[Api]:
    """A client of a server on SQLite."""
    with serving(migrated_sqlite_url) as served, calling(served.url) as made:
        yield made


def prepared(api: Api) -> None:
    """What the requests below work on."""
    api.ok("PUT", "/sessions/s-1", {"context": {"a": 1}, "kind": "copilot"})
    assert api.ok("POST", "/sessions/s-1/checkpoints", {"label": "first"})["seq"] == 2
    api.ok("PUT", "/sessions/child", {"parent_id": "s-1"})
    api.ok("PUT", "/sessions/waits", {"kind": "cron", "available_at": "2020-01-01T00:00:00Z"})
    api.ok("PUT", "/sessions/waits-too", {"kind": "cron", "available_at": "2020-01-01T00:00:00Z"})
    for n in range(3):
        api.ok("POST", "/sessions/s-1/messages", {"role": "user", "content": str(n), "message_id": f"m-{n}"})
    api.ok("POST", "/sessions/s-1/approvals", {"action": "x", "approval_id": "a-1"})


MESSAGE: Final = {"role": "user", "content": "x"}
# What does more when it is done twice; a repeat is the same or refused, and never done again.
REQUESTS: Final[tuple[tuple[str, Any], ...]] = (
    ("/sessions", {"title": "x"}),
    ("/sessions", {"session_id": "given"}),
    ("/sessions/s-1:suspend", None),
    ("/sessions/s-1:fork", None),
    ("/sessions/child:cleanup", None),
    ("/sessions/s-1/messages", MESSAGE),
    ("/sessions/s-1/messages", {"messages": [MESSAGE, MESSAGE]}),
    ("/sessions/s-1/messages:pop", None),
    ("/sessions/s-1/checkpoints", {"label": "x"}),
    ("/sessions/s-1/checkpoints/2:restore", None),
    ("/sessions/s-1/lease", None),
    ("/sessions:claim", {"kinds": ["cron"]}),
    ("/sessions/s-1/approvals", {"action": "y"}),
    ("/sessions/s-1/approvals/a-1:resolve", {"approved": True}),
    ("/sessions/s-1/connections", None),
    ("/sessions:touch", {"session_ids": ["s-1"]}),
    ("/sweeps/expire_idle", {"dry_run": True}),
)


def named(request: Any) -> str | None:
    """A request by its path."""
    return request if isinstance(request, str) else None


def picture(url: str) -> dict[str, Any]:
    """How much there is of everything that the requests make or take away."""
    with connected(url) as connection:
        tables = (t.sessions, t.messages, t.checkpoints, t.approvals, t.connections, t.transitions)
        counts: dict[str, Any] = {
            table.name: connection.execute(sa.select(sa.func.count()).select_from(table)).scalar() for table in tables
        }
        columns = (t.sessions.c.session_id, t.sessions.c.version, t.sessions.c.lease_holder, t.sessions.c.lease_epoch)
        rows = connection.execute(sa.select(*columns).order_by(t.sessions.c.session_id))
        return counts | {"sessions of": [tuple(row) for row in rows]}


@pytest.mark.parametrize(("path", "body"), REQUESTS, ids=named)
def test_every_post_is_carried_out_once(sqlite_api: Api, migrated_sqlite_url: str, path: str, body: Any) -> None:
    """The repeat has the same status, body, ETag and place, and nothing was done."""
    prepared(sqlite_api)
    first = sqlite_api("POST", path, body, Idempotency_Key="k-1")
    assert first.is_success, first.text
    before = picture(migrated_sqlite_url)
    again = sqlite_api("POST", path, body, Idempotency_Key="k-1")
    assert (again.status_code, again.content) == (first.status_code, first.content)
    for name in ("etag", "location", "content-type"):
        assert again.headers.get(name) == first.headers.get(name)
    assert (again.headers["idempotent-replayed"], "idempotent-replayed" in first.headers) == ("true", False)
    assert picture(migrated_sqlite_url) == before


@pytest.mark.parametrize(("path", "body"), REQUESTS, ids=named)
def test_what_died_before_its_answer_is_not_done_twice(
    sqlite_api: Api, migrated_sqlite_url: str, path: str, body: Any
) -> None:
    """Once it is long ago, the repeat finds what was made, or is told that nobody knows; nothing is done again."""
    prepared(sqlite_api)
    first = sqlite_api("POST", path, body, Idempotency_Key="k-1")
    before = picture(migrated_sqlite_url)
    forget_answer(migrated_sqlite_url)
    refused(sqlite_api("POST", path, body, Idempotency_Key="k-1"), 409, "RequestInProgress")
    backdate(migrated_sqlite_url, KEYS, claimed_at=PAST)
    again = sqlite_api("POST", path, body, Idempotency_Key="k-1")
    assert picture(migrated_sqlite_url) == before
    if again.is_success:
        assert comparable(again.json()) == comparable(first.json())
    else:
        # What exists already, is held already or is gone already cannot be told from what others did.
        assert again.json()["error"] in {"OutcomeUnknown", "SessionExists", "SessionBusy", "SessionNotFound"}


def comparable(value: Any) -> Any:
    """An answer without the clock."""
    return {name: one for name, one in value.items() if not name.endswith("_at") and name != "seconds"}


def forget_answer(url: str) -> None:
    """Leave the key as a process leaves it that dies between its write and its answer."""
    with connected(url) as connection:
        connection.execute(sa.update(KEYS).values(status=None, headers=None, body=None))


def lapse(url: str) -> None:
    """Leave the key as a process leaves it that died long ago."""
    forget_answer(url)
    backdate(url, KEYS, claimed_at=PAST)


def test_a_transition_is_not_done_again_over_what_others_did(api: Api, shared_url: str) -> None:
    """Suspended, crashed, resumed by somebody: the repeat says that it does not know, or that the version is another."""
    api.ok("PUT", "/sessions/s-1")
    for key, headers, status, error in (
        ("k-1", {}, 409, "OutcomeUnknown"),
        ("k-2", {"If_Match": "*"}, 409, "OutcomeUnknown"),
        ("k-3", {"If_Match": '"5"'}, 412, "VersionConflict"),
    ):
        api.ok("POST", "/sessions/s-1:suspend", Idempotency_Key=key, **headers)
        lapse(shared_url)
        api.ok("POST", "/sessions/s-1:resume")
        refused(api("POST", "/sessions/s-1:suspend", Idempotency_Key=key, **headers), status, error)
        assert api.ok("GET", "/sessions/s-1")["state"] == "active"


def test_what_was_hidden_or_made_anew_is_left_alone(sqlite_api: Api, migrated_sqlite_url: str) -> None:
    """`:undelete` and `:cleanup` would undo what somebody did behind them."""
    sqlite_api.ok("PUT", "/sessions/s-1")
    sqlite_api.ok("DELETE", "/sessions/s-1?soft=true")
    sqlite_api.ok("POST", "/sessions/s-1:undelete", Idempotency_Key="k-1")
    lapse(migrated_sqlite_url)
    sqlite_api.ok("DELETE", "/sessions/s-1?soft=true")
    refused(sqlite_api("POST", "/sessions/s-1:undelete", Idempotency_Key="k-1"), 409, "OutcomeUnknown")
    sqlite_api.ok("PUT", "/sessions/parent")
    sqlite_api.ok("PUT", "/sessions/child", {"parent_id": "parent"})
    sqlite_api.ok("POST", "/sessions/child:cleanup", Idempotency_Key="k-2")
    lapse(migrated_sqlite_url)
    sqlite_api.ok("PUT", "/sessions/child", {"parent_id": "parent"})
    refused(sqlite_api("POST", "/sessions/child:cleanup", Idempotency_Key="k-2"), 409, "OutcomeUnknown")
    sqlite_api.ok("GET", "/sessions/child")


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("/sessions", {"session_id": "given"}, 409, "SessionExists"),
        ("/sessions/s-1:fork", {"session_id": "given"}, 409, "SessionExists"),
        ("/sessions/s-1/approvals", {"action": "x", "approval_id": "given"}, 422, "InvalidArgument"),
    ],
)  # fmt: skip
def test_an_id_of_the_clients_that_is_there_after_a_crash(
    sqlite_api: Api, migrated_sqlite_url: str, path: str, body: Any, status: int, error: str
) -> None:
    """It may be this request's own, or another's: nobody knows, however often it is asked. Without a crash it is taken."""
    sqlite_api.ok("PUT", "/sessions/s-1", {"context": {"a": 1}})
    sqlite_api.ok("POST", path, body, Idempotency_Key="k-1")
    refused(sqlite_api("POST", path, body, Idempotency_Key="k-2"), status, error)
    lapse(migrated_sqlite_url)
    for _ in range(2):
        refused(sqlite_api("POST", path, body, Idempotency_Key="k-1"), 409, "OutcomeUnknown")


def test_what_is_under_way_is_not_forgotten(shared_url: str) -> None:
    """However short `web.idempotency` is, a repeat is told to wait, and housekeeping leaves the key."""
    with serving(shared_url, idempotency="1s") as served, calling(served.url) as api:
        api.ok("PUT", "/sessions/s-1")
        api.ok("POST", "/sessions/s-1/messages", MESSAGE, Idempotency_Key="k-1")
        forget_answer(shared_url)
        recent = datetime.now(UTC) - timedelta(seconds=30)
        backdate(shared_url, KEYS, created_at=recent, claimed_at=recent)
        api.ok("POST", "/sweeps/trim")
        refused(api("POST", "/sessions/s-1/messages", MESSAGE, Idempotency_Key="k-1"), 409, "RequestInProgress")
        assert len(api.ok("GET", "/sessions/s-1/messages")["items"]) == 1
        backdate(shared_url, KEYS, created_at=PAST, claimed_at=PAST)
        api.ok("POST", "/sessions/s-1/messages", MESSAGE, Idempotency_Key="k-1")


def test_another_request_under_the_key_is_refused(sqlite_api: Api) -> None:
    """Another body, path, query, version or lease: 422, and the first one's answer stays."""
    sqlite_api.ok("PUT", "/sessions/s-1")
    first = sqlite_api("POST", "/sessions/s-1/messages", MESSAGE, Idempotency_Key="k-1")
    for path, body, headers in (
        ("/sessions/s-1/messages", MESSAGE | {"content": "y"}, {}),
        ("/sessions/s-2/messages", MESSAGE, {}),
        ("/sessions/s-1/messages?x=1", MESSAGE, {}),
        ("/sessions/s-1/messages", MESSAGE, {"Lease_Holder": "x", "Lease_Epoch": "1"}),
        ("/sessions/s-1/messages:pop", None, {}),
    ):
        answer = sqlite_api("POST", path, body, Idempotency_Key="k-1", **headers)
        refused(answer, 422, "IdempotencyKeyReused")
    sqlite_api.ok("POST", "/sessions/s-1:suspend", Idempotency_Key="k-2")
    conditional = sqlite_api("POST", "/sessions/s-1:suspend", Idempotency_Key="k-2", If_Match='"1"')
    refused(conditional, 422, "IdempotencyKeyReused")
    assert sqlite_api("POST", "/sessions/s-1/messages", MESSAGE, Idempotency_Key="k-1").json() == first.json()
    assert len(sqlite_api.ok("GET", "/sessions/s-1/messages")["items"]) == 1


def test_a_refusal_is_not_kept(api: Api) -> None:
    """It changed nothing, so the same request may succeed later: under the same key."""
    api.ok("PUT", "/sessions/s-1")
    lease = api.ok("POST", "/sessions/s-1/lease", {"holder": "other"})
    refused(api("POST", "/sessions/s-1/messages", MESSAGE, Idempotency_Key="k-1"), 423, "SessionBusy")
    refused(api("POST", "/sessions/s-1/messages", {"role": "user"}, Idempotency_Key="k-1"), 422, "InvalidArgument")
    held = {"Lease_Holder": lease["holder"], "Lease_Epoch": str(lease["epoch"])}
    assert api("DELETE", "/sessions/s-1/lease", **held).status_code == 204
    assert api("POST", "/sessions/s-1/messages", MESSAGE, Idempotency_Key="k-1").status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 256, "kü".encode("latin-1"), "a\tb"])
def test_a_key_that_cannot_be_kept_is_refused(sqlite_api: Api, key: Any) -> None:
    """Rather than cut or taken for none."""
    answer = sqlite_api.http.post(f"{sqlite_api.base}/api/v1/sessions", json={}, headers={"Idempotency-Key": key})
    refused(answer, 422, "InvalidArgument")
    assert sqlite_api.ok("GET", "/sessions")["items"] == []


def test_tenants_have_keys_of_their_own(sqlite_api: Api) -> None:
    """What one used tells another nothing."""
    made = [
        sqlite_api.ok("POST", "/sessions", {"title": tenant}, Idempotency_Key="k-1", Lifecycle_Tenant=tenant)
        for tenant in ("a", "b")
    ]
    assert [one["title"] for one in made] == ["a", "b"]
    assert made[0]["session_id"] != made[1]["session_id"]


def test_keys_are_forgotten_in_time(api: Api, shared_url: str) -> None:
    """After `web.idempotency` the key is as good as new, and housekeeping removes it."""
    first = api.ok("POST", "/sessions", {}, Idempotency_Key="k-1")
    backdate(shared_url, KEYS, created_at=PAST, claimed_at=PAST)
    second = api.ok("POST", "/sessions", {}, Idempotency_Key="k-1")
    assert first["session_id"] != second["session_id"]
    assert api.ok("POST", "/sessions", {}, Idempotency_Key="k-1") == second
    backdate(shared_url, KEYS, created_at=PAST)
    with SessionManager.open(shared_url, ALL) as manager:
        assert manager.trim() == 1


def test_of_two_at_once_one_is_carried_out(api: Api) -> None:
    """The others are told to wait, or given the answer; never does one more message appear."""
    api.ok("PUT", "/sessions/s-1")
    barrier, answers = threading.Barrier(8), []

    def send() -> None:
        with calling(api.base) as own:
            barrier.wait(PATIENCE)
            answers.append(own("POST", "/sessions/s-1/messages", MESSAGE, Idempotency_Key="k-1"))

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    done = [answer for answer in answers if answer.status_code == 201]
    for answer in answers:
        if answer.status_code != 201:
            refused(answer, 409, "RequestInProgress")
    assert len(answers) == 8
    assert {answer.content for answer in done} == {done[0].content}
    assert sum("idempotent-replayed" not in answer.headers for answer in done) == 1
    assert len(api.ok("GET", "/sessions/s-1/messages")["items"]) == 1


@pytest.fixture(params=["postgresql", "mariadb"])
def locking_url(request: pytest.FixtureRequest) -> str:
    """A database on which a test can hold a row against a server."""
    fixture = "migrated_postgres_url" if request.param == "postgresql" else "migrated_mariadb_url"
    return str(request.getfixturevalue(fixture))


def waits(url: str) -> Callable[[], bool]:
    """Whether somebody waits for a row."""
    asked = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        if url.startswith("postgresql")
        else "SELECT variable_value > 0 FROM information_schema.global_status"
        " WHERE variable_name = 'INNODB_ROW_LOCK_CURRENT_WAITS'"  # innodb_trx stands still while it is asked often
    )

    def look() -> bool:
        with connected(url) as connection:
            return bool(connection.execute(sa.text(asked)).scalar())

    return look


@pytest.mark.parametrize(
    ("path", "expected"), [("/sessions/s-1/messages", "repeated"), ("/sessions/s-1/messages:pop", "OutcomeUnknown")]
)
def test_a_process_killed_between_its_write_and_its_answer(
    locking_url: str, tmp_path: Path, path: str, expected: str
) -> None:
    """The repeat, on another server, gets the message that was added; what cannot be told is not done again."""
    body = MESSAGE if expected == "repeated" else None
    sent: list[Any] = []
    with server_process(locking_url, tmp_path) as doomed:
        with calling(doomed.url) as api:
            api.ok("PUT", "/sessions/s-1")
            for n in range(3):
                api.ok("POST", "/sessions/s-1/messages", MESSAGE | {"content": str(n)})

        def send() -> None:
            with calling(doomed.url) as own:
                try:
                    sent.append(own("POST", path, body, Idempotency_Key="k-1"))
                except httpx.TransportError as error:
                    sent.append(error)

        sender = threading.Thread(target=send)
        with migrate.connected(locking_url) as session, migrate.connected(locking_url) as key:
            held = session.begin()
            session.execute(sa.select(t.sessions.c.session_id).with_for_update())
            sender.start()
            until(waits(locking_url), "the write to wait for the session")
            with key.begin():
                key.execute(sa.select(KEYS.c.digest).with_for_update())
                held.rollback()
                changed = 4 if expected == "repeated" else 2
                until(lambda: messages_of(locking_url) == changed, "the write to be committed")
                until(waits(locking_url), "the answer to wait for the key")
                doomed.kill()
        sender.join(PATIENCE)
    assert isinstance(sent[0], httpx.TransportError)
    with serving(locking_url) as served, calling(served.url) as api:
        refused(api("POST", path, body, Idempotency_Key="k-1"), 409, "RequestInProgress")
        backdate(locking_url, KEYS, claimed_at=PAST)
        again = api("POST", path, body, Idempotency_Key="k-1")
        assert messages_of(locking_url) == changed
        if expected == "repeated":
            assert again.json() == api.ok("GET", "/sessions/s-1/messages")["items"][-1]
        else:
            refused(again, 409, expected)


def messages_of(url: str) -> int:
    """How many messages there are."""
    with connected(url) as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(t.messages)).scalar() or 0)

"""Pages on MariaDB: the same as by the plain statement, and out of the index."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from lifecycle import SessionManager, migrate
from lifecycle.models import tables as t
from lifecycle.operations import requests as r
from lifecycle.recipes import lists, mariadb_lists
from lifecycle.recipes.statement import Statement

SESSIONS = 4000
PAGE = 20
AT = datetime(2026, 3, 1, tzinfo=UTC)
STATES = ("active", "suspended", "completed", "ended", "expired")
FILTERS: dict[str, dict[str, Any]] = {
    "all": {},
    "state": {"state": "suspended"},
    "kind": {"kind": "kind1"},
    "kind and state": {"kind": "kind2", "state": "ended"},
    "user": {"user_id": "user7"},
    "agent": {"agent_id": "agent2"},
    "since": {"since": AT + timedelta(minutes=30, seconds=7)},
    "until": {"until": AT + timedelta(minutes=200, seconds=31)},
    "children": {"parent_id": "s-0001"},
    "none": {"user_id": "nobody"},
    "deleted too": {"deleted": True},
}


@pytest.fixture
def filled_url(migrated_mariadb_url: str) -> str:
    """Some dozen sessions in each minute of a few hours, at any second; one in ten is deleted."""
    chosen = random.Random(7)
    rows = []
    for i in range(SESSIONS):
        at = AT + timedelta(seconds=chosen.randrange(20_000), microseconds=chosen.randrange(3))
        rows.append(
            {
                "tenant": "" if i % 4 else "other", "session_id": f"s-{i:04}", "kind": f"kind{i % 5}",
                "user_id": f"user{i % 50}" if i % 3 else None, "agent_id": f"agent{i % 9}" if i % 2 else None,
                "parent_id": "s-0001" if i % 11 == 0 else None, "state": STATES[i // 7 % 5], "metadata": "{}", "config": "{}",
                "version": 1, "next_seq": 2, "created_at": at, "updated_at": at,
                "listed_at": at.replace(second=0, microsecond=0), "last_active_at": at, "idle_active": 60,
                "idle_suspended": 60, "deleted_at": at if i % 10 == 3 else None,
                "ended_at": None if STATES[i // 7 % 5] in {"active", "suspended"} else at,
            }
        )  # fmt: skip
    with migrate.connected(migrated_mariadb_url) as connection, connection.begin():
        connection.execute(sa.insert(t.sessions), rows)
    return migrated_mariadb_url


def ran(connection: sa.Connection, recipe: Any) -> Any:
    """What a recipe gives on a connection."""
    answer = None
    while True:
        try:
            statement, values = recipe.send(answer)
        except StopIteration as done:
            return done.value
        assert isinstance(statement, Statement)
        compiled = statement.on("mysql")
        found = connection.exec_driver_sql(compiled.sql, compiled.bind(values))
        answer = compiled.read(found.fetchall())


def asked(
    filters: dict[str, Any], cursor: Any, *, descending: bool, offset: int, count: bool = False
) -> r.ListSessions:
    """A request for a page."""
    return r.ListSessions("", filters, "updated_at", descending, PAGE, offset, cursor, count)


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("name", FILTERS)
def test_pages_are_the_same(filled_url: str, name: str, *, descending: bool) -> None:
    """As without the index, whatever is asked for: the first pages, by cursor and by offset."""
    with migrate.connected(filled_url) as connection:
        cursor = None
        for page in range(4):

            def both(offset: int, *, cursor: Any = cursor, count: bool = page == 0) -> list[Any]:
                request = asked(FILTERS[name], cursor, descending=descending, offset=offset, count=count)
                plain = ran(connection, lists.list_sessions(request))
                assert ran(connection, mariadb_lists.list_sessions(request)) == plain
                rows: list[Any] = plain[0]
                return rows

            both(13)
            both(5 * SESSIONS)
            found = both(0)
            if len(found) <= PAGE:
                break
            last = found[PAGE - 1]
            cursor = (last["listed_at"], last["updated_at"], last["tenant"], last["session_id"])


def rows_read(connection: sa.Connection) -> int:
    """How many rows this connection has read one behind the other so far."""
    found = connection.exec_driver_sql("SHOW SESSION STATUS LIKE 'Handler_read%%'").fetchall()
    return sum(int(value) for kind, value in found if kind in {"Handler_read_next", "Handler_read_prev"})


@pytest.mark.parametrize("name", ["all", "state", "kind", "user", "agent", "until"])
def test_a_page_reads_what_it_shows(filled_url: str, name: str) -> None:
    """Not the sessions of the tenant: the page's and those of its last minute, twice."""
    with migrate.connected(filled_url) as connection:
        request = asked(FILTERS[name], None, descending=True, offset=0)
        ran(connection, mariadb_lists.list_sessions(request))
        before = rows_read(connection)
        found, _ = ran(connection, mariadb_lists.list_sessions(request))
        assert len(found) == PAGE + 1
        assert rows_read(connection) - before < 5 * PAGE
        before = rows_read(connection)
        ran(connection, lists.list_sessions(request))
        assert name == "user" or rows_read(connection) - before > 10 * PAGE


@pytest.mark.parametrize(
    ("name", "common"),
    [
        ("user_id", {"state": "active"}),
        ("user_id", {"kind": "kind1"}),
        ("agent_id", {"state": "active"}),
        ("agent_id", {"kind": "kind1"}),
        ("kind", {"state": "active"}),
        ("kind", {"agent_id": "agent2"}),
    ],
)
def test_of_two_filters_the_rarer_one_is_gone_by(filled_url: str, name: str, common: dict[str, str]) -> None:
    """As few rows are read as it has, whatever the other one has."""
    with migrate.connected(filled_url) as connection:
        column, C = t.sessions.c[name], t.sessions.c  # noqa: N806 - as elsewhere
        few = sa.select(C.session_id).where(C.tenant == "", C.deleted_at.is_(None)).where(*_matching(common)).limit(7)
        with connection.begin():
            ids = [row[0] for row in connection.execute(few)]
            connection.execute(sa.update(t.sessions).where(C.session_id.in_(ids)).values({column: "rare"}))
        request = asked({name: "rare"} | common, None, descending=True, offset=0)
        assert ran(connection, mariadb_lists.list_sessions(request)) == ran(connection, lists.list_sessions(request))
        before = rows_read(connection)
        found, _ = ran(connection, mariadb_lists.list_sessions(request))
        assert len(found) == 7
        assert rows_read(connection) - before <= 5 * PAGE


def _matching(filters: dict[str, str]) -> list[Any]:
    return [t.sessions.c[name] == value for name, value in filters.items()]


def test_every_session_is_on_a_page(filled_url: str) -> None:
    """Once, from cursor to cursor."""
    with SessionManager.open(filled_url) as manager:
        page = manager.list_sessions(limit=PAGE)
        seen = [*page.items]
        while page.next_cursor:
            page = manager.list_sessions(limit=PAGE, cursor=page.next_cursor)
            seen += page.items
    assert len({one.session_id for one in seen}) == len(seen)
    assert len(seen) == sum(1 for i in range(SESSIONS) if i % 4 and i % 10 != 3)


def test_a_page_is_of_one_moment(filled_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions that go between its two reads are still on it, so that it does not look like the last one."""
    plain = mariadb_lists._page_statement

    def meanwhile(*shape: Any) -> Statement:
        with migrate.connected(filled_url) as connection, connection.begin():
            connection.execute(sa.update(t.sessions).values(deleted_at=AT))
        return plain(*shape)

    with SessionManager.open(filled_url) as manager:
        expected = manager.list_sessions(limit=PAGE)
        monkeypatch.setattr(mariadb_lists, "_page_statement", meanwhile)
        assert manager.list_sessions(limit=PAGE) == expected
        assert manager.list_sessions(limit=PAGE).items == []

"""What the dashboard refuses, and what it does not tell: asked by a client that sends what no page of it would."""

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any, Final

import httpx2 as httpx
import pytest
import sqlalchemy as sa

from lifecycle import SessionManager
from tests.calling import PATIENCE
from tests.managers import connected
from tests.serving import serving


class Pages:
    """A browser's requests without a browser: it keeps the cookie and sends the token of its forms."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http
        found = re.search(r'name="csrf_token" value="([^"]+)"', http.get("/dashboard/sweeps").text)
        assert found
        self.token = found[1]

    def post(self, path: str, **data: Any) -> httpx.Response:
        """Send a form."""
        headers = {"X-CSRF-Token": self.token, "Origin": str(self.http.base_url).rstrip("/")}
        return self.http.post(f"/dashboard{path}", data=data, headers=headers)


@contextlib.contextmanager
def opened(url: str, key: str | None = None) -> Iterator[Pages]:
    """The pages, logged in to if there is a key."""
    with httpx.Client(base_url=url, timeout=PATIENCE) as http:
        if key is not None:
            assert http.post("/login", data={"key": key}).status_code == 303
        yield Pages(http)


@pytest.fixture
def pages(migrated_sqlite_url: str) -> Iterator[Pages]:
    """The dashboard in the open mode."""
    with serving(migrated_sqlite_url) as served, opened(served.url) as made:
        yield made


BAD_PICKS: Final = {
    "brackets": "[" * 100_000, "few brackets": "[" * 6000, "half a pair": '["","\\ud800"]', "no JSON": "x", "empty": "",
    "an object": '{"ab": 1, "cd": 2}', "two letters": '"ab"', "one": '["a"]', "numbers": "[1, 2]",
    "long": json.dumps(["", "x" * 10_000]),
}  # fmt: skip


@pytest.mark.parametrize("pick", BAD_PICKS.values(), ids=BAD_PICKS)
def test_a_pick_that_no_box_sends_is_refused(pages: Pages, pick: str) -> None:
    """With a page that says what was expected."""
    answer = pages.post("/sessions/bulk", action="suspend", pick=pick)
    assert (answer.status_code, "session id&#34;] as JSON" in answer.text) == (400, True), answer.text[:500]


def test_the_longest_ids_can_be_picked(pages: Pages) -> None:
    """Whatever characters they are of: nothing is there, which each result says."""
    pick = json.dumps(["", "🎉" * 255])
    answer = pages.post("/sessions/bulk", action="suspend", pick=pick)
    assert (answer.status_code, "🎉" * 255 in answer.text) == (200, True)


@pytest.mark.parametrize("scope", ["read", "write"])
@pytest.mark.parametrize("run", ["", "1"])
def test_sweeps_and_their_previews_are_an_admins(migrated_sqlite_url: str, scope: str, run: str) -> None:
    """As in the API: both look through everybody's sessions of the tenant."""
    with SessionManager.open(migrated_sqlite_url) as manager:
        keys = {one: str(manager.create_key(one, scope=one).key) for one in (scope, "admin")}
    with (
        serving(migrated_sqlite_url) as served,
        opened(served.url, keys[scope]) as narrow,
        opened(served.url, keys["admin"]) as admin,
    ):
        assert narrow.post("/sweeps", sweep="delete_ghosts", run=run).status_code == 403
        assert 'id="preview"' not in narrow.http.get("/dashboard/sweeps").text
        assert admin.post("/sweeps", sweep="delete_ghosts", run=run).status_code == 200
        assert 'id="preview"' in admin.http.get("/dashboard/sweeps").text


def test_a_database_that_fails_is_not_described(migrated_postgres_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither on the page of an error nor among the results of many: the driver's text is in the log."""
    with SessionManager.open(migrated_postgres_url) as manager:
        manager.create_session(session_id="s-1")
    with serving(migrated_postgres_url) as served, opened(served.url) as pages:
        with connected(migrated_postgres_url) as connection:
            connection.execute(sa.text("ALTER TABLE session_transitions ALTER reason TYPE int USING 1"))
        answers = [
            pages.post("/sessions/bulk", action="suspend", pick='["", "s-1"]', reason="x"),
            pages.post("/session/move", id="s-1", trigger="suspend", reason="x"),
        ]
    assert [answer.status_code for answer in answers] == [200, 503]
    for answer in answers:
        assert "the database does not answer" in answer.text.lower()
        assert "integer" not in answer.text
    said = {one.msg["event"]: one.msg for one in caplog.records if isinstance(one.msg, dict)}
    assert "integer" in said["bulk_not_done"]["error"]
    assert "integer" in said["page_failed"]["error"]

"""The HTTP API over real HTTP, on every database: routes, ids, ETags, leases, pages, and what is refused."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, urlsplit

import httpx2 as httpx
import pytest
import sqlalchemy as sa

from lifecycle import ALL, SessionManager, states
from lifecycle.models import tables as t
from tests.calling import PROBLEM, Api, calling, raw, refused
from tests.managers import backdate, connected
from tests.serving import serving

PAST: Final = datetime(2020, 1, 1, tzinfo=UTC)
AWKWARD: Final = (
    "a/b", "..", ".", "//", "a%2Fb", "100%", "agent:main:suspend", ":suspend", "x:touch", "a b?c#d&e=f", "ünï/☃/🎉", "~", "'\"\\",
)  # fmt: skip


@pytest.fixture
def api(shared_url: str) -> Iterator[Api]:
    """A client of a server, on each database in turn."""
    with serving(shared_url) as served, calling(served.url) as made:
        yield made


@pytest.fixture
def sqlite_api(migrated_sqlite_url: str) -> Iterator[Api]:
    """A client of a server on SQLite, for what no database has a say in."""
    with serving(migrated_sqlite_url) as served, calling(served.url) as made:
        yield made


# Sessions.


def test_a_session_is_created_read_changed_and_removed(api: Api) -> None:
    """Each answer has the version as its ETag; the new one says where it is."""
    made = api(
        "POST", "/sessions", {"session_id": "s-1", "title": "Late", "metadata": {"ticket": 17}, "idle_timeout": "30m"}
    )
    assert (made.status_code, made.headers["etag"], made.headers["location"]) == (201, '"1"', "/api/v1/sessions/s-1")
    assert (made.json()["idle_active"], made.json()["metadata"]) == (1800, {"ticket": 17})
    assert api.ok("GET", "/sessions/s-1") == made.json()
    changed = api("PATCH", "/sessions/s-1", {"title": None, "metadata": {"a": [1, {"b": None}]}, "protected": True})
    assert (changed.status_code, changed.headers["etag"]) == (200, '"2"')
    assert (changed.json()["title"], changed.json()["metadata"]) == (None, {"a": [1, {"b": None}]})
    refused(api("DELETE", "/sessions/s-1"), 403, "SessionProtected")
    assert api("DELETE", "/sessions/s-1?force=true").status_code == 204
    assert refused(api("GET", "/sessions/s-1"), 404, "SessionNotFound")["session_id"] == "s-1"
    refused(api("DELETE", "/sessions/s-1"), 404, "SessionNotFound")
    assert [one["trigger"] for one in api.ok("GET", "/sessions/s-1/transitions")["items"]] == ["delete"]


def test_a_session_is_opened_once(api: Api) -> None:
    """The first PUT creates it, the next ones get it; with `If-None-Match: *` it is only created."""
    first = api("PUT", "/sessions/s-1", {"kind": "cron"})
    again = api("PUT", "/sessions/s-1", {"kind": "chat"})
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    refused(api("PUT", "/sessions/s-1", If_None_Match="*"), 412, "PreconditionFailed")
    assert api("PUT", "/sessions/s-2", If_None_Match="*").status_code == 201
    assert api("DELETE", "/sessions/s-1?soft=true").status_code == 204
    refused(api("PUT", "/sessions/s-1"), 409, "SessionExists")
    assert api.ok("POST", "/sessions/s-1:undelete")["deleted_at"] is None


@pytest.mark.parametrize("session_id", AWKWARD)
def test_an_id_may_hold_any_text(sqlite_api: Api, session_id: str) -> None:
    """Percent-encoded it is one segment of a path, whatever it holds; where it is made says how."""
    path = "/sessions/" + quote(session_id, safe="").replace(".", "%2E")
    host = urlsplit(sqlite_api.base).netloc

    def sent(method: str, suffix: str, body: Any = None) -> tuple[int, Any]:
        # Byte for byte: clients fold `%2E%2E` into the path above.
        content = json.dumps(body).encode()
        head = f"{method} /api/v1{path}{suffix} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        answer = raw(sqlite_api.base, head.encode() + content)
        status, _, rest = answer.partition(b" ")[2].partition(b" ")
        return int(status), rest.partition(b"\r\n\r\n")[2]

    made = sqlite_api("POST", "/sessions", {"session_id": session_id})
    assert made.json()["session_id"] == session_id
    assert unencoded(made.headers["location"]) == unencoded("/api/v1" + path)
    status, body = sent("GET", "")
    assert (status, json.loads(body)["session_id"]) == (200, session_id)
    assert sent("POST", "/messages", {"role": "user", "content": "x", "message_id": session_id})[0] == 201
    assert sent("POST", ":suspend", {})[0] == 200
    assert sent("POST", ":touch", {})[0] == 200
    assert [one["trigger"] for one in json.loads(sent("GET", "/transitions")[1])["items"]] == ["create", "suspend"]
    assert sent("DELETE", f"/messages/{path.rpartition('/')[2]}", {})[0] == 204
    assert sent("DELETE", "", {})[0] == 204
    assert sqlite_api.ok("GET", "/sessions")["items"] == []


def unencoded(path: str) -> str:
    """A path in one spelling, its slashes and percent signs left encoded."""
    return path.replace("%2E", ".").replace("%7E", "~")


def test_the_end_of_an_id_is_not_taken_for_what_is_to_be_done(sqlite_api: Api) -> None:
    """A colon that is sent encoded belongs to the id; one that is not begins the verb of a POST, and of nothing else."""
    for session_id in ("agent:main", "agent:main:suspend"):
        sqlite_api.ok("POST", "/sessions", {"session_id": session_id})
    assert sqlite_api.ok("GET", "/sessions/agent:main:suspend")["session_id"] == "agent:main:suspend"
    refused(sqlite_api("POST", "/sessions/agent%3Amain%3Asuspend"), 405, "MethodNotAllowed")
    assert sqlite_api.ok("POST", "/sessions/agent:main%3Asuspend:suspend")["session_id"] == "agent:main:suspend"
    assert sqlite_api.ok("GET", "/sessions/agent:main")["state"] == "active"
    assert sqlite_api.ok("POST", "/sessions/agent:main:suspend")["session_id"] == "agent:main"


def test_every_trigger_has_a_route(api: Api) -> None:
    """The machine's table is the API's: each trigger moves, an illegal one says what is allowed, a repeat changes nothing."""
    for row in states.TRANSITIONS:
        session_id = f"s-{row.trigger}"
        api.ok("PUT", f"/sessions/{session_id}")
        if row.sources != ("active",) and "active" not in row.sources:
            there = next(one.trigger for one in states.TRANSITIONS if one.target == row.sources[0])
            api.ok("POST", f"/sessions/{session_id}:{there}")
        moved = api.ok("POST", f"/sessions/{session_id}:{row.trigger}", {"reason": "why", "actor": "ada"})
        assert (moved["state"], moved["reason"]) == (row.target, "why")
        assert api.ok("POST", f"/sessions/{session_id}:{row.trigger}") == moved
        assert api.ok("GET", f"/sessions/{session_id}/transitions")["items"][-1]["actor"] == "local/ada"
    problem = refused(api("POST", "/sessions/s-end:resume"), 409, "InvalidTransition")
    assert (problem["state"], problem["allowed"]) == ("ended", [])


def test_a_status_is_patched(api: Api) -> None:
    """By the trigger that leads there from where the session is, and not together with anything else."""
    api.ok("PUT", "/sessions/s-1")

    def patch(status: str, **more: Any) -> httpx.Response:
        return api("PATCH", "/sessions/s-1", {"status": status, **more})

    for status in ("suspended", "active", "expired", "active", "completed"):
        assert patch(status, reason="so").json()["state"] == status
    triggers = [one["trigger"] for one in api.ok("GET", "/sessions/s-1/transitions")["items"]]
    assert triggers == ["create", "suspend", "resume", "expire", "reopen", "complete"]
    refused(patch("active"), 409, "InvalidTransition")
    refused(patch("ended", title="x"), 422, "InvalidArgument")
    refused(api("PATCH", "/sessions/s-1", {"title": "x", "reason": "y"}), 422, "InvalidArgument")
    refused(api("PATCH", "/sessions/s-2", {"status": "active"}), 404, "SessionNotFound")


# Versions.


def test_a_stale_write_is_refused(api: Api) -> None:
    """`If-Match` guards changes, saves and transitions: 412 with both versions, and nothing is written."""
    api.ok("PUT", "/sessions/s-1")
    api.ok("PATCH", "/sessions/s-1/state", {"context": 1}, If_Match='"1"')
    for method, path, body in (
        ("PATCH", "/sessions/s-1", {"title": "x"}),
        ("PATCH", "/sessions/s-1", {"status": "ended"}),
        ("PATCH", "/sessions/s-1/state", {"context": 2}),
        ("PUT", "/sessions/s-1/state", {"context": 2}),
        ("POST", "/sessions/s-1:suspend", None),
    ):
        problem = refused(api(method, path, body, If_Match='"1"'), 412, "VersionConflict")
        assert (problem["expected"], problem["current"]) == (1, 2)
        refused(api(method, path, body, If_Match='W/"2"'), 412, "PreconditionFailed")
        refused(api(method, path, body, If_Match='"x"'), 412, "PreconditionFailed")
        refused(api(method, path, body, If_Match="2"), 400, "InvalidHeader")
    assert api.ok("GET", "/sessions/s-1")["version"] == 2
    assert api.ok("POST", "/sessions/s-1:suspend", If_Match='"2"')["version"] == 3
    # Done already: what its answer was lost for may be sent again as it was.
    assert api.ok("POST", "/sessions/s-1:suspend", If_Match='"2"')["version"] == 3
    assert api.ok("PATCH", "/sessions/s-1", {"title": "x"}, If_Match="*")["version"] == 4


MATCH: Final = {"If_Match": '"99"'}
HELD: Final = {"Lease_Holder": "w", "Lease_Epoch": "1"}


@pytest.mark.parametrize(
    ("method", "path", "body", "headers"),
    [
        ("DELETE", "/sessions/s-1", None, MATCH),
        ("DELETE", "/sessions/s-1", None, {"If_Match": "*"}),
        ("DELETE", "/sessions/s-1", None, {"If_None_Match": "*"}),
        ("DELETE", "/sessions/s-1?force=true", None, HELD),
        ("DELETE", "/sessions/s-1", None, {"Lease_Epoch": "1"}),
        ("PUT", "/sessions/s-1", None, MATCH),
        ("PUT", "/sessions/s-2", None, HELD),
        ("POST", "/sessions", {}, MATCH),
        ("POST", "/sessions", {}, {"If_None_Match": "*"}),
        ("POST", "/sessions/s-1/checkpoints/2:restore", None, MATCH),
        ("POST", "/sessions/s-1/messages", {"role": "user", "content": "x"}, MATCH),
        ("POST", "/sessions/s-1/messages:pop", None, MATCH),
        ("POST", "/sessions/s-1:fork", None, MATCH),
        ("POST", "/sessions/s-1:undelete", None, HELD),
        ("POST", "/sessions/s-1:touch", None, MATCH),
        ("POST", "/sessions/s-1/lease", None, MATCH),
        ("POST", "/sessions/s-1/approvals", {"action": "x"}, MATCH),
        ("PATCH", "/sessions/s-1/state", {"step": 9}, {"If_None_Match": "*"}),
        ("POST", "/sweeps/delete_ghosts", None, MATCH),
        ("DELETE", "/users/ada", None, MATCH),
        ("GET", "/sessions/s-1", None, MATCH),
    ],
)  # fmt: skip
def test_a_condition_that_cannot_be_kept_is_refused(
    sqlite_api: Api, migrated_sqlite_url: str, method: str, path: str, body: Any, headers: dict[str, str]
) -> None:
    """Rather than left out: 400 names header and route, and nothing is done."""
    sqlite_api.ok("PUT", "/sessions/s-1", {"context": {"a": 1}, "user_id": "ada"})
    sqlite_api.ok("POST", "/sessions/s-1/checkpoints", {"label": "x"})
    sqlite_api.ok("POST", "/sessions/s-1/messages", {"role": "user", "content": "x"})

    def picture() -> list[Any]:
        with connected(migrated_sqlite_url) as connection:
            tables = (t.sessions, t.messages, t.checkpoints, t.approvals, t.transitions)
            return [tuple(row) for table in tables for row in connection.execute(sa.select(table))]

    before = picture()
    problem = refused(sqlite_api(method, path, body, **headers), 400, "InvalidHeader")
    assert problem["detail"].startswith(next(iter(headers)).replace("_", "-") + f": {method} /api/v1/")
    assert picture() == before


def test_a_read_takes_no_notice_of_a_lease(sqlite_api: Api) -> None:
    """A client may send its lease with all it sends about a session."""
    sqlite_api.ok("PUT", "/sessions/s-1")
    sqlite_api.ok("GET", "/sessions/s-1", **HELD)


@pytest.mark.parametrize("text", ['{"\\u0000": 1}', '{"a": "\\u0000"}', '{"\\ud800": 1}', '{"a": "\\udfff"}'])
def test_a_filter_that_no_database_can_be_asked_for_is_refused(api: Api, text: str) -> None:
    """Here and not by the database, which would be taken for away."""
    answer = api("GET", "/sessions?metadata=" + quote(text))
    assert answer.status_code in {400, 422}
    assert answer.json()["error"] in {"InvalidArgument", "InvalidJson"}


def test_metadata_of_any_text_stops_no_filter(api: Api) -> None:
    """U+0000 can be stored; lists that are filtered by other values go on, and find what looks like it too."""
    odd = {"a\x00b": 1, "c": "x\x00", "\\u0000": "\\u0000", "d": "\\"}
    api.ok("PUT", "/sessions/odd", {"metadata": odd})
    api.ok("PUT", "/sessions/even", {"metadata": {"c": "x", "ticket": 17}})
    for wanted, found in (
        ({"ticket": 17}, ["even"]), ({"c": "x"}, ["even"]), ({"\\u0000": "\\u0000"}, ["odd"]), ({"d": "\\"}, ["odd"]),
        ({"a": 1}, []),
    ):  # fmt: skip
        page = api.ok("GET", "/sessions?metadata=" + quote(json.dumps(wanted)))
        assert [one["session_id"] for one in page["items"]] == found, wanted


def test_what_is_known_is_not_sent_again(sqlite_api: Api) -> None:
    """`If-None-Match` with the version that it still has: 304, without a body."""
    sqlite_api.ok("PUT", "/sessions/s-1", {"context": {"a": 1}})
    for path in ("/sessions/s-1", "/sessions/s-1/state"):
        tag = sqlite_api("GET", path).headers["etag"]
        for known in (tag, f"W/{tag}", f'"x", {tag}', "*"):
            answer = sqlite_api("GET", path, If_None_Match=known)
            assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
        assert sqlite_api("GET", path, If_None_Match='"99"').status_code == 200
        refused(sqlite_api("GET", path, If_None_Match="99"), 400, "InvalidHeader")


# State and messages.


def test_states_are_saved_whole_and_in_part(api: Api) -> None:
    """PATCH leaves what it does not name, PUT empties it; documents come back as they were sent."""
    context = {"big": 2**70, "float": 1e22, "minus": -0.0, "text": "\u0000☃", "deep": [[[None]]]}
    api.ok("PUT", "/sessions/s-1")
    refused(api("GET", "/sessions/s-1/state"), 404, "StateNotFound")
    refused(api("GET", "/sessions/s-2/state"), 404, "SessionNotFound")
    assert api.ok("PATCH", "/sessions/s-1/state", {"context": context, "conversation": [1], "step": 1, "phase": "a"})
    assert api.ok("PATCH", "/sessions/s-1/state", {"append": [{"b": 2}]}) == {"version": 3}
    saved = api("GET", "/sessions/s-1/state")
    assert saved.headers["etag"] == '"3"'
    assert (saved.json()["context"], saved.json()["conversation"], saved.json()["step"]) == (context, [1, {"b": 2}], 1)
    assert saved.text.count("1e+22") + saved.text.count("1e22") == 1
    assert "-0.0" in saved.text
    api.ok("PUT", "/sessions/s-1/state", {"plan": ["p"]})
    emptied = api.ok("GET", "/sessions/s-1/state")
    assert [emptied[name] for name in ("conversation", "context", "plan", "phase", "step")] == [
        [],
        None,
        ["p"],
        None,
        None,
    ]
    api.ok("POST", "/sessions/s-1:end")
    refused(api("GET", "/sessions/s-1/state"), 404, "StateNotFound")
    assert api.ok("GET", "/sessions/s-1/state?any_state=true")["plan"] == ["p"]
    refused(api("PATCH", "/sessions/s-1/state", {"step": 2}), 409, "InvalidTransition")


def test_a_save_is_repeated_safely(api: Api) -> None:
    """By the token in its body, or by `Idempotency-Key`: the first one's version comes back, and nothing is added twice."""
    api.ok("PUT", "/sessions/s-1")
    for _ in range(2):
        assert api.ok("PATCH", "/sessions/s-1/state", {"append": [1], "token": "one"}) == {"version": 2}
    for _ in range(2):
        assert api.ok("PATCH", "/sessions/s-1/state", {"append": [2]}, Idempotency_Key="two") == {"version": 3}
    refused(api("PATCH", "/sessions/s-1/state", {"append": [3]}, Idempotency_Key="two"), 409, "TokenReused")
    assert api.ok("GET", "/sessions/s-1/state")["conversation"] == [1, 2]


def test_checkpoints_are_kept_restored_and_forked(api: Api) -> None:
    """A checkpoint is a resource; going back to it is a save, going on from it elsewhere a new session."""
    api.ok("PUT", "/sessions/s-1", {"context": "first"})
    made = api("POST", "/sessions/s-1/checkpoints", {"label": "one", "data": {"x": 1}})
    seq = made.json()["seq"]
    assert made.headers["location"] == f"/api/v1/sessions/s-1/checkpoints/{seq}"
    api.ok("PATCH", "/sessions/s-1/state", {"context": "second"})
    assert [one["label"] for one in api.ok("GET", "/sessions/s-1/checkpoints")["items"]] == ["one"]
    assert api.ok("GET", f"/sessions/s-1/checkpoints/{seq}")["context"] == "first"
    forked = api("POST", "/sessions/s-1:fork", {"checkpoint": seq, "session_id": "a/b"})
    assert (forked.status_code, forked.headers["location"]) == (201, "/api/v1/sessions/a%2Fb")
    assert api.ok("GET", "/sessions/a%2Fb/state")["context"] == "first"
    assert api.ok("POST", f"/sessions/s-1/checkpoints/{seq}:restore") == {"version": 3}
    assert api.ok("GET", "/sessions/s-1/state")["context"] == "first"
    refused(api("POST", "/sessions/s-1/checkpoints/99:restore"), 404, "CheckpointNotFound")
    refused(api("GET", "/sessions/s-1/checkpoints/99"), 404, "CheckpointNotFound")
    refused(api("POST", "/sessions/s-1:fork", {"session_id": "a/b"}), 409, "SessionExists")


def test_messages_are_added_paged_popped_and_removed(api: Api) -> None:
    """One or many at once; `Link` leads through them in both directions."""
    api.ok("PUT", "/sessions/s-1")
    one = api("POST", "/sessions/s-1/messages", {"role": "user", "content": "0", "message_id": "m/0"})
    assert (one.status_code, one.json()["content"]) == (201, "0")
    many = [{"role": "assistant", "content": [{"n": n}], "metadata": {"n": n}} for n in range(1, 7)]
    assert [m["content"][0]["n"] for m in api.ok("POST", "/sessions/s-1/messages", {"messages": many})["items"]] == [
        *range(1, 7)
    ]
    assert paged(api, "/sessions/s-1/messages?limit=3", "next") == [["0", 1, 2], [3, 4, 5], [6]]
    assert paged(api, f"/sessions/s-1/messages?limit=3&before={10**6}", "prev") == [[4, 5, 6], [1, 2, 3], ["0"]]
    assert api.ok("POST", "/sessions/s-1/messages:pop")["metadata"] == {"n": 6}
    assert api("DELETE", "/sessions/s-1/messages/m%2F0").status_code == 204
    refused(api("DELETE", "/sessions/s-1/messages/m%2F0"), 404, "MessageNotFound")
    refused(api("POST", "/sessions/s-2/messages", {"role": "user", "content": "x"}), 404, "SessionNotFound")
    api.ok("POST", "/sessions/s-1/messages", {"role": "user", "content": "x", "message_id": "m"})
    refused(
        api("POST", "/sessions/s-1/messages", {"role": "user", "content": "y", "message_id": "m"}), 409, "MessageExists"
    )


def paged(api: Api, path: str, rel: str) -> list[list[Any]]:
    """What each page holds, as `Link` leads through them."""
    pages = []
    while path:
        answer = api("GET", path)
        assert answer.status_code == 200, answer.text
        pages.append(
            [
                one["content"] if isinstance(one["content"], str) else one["content"][0]["n"]
                for one in answer.json()["items"]
            ]
        )
        path = answer.links[rel]["url"].removeprefix("/api/v1") if rel in answer.links else ""
    return pages


# Lists.


def test_lists_are_filtered_and_paged(api: Api) -> None:
    """Every filter of `list_sessions` is there; `Link` goes through all pages, each session once."""
    for n in range(7):
        api.ok(
            "PUT",
            f"/sessions/s-{n}",
            {
                "kind": "odd" if n % 2 else "even",
                "user_id": f"u{n % 3}",
                "metadata": {"n": n},
                "title": f"Order {n} späť",
            },
        )
    seen, path = [], "/sessions?limit=3&sort=session_id&order=asc"
    while path:
        page = api("GET", path)
        seen.append([one["session_id"] for one in page.json()["items"]])
        path = page.links["next"]["url"].removeprefix("/api/v1") if "next" in page.links else ""
    assert seen == [["s-0", "s-1", "s-2"], ["s-3", "s-4", "s-5"], ["s-6"]]

    def found(query: str) -> set[str]:
        return {one["session_id"] for one in api.ok("GET", f"/sessions?{query}")["items"]}

    assert found("kind=odd") == {"s-1", "s-3", "s-5"}
    assert found("user_id=u0&kind=even") == {"s-0", "s-6"}
    assert found("metadata=" + quote('{"n": 4}')) == {"s-4"}
    assert found("search=" + quote("3 SPÄ")) == {"s-3"}
    assert found("state=suspended") == set()
    assert found("since=2999-01-01T00:00:00Z") == set()
    counted = api.ok("GET", "/sessions?count=true&limit=2&kind=odd")
    assert (counted["total"], len(counted["items"]), counted["has_more"]) == (3, 2, True)
    for query in (
        "limit=0", "limit=1001", "sort=kind", "order=up", "state=gone", "cursor=x", "metadata=x", "metadata=1", "since=x",
        "since=2020-01-01", "offset=-1", "cursor=&offset=3", "metadata=" + quote('{"a": {"b": 1}}'), "since=0001-01-01T00:00:00%2B14:00",
    ):  # fmt: skip
        answer = api("GET", f"/sessions?{query}")
        assert (answer.status_code in {400, 422}, answer.headers["content-type"]) == (True, PROBLEM), query


# Leases.


def test_a_lease_fences_what_is_written(api: Api) -> None:
    """Who holds it writes with holder and epoch; others are told who has it; who lost it is told that."""
    api.ok("PUT", "/sessions/s-1")
    taken = api("POST", "/sessions/s-1/lease", {"holder": "wörker/1", "ttl": 60})
    lease = taken.json()
    assert (taken.status_code, lease["holder"], lease["epoch"]) == (201, "wörker/1", 1)
    assert api.ok("GET", "/sessions/s-1/lease") == lease
    held = {"Lease_Holder": quote(lease["holder"], safe=""), "Lease_Epoch": str(lease["epoch"])}
    busy = api("PATCH", "/sessions/s-1/state", {"step": 1})
    assert refused(busy, 423, "SessionBusy")["holder"] == "wörker/1"
    assert 1 <= int(busy.headers["retry-after"]) <= 60
    refused(api("POST", "/sessions/s-1/lease", {"holder": "other"}), 423, "SessionBusy")
    refused(api("POST", "/sessions/s-1/messages", {"role": "user", "content": "x"}), 423, "SessionBusy")
    assert api.ok("PATCH", "/sessions/s-1/state", {"step": 1}, **held) == {"version": 2}
    api.ok("POST", "/sessions/s-1/messages", {"role": "user", "content": "x"}, **held)
    api.ok("POST", "/sessions/s-1/checkpoints", {"label": "x"}, **held)
    renewed = api.ok("PUT", "/sessions/s-1/lease", {"ttl": 120}, **held)
    assert renewed["expires_at"] > lease["expires_at"]
    # An operator's transition takes it away.
    api.ok("POST", "/sessions/s-1:suspend")
    for method, path, body in (
        ("POST", "/sessions/s-1:resume", None),
        ("PUT", "/sessions/s-1/lease", None),
        ("DELETE", "/sessions/s-1/lease", None),
        ("POST", "/sessions/s-1/messages", {"role": "user", "content": "x"}),
    ):
        assert refused(api(method, path, body, **held), 409, "LeaseLost")["epoch"] == 1
    refused(api("GET", "/sessions/s-1/lease"), 404, "LeaseNotFound")
    again = api.ok("POST", "/sessions/s-1/lease")
    now = {"Lease_Holder": again["holder"], "Lease_Epoch": str(again["epoch"])}
    assert api("DELETE", "/sessions/s-1/lease", **now).status_code == 204
    refused(api("DELETE", "/sessions/s-2/lease", **now), 404, "SessionNotFound")


@pytest.mark.parametrize(
    "headers", [{"Lease_Holder": "x"}, {"Lease_Epoch": "1"}, {"Lease_Holder": "%FF", "Lease_Epoch": "1"}, {"Lease_Holder": "x", "Lease_Epoch": "-1"}]
)  # fmt: skip
def test_half_a_lease_is_refused(sqlite_api: Api, headers: dict[str, str]) -> None:
    """Rather than taken for none."""
    sqlite_api.ok("PUT", "/sessions/s-1")
    answer = sqlite_api("PATCH", "/sessions/s-1/state", {"step": 1}, **headers)
    assert (answer.status_code in {400, 422}, answer.headers["content-type"]) == (True, PROBLEM)


def test_work_is_claimed_and_handed_back(api: Api) -> None:
    """Each session to one worker, whose epoch the session tells."""
    for n in range(3):
        api.ok("PUT", f"/sessions/s-{n}", {"kind": "copilot", "available_at": "2020-01-01T00:00:00Z"})
    first = api.ok("POST", "/sessions:claim", {"kinds": ["copilot"], "holder": "one", "limit": 2})["items"]
    second = api.ok("POST", "/sessions:claim", {"kinds": ["copilot"], "holder": "two", "limit": 2})["items"]
    assert (len(first), len(second)) == (2, 1)
    assert {one["lease_holder"] for one in first} == {"one"}
    held = {"Lease_Holder": "two", "Lease_Epoch": str(second[0]["lease_epoch"])}
    path = f"/sessions/{second[0]['session_id']}/lease"
    assert api("DELETE", f"{path}?retry_in=0&forget=true", **held).status_code == 204
    taken = api.ok("POST", "/sessions:claim", {"kinds": ["copilot"], "holder": "two"})["items"]
    assert [one["session_id"] for one in taken] == [second[0]["session_id"]]


# People, sockets, upkeep.


def test_approvals_wait_for_a_decision(api: Api) -> None:
    """A session that waits is suspended, and goes on when it is decided, which happens once."""
    api.ok("PUT", "/sessions/a%2Fb")
    asked = api(
        "POST",
        "/sessions/a%2Fb/approvals",
        {"action": "refund", "suspend": True, "approval_id": "r/1", "details": {"eur": 40}},
    )
    assert asked.status_code == 201
    assert api.ok("GET", "/sessions/a%2Fb")["state"] == "suspended"
    assert [one["approval_id"] for one in api.ok("GET", "/approvals")["items"]] == ["r/1"]
    decided = api.ok("POST", "/sessions/a%2Fb/approvals/r%2F1:resolve", {"approved": True, "note": "fine", "by": "ada"})
    assert (decided["state"], decided["resolved_by"]) == ("approved", "local/ada")
    assert api.ok("POST", "/sessions/a%2Fb/approvals/r%2F1:resolve", {"approved": True}) == decided
    refused(api("POST", "/sessions/a%2Fb/approvals/r%2F1:resolve", {"approved": False}), 409, "ApprovalResolved")
    refused(api("POST", "/sessions/a%2Fb/approvals/x:resolve", {"approved": False}), 404, "ApprovalNotFound")
    assert api.ok("GET", "/sessions/a%2Fb")["state"] == "active"
    assert api.ok("GET", "/approvals")["items"] == []
    assert len(api.ok("GET", "/sessions/a%2Fb/approvals")["items"]) == 1


def test_connections_are_opened_beaten_and_closed(api: Api) -> None:
    """A connection is a resource of its session."""
    api.ok("PUT", "/sessions/s-1")
    opened = api("POST", "/sessions/s-1/connections", {"connection_id": "c/1", "client": {"x": 1}})
    assert (opened.status_code, opened.headers["location"]) == (201, "/api/v1/sessions/s-1/connections/c%2F1")
    assert api("POST", "/sessions/s-1/connections/c%2F1:beat").status_code == 204
    assert [one["connection_id"] for one in api.ok("GET", "/connections")["items"]] == ["c/1"]
    assert api("DELETE", "/sessions/s-1/connections/c%2F1").status_code == 204
    refused(api("POST", "/sessions/s-1/connections/c%2F1:beat"), 404, "ConnectionNotFound")
    refused(api("DELETE", "/sessions/s-1/connections/c%2F1"), 404, "ConnectionNotFound")
    assert api.ok("GET", "/sessions/s-1/connections")["items"] == []


def test_sweeps_are_previewed_then_run(api: Api, shared_url: str) -> None:
    """The preview counts what the sweep then does."""
    for n in range(3):
        api.ok("PUT", f"/sessions/s-{n}", {"context": 1})
    backdate(shared_url, t.sessions, expires_at=PAST)
    preview = api.ok("POST", "/sweeps/expire_idle", {"dry_run": True})
    assert (preview["count"], preview["dry_run"]) == (3, True)
    assert api.ok("POST", "/sweeps/expire_idle")["count"] == 3
    assert api.ok("GET", "/stats")["by_state"]["expired"] == 3
    backdate(shared_url, t.sessions, prune_at=PAST)
    assert api.ok("POST", "/sweeps/prune_sessions", {"states": ["expired"]})["count"] == 3
    for name in ("delete_ghosts", "expire_approvals", "reap_connections"):
        assert api.ok("POST", f"/sweeps/{name}")["count"] == 0
    assert api.ok("POST", "/sweeps/cleanup_stale_sessions", {"max_age": "1h"})["count"] == 0
    assert api.ok("POST", "/sweeps/trim") == {"removed": 0}
    refused(api("POST", "/sweeps/prune_sessions", {"states": ["active"]}), 422, "InvalidArgument")
    assert api.ok("POST", "/policies:apply", {"dry_run": True}) == {"changed": 0, "dry_run": True}
    assert api.ok("GET", "/workers") == {"workers": [], "jobs": []}


def test_the_last_run_of_a_sweep_is_told(api: Api, shared_url: str) -> None:
    """As the worker left it."""
    with SessionManager.open(shared_url, ALL) as manager:
        manager.beat_worker("w-1", host="h", pid=1, release="1.0")
        term = manager.take_job("expire_idle", holder="w-1", ttl=60)
        assert term is not None
        manager.end_job("expire_idle", holder="w-1", term=term, result=json.dumps({"count": 3}))
    (job,) = api.ok("GET", "/sweeps")["items"]
    assert (job["job"], job["slice"], job["last_result"]["count"]) == ("expire_idle", 0, 3)
    assert [one["release"] for one in api.ok("GET", "/workers")["workers"]] == ["1.0"]


def test_a_user_and_a_delegation_are_removed(api: Api) -> None:
    """With all that is theirs."""
    api.ok("PUT", "/sessions/parent", {"user_id": "ada/l"})
    api.ok("PUT", "/sessions/child", {"parent_id": "parent"})
    api.ok("PUT", "/sessions/grandchild", {"parent_id": "child"})
    refused(api("POST", "/sessions/parent:cleanup"), 422, "InvalidArgument")
    assert api.ok("POST", "/sessions/child:cleanup")["count"] == 2
    assert api.ok("DELETE", "/users/ada%2Fl") == {"removed": 1}
    assert api.ok("GET", "/sessions")["items"] == []


def test_many_sessions_are_touched_at_once(api: Api) -> None:
    """Those that are not there, or finished, are passed over."""
    api.ok("PUT", "/sessions/s-1")
    api.ok("PUT", "/sessions/s-2")
    api.ok("POST", "/sessions/s-2:end")
    assert api.ok("POST", "/sessions:touch", {"session_ids": ["s-1", "s-2", "s-3"]}) == {"touched": 1}
    assert api.ok("POST", "/sessions/s-1:touch") == {"touched": 1}
    refused(api("POST", "/sessions/s-2:touch"), 409, "InvalidTransition")


# Tenants.


def test_who_sees_all_tenants_says_whose_session_he_means(sqlite_api: Api) -> None:
    """Lists may be of everybody's; a single session is somebody's."""
    for tenant in ("a", "b"):
        sqlite_api.ok("PUT", "/sessions/s-1", {"title": tenant}, Lifecycle_Tenant=tenant)
    assert [
        one["tenant"] for one in sqlite_api.ok("GET", "/sessions?sort=title&order=asc", Lifecycle_Tenant="*")["items"]
    ] == ["a", "b"]
    refused(sqlite_api("GET", "/sessions/s-1", Lifecycle_Tenant="*"), 400, "TenantRequired")
    refused(sqlite_api("GET", "/sessions/s-1"), 404, "SessionNotFound")
    assert sqlite_api.ok("GET", "/sessions/s-1", Lifecycle_Tenant="b")["title"] == "b"


# What is refused before it is looked at.


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b"", 422, "InvalidArgument"),
        (b"{", 400, "InvalidJson"),
        (b"[]", 422, "InvalidArgument"),
        (b"nul", 400, "InvalidJson"),
        (b'{"title": "a", "title": "b"}', 400, "InvalidJson"),
        (b'{"metadata": {"a": NaN}}', 400, "InvalidJson"),
        (b'{"metadata": {"a": -Infinity}}', 400, "InvalidJson"),
        (b'{"metadata": {"a": 1e999}}', 422, "NotSerializable"),
        (b'{"title": "\\ud800"}', 400, "InvalidJson"),
        (b'{"\\udfff": 1}', 400, "InvalidJson"),
        (b'{"title": "\xff"}', 400, "InvalidJson"),
        (b"\xff\xfe{\x00}\x00", 400, "InvalidJson"),
        (b'{"title": "a\\u0000"}', 422, "InvalidArgument"),
        (b'{"session_id": "\\u0000"}', 422, "InvalidArgument"),
        (b'{"metadata": {"a": ' + b"9" * 5000 + b"}}", 400, "InvalidJson"),
        (b'{"metadata": {"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}", 400, "InvalidJson"),
        (b'{"metadata": {"a": ' + b"[" * 300 + b"]" * 300 + b"}}", 422, "NotSerializable"),
        (b'{"titel": "a"}', 422, "InvalidArgument"),
        (b'{"title": 1}', 422, "InvalidArgument"),
        (b'{"protected": "yes"}', 422, "InvalidArgument"),
        (b'{"session_id": ""}', 422, "InvalidArgument"),
        (b'{"available_at": "soon"}', 422, "InvalidArgument"),
        (b'{"available_at": "0001-01-01T00:00:00+14:00"}', 422, "InvalidArgument"),
        (b'{"available_at": "9999-12-31T23:59:59-14:00"}', 422, "InvalidArgument"),
        (b'{"idle_timeout": "soon"}', 422, "InvalidArgument"),
        (b'{"idle_timeout": 0}', 422, "InvalidArgument"),
        (b'{"idle_timeout": ' + b"9" * 400 + b"}", 422, "InvalidArgument"),
        (b'{"title": "' + b"x" * 201 + b'"}', 413, "LimitExceeded"),
        (b'{"metadata": {"a": "' + b"x" * 70_000 + b'"}}', 413, "LimitExceeded"),
    ],
)  # fmt: skip
def test_a_bad_body_is_a_problem(sqlite_api: Api, body: bytes, status: int, error: str) -> None:
    """That says what is wrong, whatever it is."""
    answer = sqlite_api.http.post(
        f"{sqlite_api.base}/api/v1/sessions", content=body, headers={"Content-Type": "application/json"}
    )
    assert refused(answer, status, error)["detail"]


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin-1",
        "application/xml",
        "x",
        "",
    ],
)
def test_only_json_is_taken(sqlite_api: Api, kind: str) -> None:
    """Anything else is 415, and so is a body that does not say what it is."""
    answer = sqlite_api.http.post(
        f"{sqlite_api.base}/api/v1/sessions", content=b"{}", headers={"Content-Type": kind} if kind else {}
    )
    refused(answer, 415, "UnsupportedMediaType")
    assert sqlite_api.ok("GET", "/sessions")["items"] == []


def test_what_is_not_there_is_a_problem_too(sqlite_api: Api) -> None:
    """Unknown paths and methods."""
    for path in (
        "",
        "/",
        "/nothing",
        "/sessions/",
        "/sessions//messages",
        "/sessions/a/b",
        "/sessions/a/messages/",
        "/sessions:nothing",
    ):
        refused(sqlite_api("GET", path), 404, "NotFound")
    refused(sqlite_api("POST", "/sessions/a:nothing"), 405, "MethodNotAllowed")
    refused(sqlite_api("DELETE", "/sessions"), 405, "MethodNotAllowed")
    assert sqlite_api("DELETE", "/sessions").headers["allow"] == "GET, POST"
    assert sqlite_api("POST", "/sessions/a").headers["allow"] == "DELETE, GET, PATCH, PUT"
    refused(sqlite_api("GET", "/sessions/%FF"), 422, "InvalidArgument")
    refused(sqlite_api("GET", "/sessions/%00"), 422, "InvalidArgument")
    refused(sqlite_api("GET", f"/sessions/{'x' * 256}"), 422, "InvalidArgument")


def test_a_database_that_fails_is_not_described(migrated_postgres_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """503 with `Retry-After`; what failed and why is in the log only."""
    with serving(migrated_postgres_url) as served, calling(served.url) as api:
        api.ok("PUT", "/sessions/s-1")
        with connected(migrated_postgres_url) as connection:
            connection.execute(sa.text("ALTER TABLE session_checkpoints ALTER label TYPE int USING 1"))
        answer = api("POST", "/sessions/s-1/checkpoints", {"label": "x"})
        problem = refused(answer, 503, "StorageUnavailable")
    assert "integer" not in answer.text
    assert (problem["outcome_unknown"], answer.headers["retry-after"]) == (False, "1")
    said = [one.msg for one in caplog.records if isinstance(one.msg, dict) and one.msg["event"] == "request_not_served"]
    assert "integer" in said[0]["problem"]


# The log.


def test_requests_are_logged_by_route_and_id(sqlite_api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """With the id that the client sent, or one of its own; without what the path, query or body named."""
    caplog.set_level("INFO")
    answer = sqlite_api("PUT", "/sessions/secret-1?x=secret-2", {"title": "secret-3"}, Request_Id="abc-1")
    assert answer.headers["request-id"] == "abc-1"
    assert len(sqlite_api("GET", "/sessions/secret-1").headers["request-id"]) == 36
    assert sqlite_api("GET", "/sessions/secret-1", Request_Id="a b").headers["request-id"] != "a b"
    lines = [one.msg for one in caplog.records if isinstance(one.msg, dict) and one.msg["event"] == "request"]
    (line,) = [one for one in lines if one["request_id"] == "abc-1"]
    assert (line["method"], line["route"], line["status"]) == ("PUT", "/api/v1/sessions/{session_id}", 201)
    assert line["seconds"] > 0
    assert "secret" not in str([str(one.msg) for one in caplog.records])

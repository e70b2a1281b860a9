"""`/events`: transitions as Server-Sent Events, gone on with after a break, and ended with the server."""

import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx2 as httpx
import pytest

from lifecycle import ALL, SessionManager
from lifecycle.web.api import events
from tests.calling import PATIENCE, Api, calling, refused, server_process, until
from tests.serving import Served, serving

AT_ONCE: Final = 8.0
"""Seconds in which a server must have stopped: less than the ten for which it waits for requests under way."""


@pytest.fixture
def served(shared_url: str) -> Iterator[Served]:
    """A server, on each database in turn."""
    with serving(shared_url) as opened:
        yield opened


@pytest.fixture
def api(served: Served) -> Iterator[Api]:
    """A client of it."""
    with calling(served.url) as made:
        yield made


class Event(dict[str, str]):
    """The fields of one event; `data` is read."""

    @property
    def told(self) -> tuple[str, str]:
        """Whose transition, and which."""
        data = json.loads(self["data"])
        return data["session_id"], data["trigger"]


class Stream:
    """An open stream of events."""

    def __init__(self, response: httpx.Response) -> None:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        self._lines = response.iter_lines()

    def __iter__(self) -> Iterator[Event]:
        """All that comes, until the server ends it."""
        event = Event()
        for line in self._lines:
            if not line:
                yield event
                event = Event()
            else:
                name, _, value = line.partition(":")
                event[name] = value.removeprefix(" ")

    def take(self, n: int) -> list[Event]:
        """The next transitions."""
        found: list[Event] = []
        for event in self:
            if "data" in event:
                assert event["event"] == "transition"
                found.append(event)
            if len(found) == n:
                break
        return found


@contextlib.contextmanager
def listening(url: str, query: str = "", **headers: str) -> Iterator[Stream]:
    """A stream that has begun."""
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    with (
        httpx.Client(timeout=PATIENCE) as client,
        client.stream("GET", f"{url}/api/v1/events{query}", headers=more) as answer,
    ):
        yield Stream(answer)


def test_a_transition_made_elsewhere_is_told(served: Served, shared_url: str) -> None:
    """By another process's manager, as it is committed: each once, in order, its line of the audit log with its cursor."""
    with SessionManager.open(shared_url) as manager, listening(served.url) as stream:
        manager.create_session(session_id="ä/1")
        manager.suspend_session("ä/1", reason="two\nlines", actor="ada")
        found = stream.take(2)
        assert [event.told for event in found] == [("ä/1", "create"), ("ä/1", "suspend")]
        line = json.loads(found[1]["data"])
        assert (line["reason"], line["actor"], line["from_state"], line["to_state"]) == (
            "two\nlines",
            "ada",
            "active",
            "suspended",
        )
        assert line["cursor"] == found[1]["id"]
        manager.delete_session("ä/1")
        assert [event.told for event in stream.take(1)] == [("ä/1", "delete")]


def test_a_client_that_comes_back_goes_on_where_it_was(served: Served, api: Api) -> None:
    """With `Last-Event-ID`, or `after`: nothing is passed over and nothing told twice, events made meanwhile come first."""
    for n in range(3):
        api.ok("PUT", f"/sessions/s-{n}")
    with listening(served.url, "?after=") as stream:
        first = stream.take(2)
    for n in range(3):
        api.ok("POST", f"/sessions/s-{n}:end")
    expected = [("s-2", "create"), ("s-0", "end"), ("s-1", "end"), ("s-2", "end")]
    with listening(served.url, Last_Event_ID=first[-1]["id"]) as stream:
        assert [event.told for event in stream.take(4)] == expected
    with listening(served.url, f"?after={first[-1]['id']}&timeout=0") as stream:
        assert [event.told for event in stream if "data" in event] == expected
    # The header counts where both are sent: a browser sends it when it comes back to the address with `after`.
    with listening(served.url, "?after=&timeout=0", Last_Event_ID=first[-1]["id"]) as stream:
        assert [event.told for event in stream if "data" in event] == expected


def test_where_a_stream_begins_is_told_before_its_first_event(served: Served, api: Api) -> None:
    """So that a client which is cut off before it goes on from there."""
    api.ok("PUT", "/sessions/before")
    with listening(served.url) as stream:
        began = next(iter(stream))
    assert ("data" in began, int(began["retry"]) > 0) == (False, True)
    api.ok("PUT", "/sessions/behind")
    with listening(served.url, "?timeout=0", Last_Event_ID=began["id"]) as stream:
        assert [event.told for event in stream if "data" in event] == [("behind", "create")]


def test_events_of_one_session_are_told(served: Served, api: Api) -> None:
    """With `session_id`, whatever it holds."""
    for session_id in ("a/b", "other"):
        api.ok("POST", "/sessions", {"session_id": session_id})
        api.ok("POST", f"/sessions/{quote(session_id, safe='')}:end")
    with listening(served.url, "?after=&timeout=0&session_id=a%2Fb") as stream:
        assert [event.told for event in stream if "data" in event] == [("a/b", "create"), ("a/b", "end")]


def test_each_tenant_hears_of_its_own(served: Served, api: Api, shared_url: str) -> None:
    """By key; who may see all hears of all."""
    with SessionManager.open(shared_url, ALL) as manager:
        keys = {name: manager.for_tenant(name).create_key("x", "write").key for name in ("a", "b")}
        everybody = manager.create_key("x", "read").key
    for tenant, key in keys.items():
        with calling(served.url, Authorization=f"Bearer {key}") as own:
            own.ok("PUT", f"/sessions/of-{tenant}")
    with listening(served.url, "?after=&timeout=0", Authorization=f"Bearer {keys['a']}") as stream:
        assert [event.told for event in stream if "data" in event] == [("of-a", "create")]
    all_of_them = {"Authorization": f"Bearer {everybody}", "Lifecycle_Tenant": "*"}
    with listening(served.url, "?after=&timeout=0", **all_of_them) as stream:
        assert {event.told for event in stream if "data" in event} == {("of-a", "create"), ("of-b", "create")}
    assert until(lambda: api("GET", "/events?timeout=0").status_code == 401, "the open mode to end")


@pytest.mark.parametrize(
    "cursor", ["x", "{}", "WyJ4IiwxLDFd", "WyJzcWxpdGUiLDk5OTk5OSwxXQ", "a" * 9000, "\u00e9".encode("latin-1")]
)
def test_a_cursor_that_is_none_is_a_problem(api: Api, cursor: Any) -> None:
    """Not a stream: of another database, from before it was set back, or made up."""
    answer = api.http.get(f"{api.base}/api/v1/events?timeout=0", headers={"Last-Event-ID": cursor})
    refused(answer, 422, "InvalidArgument")


def test_a_quiet_stream_is_kept_alive(migrated_sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By comments, which carry the place that it has come to."""
    monkeypatch.setattr(events, "KEEP_ALIVE", 0.05)
    with serving(migrated_sqlite_url) as served, listening(served.url) as stream:
        told = iter(stream)
        began = next(told)
        comment = next(told)
        assert comment == {"": "keep-alive", "id": began["id"]}


def test_a_client_that_goes_away_leaves_nothing_behind(served: Served, api: Api) -> None:
    """Its watch ends with it."""
    open_streams = served.app.state.service.streams
    with listening(served.url) as stream:
        next(iter(stream))
        assert len(open_streams) == 1
    until(lambda: not len(open_streams), "the watch to end")
    assert api("GET", "/sessions").status_code == 200


def test_a_server_with_open_streams_stops_at_once(migrated_sqlite_url: str, tmp_path: Path) -> None:
    """SIGTERM ends them in good order: clients read to the end, and a new stream is refused."""
    ended: list[list[Event]] = []
    with server_process(migrated_sqlite_url, tmp_path) as server:
        begun = threading.Barrier(4)

        def listen() -> None:
            with listening(server.url) as stream:
                told = iter(stream)
                next(told)
                begun.wait(PATIENCE)
                ended.append(list(told))

        threads = [threading.Thread(target=listen) for _ in range(3)]
        for thread in threads:
            thread.start()
        begun.wait(PATIENCE)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(PATIENCE)
        assert time.monotonic() - began < AT_ONCE
        for thread in threads:
            thread.join(PATIENCE)
    assert ended == [[], [], []]

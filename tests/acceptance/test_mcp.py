"""Agents keep their sessions over the Model Context Protocol: a real client, over stdio and HTTP, on every database."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx2 as httpx
import pytest

from lifecycle import SessionManager, Settings
from lifecycle.models import tables as t
from tests.calling import ROOT, refused
from tests.managers import backdate
from tests.serving import Served, serving

pytest.importorskip("mcp", reason="mcp is not installed")

import mcp
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import TextContent

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
Ask = Callable[..., Coroutine[Any, Any, Any]]
LONG_AGO: Final = datetime(2020, 1, 1, tzinfo=UTC)
READING: Final = {"list_sessions", "search_sessions", "show_session", "show_history", "stats", "list_stuck"}
WRITING: Final = {
    "create_session", "save_session", "add_message", "suspend_session", "resume_session", "complete_session",
    "end_session", "protect_session", "clean_up_after_delegation",
}  # fmt: skip
REMOVING: Final = {"prune_sessions"}


class Refusal(Exception):
    """What a tool refused, as the model reads it."""


def asking(client: mcp.Client) -> Ask:
    """What calls a tool and gives its answer."""

    async def ask(tool: str, **arguments: Any) -> Any:
        answer = await client.call_tool(tool, arguments)
        if answer.is_error:
            said = answer.content[0]
            assert isinstance(said, TextContent)
            raise Refusal(said.text)
        return answer.structured_content

    return ask


@contextlib.asynccontextmanager
async def by_stdio(url: str, *options: str) -> AsyncIterator[mcp.Client]:
    """A client of `lifecycle mcp` in a process of its own."""
    command = ["-m", "lifecycle.cli", "--url", url, "mcp", *options]
    server = StdioServerParameters(command=sys.executable, args=command, env=os.environ | {"PYTHONPATH": str(ROOT)})
    async with mcp.Client(stdio_client(server)) as client:
        yield client


@contextlib.asynccontextmanager
async def by_http(url: str, **headers: str) -> AsyncIterator[mcp.Client]:
    """A client of a server's /mcp."""
    async with (
        httpx.AsyncClient(headers=headers) as http,
        mcp.Client(streamable_http_client(f"{url}/mcp", http_client=http)) as client,
    ):
        yield client


async def tools(client: mcp.Client) -> set[str]:
    """The names of the tools that a client sees."""
    return {tool.name for tool in (await client.list_tools()).tools}


async def keep_house(ask: Ask) -> None:
    """Do with every tool what it is for."""
    made = await ask("create_session", session_id="plan", title="The great plan", kind="work", context={"n": 1})
    assert made["state"] == "active"
    version = (await ask("show_session", session_id="plan"))["saved"]["version"]
    saved = await ask(
        "save_session", session_id="plan", append=["one", {"two": 2}], step=3, phase="draft", expected_version=version
    )
    with pytest.raises(Refusal, match="VersionConflict"):
        await ask("save_session", session_id="plan", step=4, expected_version=version)
    saved = await ask("save_session", session_id="plan", append=["three"], clear=["phase"])
    shown = await ask("show_session", session_id="plan", entries=2)
    assert shown["saved"]["conversation"] == [{"two": 2}, "three"]
    assert (shown["saved"]["entries"], shown["saved"]["version"]) == (3, saved["version"])
    assert (shown["saved"]["context"], shown["saved"]["step"], shown["saved"]["phase"]) == ({"n": 1}, 3, None)
    await ask("add_message", session_id="plan", role="user", content="where is the walrus?")
    shown = await ask("show_session", session_id="plan", messages=5)
    assert [message["content"] for message in shown["messages"]] == ["where is the walrus?"]
    for text, in_messages, found in (("GREAT", False, 1), ("walrus", False, 0), ("walrus", True, 1)):
        page = await ask("search_sessions", text=text, in_messages=in_messages)
        assert len(page["sessions"]) == found, (text, in_messages)

    assert (await ask("suspend_session", session_id="plan", reason="lunch"))["state"] == "suspended"
    with pytest.raises(Refusal, match=r"InvalidTransition.*suspended"):
        await ask("save_session", session_id="plan", step=5)
    assert (await ask("resume_session", session_id="plan"))["state"] == "active"

    for name, parent in (("sub", "plan"), ("subsub", "sub")):
        await ask("create_session", session_id=name, parent_id=parent)
    assert [one["session_id"] for one in (await ask("list_sessions", parent_id="plan"))["sessions"]] == ["sub"]
    with pytest.raises(Refusal, match="no parent"):
        await ask("clean_up_after_delegation", session_id="plan")
    assert (await ask("clean_up_after_delegation", session_id="sub"))["count"] == 2

    await ask("create_session", session_id="dropped")
    assert (await ask("end_session", session_id="dropped"))["state"] == "ended"
    assert (await ask("complete_session", session_id="plan", reason="done"))["reason"] == "done"
    moves = (await ask("show_history", session_id="plan"))["transitions"]
    assert [move["trigger"] for move in moves] == ["create", "suspend", "resume", "complete"]
    assert (await ask("stats"))["by_state"]["completed"] == 1
    assert await ask("list_stuck") == {"stuck": []}
    page = await ask("list_sessions", limit=1)
    rest = await ask("list_sessions", limit=1, cursor=page["next_cursor"])
    assert {one["session_id"] for one in page["sessions"] + rest["sessions"]} == {"plan", "dropped"}


async def remove_what_is_over(ask: Ask, url: str) -> None:
    """Look, then remove: what is protected stays."""
    for name in ("old", "dear"):
        await ask("create_session", session_id=name)
        await ask("complete_session", session_id=name)
    await ask("protect_session", session_id="dear")
    backdate(url, t.sessions, t.sessions.c.ended_at.is_not(None), ended_at=LONG_AGO)
    looked = await ask("prune_sessions", older_than="1d", kind="chat")
    assert (looked["dry_run"], looked["count"]) == (True, 2)  # not the dear one
    assert (await ask("show_session", session_id="old"))["session"]["state"] == "completed"
    assert (await ask("prune_sessions", older_than="1d", kind="chat", dry_run=False))["count"] == 2
    with pytest.raises(Refusal, match="SessionNotFound: no session 'old'"):
        await ask("show_session", session_id="old")
    assert (await ask("show_session", session_id="dear"))["session"]["protected"]


def test_over_stdio(shared_url: str) -> None:
    """An agent starts the server itself, and everything works on every store."""

    async def go() -> None:
        async with by_stdio(shared_url, "--scope", "admin", "--actor", "an agent") as client:
            ask = asking(client)
            await keep_house(ask)
            await remove_what_is_over(ask, shared_url)
            assert {move["actor"] for move in (await ask("show_history", session_id="dear"))["transitions"]} == {
                "an agent"
            }

    asyncio.run(go())


def test_what_is_annotated(migrated_sqlite_url: str) -> None:
    """A client can tell what only looks, what replaces or removes; nothing reaches beyond the store."""

    async def go() -> None:
        async with by_stdio(migrated_sqlite_url, "--scope", "admin") as client:
            found = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert found.keys() == READING | WRITING | REMOVING
        hints = {name: tool.annotations for name, tool in found.items() if tool.annotations is not None}
        assert hints.keys() == found.keys()
        assert {name for name, one in hints.items() if one.read_only_hint} == READING
        destructive = {name for name, one in hints.items() if one.destructive_hint}
        assert destructive == {"save_session", "clean_up_after_delegation", "prune_sessions"}
        assert not any(one.open_world_hint for one in hints.values())
        assert all(tool.title and tool.description for tool in found.values())
        assert found["prune_sessions"].input_schema["properties"]["dry_run"]["default"] is True

    asyncio.run(go())


@pytest.mark.parametrize(
    ("options", "seen"),
    [((), READING | WRITING), (("--scope", "read"), READING), (("--scope", "admin"), READING | WRITING | REMOVING)],
)
def test_scopes_over_stdio(migrated_sqlite_url: str, options: tuple[str, ...], seen: set[str]) -> None:
    """What a scope does not hold is not there: it may not be called either."""

    async def go() -> None:
        async with by_stdio(migrated_sqlite_url, *options) as client:
            assert await tools(client) == seen
            if "prune_sessions" not in seen:
                with pytest.raises((Refusal, mcp.MCPError), match="prune_sessions"):
                    await asking(client)("prune_sessions", dry_run=False)

    asyncio.run(go())


def test_what_is_wrong_is_said(migrated_sqlite_url: str) -> None:
    """A model is told which value was wrong and what was expected, and nothing is changed."""

    async def go() -> None:
        async with by_stdio(migrated_sqlite_url) as client:
            ask = asking(client)
            await ask("create_session", session_id="a")
            for tool, arguments, says in (
                ("list_sessions", {"state": "odd"}, "'active', 'suspended'"),
                ("list_sessions", {"limit": 0}, "greater than or equal to 1"),
                ("list_sessions", {"cursor": "odd"}, "InvalidArgument"),
                ("list_stuck", {"silent_for": "soon"}, "InvalidArgument: silent_for"),
                ("create_session", {"session_id": "a"}, "SessionExists"),
                ("create_session", {"session_id": "x" * 1000}, "LimitExceeded"),
                ("save_session", {"session_id": "a", "append": "text"}, "valid list"),
                ("save_session", {"session_id": "b", "step": 1}, "SessionNotFound"),
                ("add_message", {"session_id": "a", "role": "", "content": "x"}, "InvalidArgument"),
            ):
                with pytest.raises(Refusal, match=says):
                    await ask(tool, **arguments)
            assert (await ask("show_session", session_id="a"))["session"]["version"] == 1

    asyncio.run(go())


@pytest.fixture
def served(shared_url: str) -> Iterator[Served]:
    """A server with /mcp."""
    with serving(shared_url, mcp=True) as opened:
        yield opened


def test_over_http(served: Served, shared_url: str) -> None:
    """The same at /mcp, with nobody's key on this machine, and with keys once there is one."""
    with SessionManager.open(shared_url) as manager:
        manager.create_session(session_id="others", kind="other")

    async def go() -> None:
        async with by_http(served.url) as client:
            assert await tools(client) == READING | WRITING | REMOVING
            assert len((await asking(client)("list_sessions"))["sessions"]) == 1
        with SessionManager.open(shared_url, "red") as manager:
            key = {scope: manager.create_key("grace", scope=scope).key for scope in ("read", "write", "admin")}
        async with by_http(served.url, authorization=f"Bearer {key['admin']}") as client:
            ask = asking(client)
            await keep_house(ask)
            await remove_what_is_over(ask, shared_url)
            # The other tenant's is not there, whatever is asked.
            with pytest.raises(Refusal, match="SessionNotFound"):
                await ask("show_session", session_id="others")
            moves = (await ask("show_history", session_id="dear"))["transitions"]
            assert {move["actor"] for move in moves} == {"grace"}
        for scope, seen in (("read", READING), ("write", READING | WRITING)):
            async with by_http(served.url, authorization=f"Bearer {key[scope]}") as client:
                assert await tools(client) == seen
                with pytest.raises((Refusal, mcp.MCPError), match="prune_sessions"):
                    await asking(client)("prune_sessions", dry_run=False)

    asyncio.run(go())
    with SessionManager.open(shared_url) as manager:
        assert manager.get_session("others") is not None


def test_refusals_over_http(migrated_sqlite_url: str) -> None:
    """What the API refuses, /mcp refuses: before a word of the protocol is read."""
    hello = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    accepts = {"accept": "application/json, text/event-stream"}
    with serving(migrated_sqlite_url, mcp=True, body_bytes=2000) as served, httpx.Client() as http:
        url = f"{served.url}/mcp"
        refused(
            http.post(url, json=hello, headers=accepts | {"origin": "https://elsewhere.example"}), 403, "ForeignOrigin"
        )
        refused(http.post(url, json=hello, headers=accepts | {"host": "elsewhere.example"}), 403, "ForeignHost")
        refused(http.post(url, json=hello | {"x": "y" * 3000}, headers=accepts), 413, "BodyTooLarge")
        for method in ("GET", "DELETE", "PUT"):
            refused(http.request(method, url, headers=accepts), 405, "PostOnly")
        assert http.post(url, content=b"{", headers=accepts | {"content-type": "application/json"}).status_code == 400
        with SessionManager.open(migrated_sqlite_url, "red") as manager:
            key = manager.create_key("grace", scope="read").key
        good = {"authorization": f"Bearer {key}"}
        refused(http.post(url, json=hello, headers=accepts | {"authorization": "Bearer lc_wrong"}), 401, "Unauthorized")
        other = good | {"lifecycle-tenant": "blue"}
        refused(http.post(url, json=hello, headers=accepts | other), 403, "NotYourTenant")


def test_it_is_off_unless_asked_for(migrated_sqlite_url: str) -> None:
    """A server that is not told to serve agents does not."""
    assert not Settings(database={"url": migrated_sqlite_url}).web.mcp
    with serving(migrated_sqlite_url) as served:
        assert httpx.post(f"{served.url}/mcp", json={}).status_code == 404


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--port", "1"), "--http"),
        (("--scope", "odd"), "'read', 'write', 'admin'"),
    ],
)
def test_wrong_options(migrated_sqlite_url: str, options: tuple[str, ...], says: str) -> None:
    """They are refused in words, and stdout, which belongs to the protocol, stays empty."""
    command = [sys.executable, "-m", "lifecycle.cli", "--url", migrated_sqlite_url, "mcp", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_database(tmp_path: Path) -> None:
    """A database that is not there is said at once."""
    command = [sys.executable, "-m", "lifecycle.cli", "--url", f"sqlite:///{tmp_path}/none.db", "mcp"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (11, "")
    assert "lifecycle db upgrade" in done.stderr

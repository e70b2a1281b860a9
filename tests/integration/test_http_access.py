"""Who may call: keys, scopes, tenants, the open mode, logging in, tokens of pages, and limits, over real HTTP."""

import asyncio
import re
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import httpx2 as httpx
import pytest
from fastapi import Form, Request

from lifecycle import ALL, AsyncSessionManager, ConfigError, SessionManager, Settings, StorageUnavailable
from lifecycle.models import tables as t
from lifecycle.web import MonitorServer, WebServer, logins, origins
from lifecycle.web.access import Admin, Caller, Reader, Writer, csrf_token
from lifecycle.web.buckets import Buckets
from lifecycle.web.keyring import KEY_SECONDS, Keyring
from lifecycle.web.problems import TooMany
from tests.calling import raw, server_process
from tests.managers import backdate, connected
from tests.serving import Served, serving

PROBLEM = "application/problem+json"
PATIENCE: Final = 30
ANYWHERE: Final = "0.0.0.0"  # noqa: S104 -- what is to be refused


def probe(served: Served) -> None:
    """Routes that tell who the caller is to them."""

    def told(caller: Caller) -> dict[str, Any]:
        return {"tenant": repr(caller.tenant), "scope": caller.scope, "name": caller.name, "key_id": caller.key_id}

    @served.app.get("/api/probe")
    async def read(caller: Reader) -> dict[str, Any]:
        return told(caller)

    @served.app.post("/api/probe")
    async def write(caller: Writer, request: Request) -> dict[str, Any]:
        return told(caller) | {"bytes": len(await request.body())}

    @served.app.delete("/api/probe")
    async def administer(caller: Admin) -> dict[str, Any]:
        return told(caller)

    @served.app.post("/api/form")
    async def fill_in(caller: Writer, word: Annotated[str, Form()]) -> str:
        return f"{caller.name}: {word}"

    @served.app.get("/api/token")
    async def token(request: Request, caller: Reader) -> str:
        return csrf_token(request, caller)

    @served.app.get("/api/broken")
    async def broken(caller: Reader) -> None:
        raise RuntimeError(f"secret of {caller.name}")


@pytest.fixture
def served(migrated_sqlite_url: str) -> Iterator[Served]:
    """A server on an empty SQLite file."""
    with serving(migrated_sqlite_url) as opened:
        probe(opened)
        yield opened


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    """A program that calls it."""
    with httpx.Client(base_url=served.url, timeout=PATIENCE) as made:
        yield made


def key_for(url: str, scope: str = "admin", tenant: Any = ALL, **more: Any) -> Any:
    """A new key, on a manager of the test's own."""
    with SessionManager.open(url, tenant) as manager:
        return manager.create_key("tester", scope, **more)


def bearer(key: str) -> dict[str, str]:
    """The header that a key is sent in."""
    return {"Authorization": f"Bearer {key}"}


def until(client: httpx.Client, status: int, **more: Any) -> httpx.Response:
    """The answer once it has the status: what processes remember of keys is seconds old at most."""
    end = time.monotonic() + PATIENCE
    while (answer := client.get("/api/probe", **more)).status_code != status:
        assert time.monotonic() < end, answer.text
        time.sleep(0.05)
    return answer


def refused(answer: httpx.Response, status: int, error: str) -> str:
    """The detail of a problem document, which must be of that kind."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM), answer.text
    assert answer.json()["error"] == error
    assert answer.json()["status"] == status
    return str(answer.json()["detail"])


def test_a_key_is_needed_as_soon_as_there_is_one(client: httpx.Client, migrated_sqlite_url: str) -> None:
    """Without any key this machine is answered; with one, only who sends it: on this server, without a restart."""
    answer = client.get("/api/probe")
    assert answer.json() == {"tenant": "''", "scope": "admin", "name": "local", "key_id": None}
    made = key_for(migrated_sqlite_url)
    until(client, 401)
    assert client.get("/api/probe", headers=bearer(made.key)).json()["key_id"] == made.key_id


def test_the_open_mode_is_said_in_the_log(migrated_sqlite_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Once, at the start; with a key it is not so, and not said."""

    def said() -> list[Any]:
        return [one.msg for one in caplog.records if isinstance(one.msg, dict) and one.msg["event"] == "open_mode"]

    with serving(migrated_sqlite_url) as opened, httpx.Client(base_url=opened.url) as client:
        client.get("/login")
        client.get("/login")
    assert len(said()) == 1
    caplog.clear()
    key_for(migrated_sqlite_url)
    with serving(migrated_sqlite_url):
        pass
    assert said() == []


@pytest.mark.parametrize(
    "header",
    ["Basic YTpi", "Bearer", "Bearer x", "lc_0_0", f"Bearer lc_{'0' * 16}_{'a' * 43}", "Bearer lc_é_b"],
)
def test_what_is_no_key_is_401(client: httpx.Client, header: str) -> None:
    """Also where no key would be needed: who sends one means it."""
    answer = client.get("/api/probe", headers={b"Authorization": header.encode()})
    refused(answer, 401, "Unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_scopes_hold_those_before_them(client: httpx.Client, migrated_sqlite_url: str) -> None:
    """Read reads, write writes too, admin does all; what is missing is named."""
    methods = {"read": ("GET",), "write": ("GET", "POST"), "admin": ("GET", "POST", "DELETE")}
    for scope, allowed in methods.items():
        headers = bearer(key_for(migrated_sqlite_url, scope).key)
        for method, needs in (("GET", "read"), ("POST", "write"), ("DELETE", "admin")):
            answer = client.request(method, "/api/probe", headers=headers)
            if method in allowed:
                assert answer.status_code == 200
            else:
                assert repr(needs) in refused(answer, 403, "Forbidden")


def test_a_key_of_one_tenant_names_no_other(client: httpx.Client, migrated_sqlite_url: str) -> None:
    """Its own it may name; another, an unknown one and everybody's are refused alike."""
    with SessionManager.open(migrated_sqlite_url, "theirs") as manager:
        manager.create_session(session_id="there")
    headers = bearer(key_for(migrated_sqlite_url, tenant="ours").key)
    assert client.get("/api/probe", headers=headers).json()["tenant"] == "'ours'"
    own = client.get("/api/probe", headers=headers | {"Lifecycle-Tenant": "ours"})
    assert own.json()["tenant"] == "'ours'"
    answers = [
        client.get("/api/probe", headers=headers | {"Lifecycle-Tenant": name}) for name in ("theirs", "nobody", "*", "")
    ]
    assert len({answer.text for answer in answers}) == 1
    refused(answers[0], 403, "NotYourTenant")


def test_a_key_of_all_tenants_names_the_one_it_means(client: httpx.Client, migrated_sqlite_url: str) -> None:
    """The nameless one without a header, `*` for everybody's, any other in UTF-8."""
    headers = bearer(key_for(migrated_sqlite_url).key)

    def tenant(**more: Any) -> str:
        return str(client.get("/api/probe", headers=headers | more).json()["tenant"])

    assert tenant() == "''"
    assert tenant(**{"Lifecycle-Tenant": "*"}) == "ALL"
    named = {name.encode(): value.encode() for name, value in (headers | {"Lifecycle-Tenant": "Zoë"}).items()}
    assert client.get("/api/probe", headers=named).json()["tenant"] == "'Zoë'"
    assert tenant(Cookie="lifecycle_tenant=acme") == "''"
    for bad in (b"\xff\xfe", b"a" * 300):
        refused(client.get("/api/probe", headers=named | {b"Lifecycle-Tenant": bad}), 422, "InvalidArgument")


def test_a_revoked_key_stops_within_seconds(client: httpx.Client, migrated_sqlite_url: str) -> None:
    """And is not brought back by what was remembered of it."""
    made = key_for(migrated_sqlite_url)
    assert client.get("/api/probe", headers=bearer(made.key)).status_code == 200
    with SessionManager.open(migrated_sqlite_url, ALL) as manager:
        manager.revoke_key(made.key_id)
    began = time.monotonic()
    until(client, 401, headers=bearer(made.key))
    assert time.monotonic() - began < KEY_SECONDS + 10  # not a measurement: it is far from never
    assert client.get("/api/probe", headers=bearer(made.key)).status_code == 401


def test_an_expired_key_stops(client: httpx.Client, migrated_sqlite_url: str) -> None:
    """At the time it was given."""
    made = key_for(migrated_sqlite_url, expires_in="1h")
    assert client.get("/api/probe", headers=bearer(made.key)).status_code == 200
    backdate(migrated_sqlite_url, t.api_keys, expires_at=made.created_at)
    until(client, 401, headers=bearer(made.key))


# --- the open mode and browsers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1:99", "[::1]:8470", "127.9.9.9", "LOCALHOST."])
def test_the_open_mode_answers_to_the_names_of_this_machine(client: httpx.Client, host: str) -> None:
    """Whichever of them."""
    assert client.get("/api/probe", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8470", "127.0.0.1.evil.example", "localhost.evil.example", "evil@127.0.0.1",
     ANYWHERE, "10.0.0.1", "[::]", "127.0.0.1/evil", "127.0.0.1 evil", "", "[::1", "::1", "[abc]", "[::1]x:99999",
     "[127.0.0.1]", "[localhost]", "localhost:", "localhost:x", "[::1%lo]", "localhost, evil.example"],
)  # fmt: skip
def test_a_name_that_was_bound_to_this_machine_is_refused(client: httpx.Client, host: str) -> None:
    """DNS rebinding: the page's own name leads to 127.0.0.1, but stands in Host."""
    refused(client.get("/api/probe", headers={"Host": host}), 403, "ForeignHost")


@pytest.mark.parametrize(
    "name",
    ["X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Any", "Forwarded", "X-Real-IP", "Via",
     "X-Client-IP", "True-Client-IP", "CF-Connecting-IP", "CF-Ray"],
)  # fmt: skip
def test_the_open_mode_ends_at_a_proxy(client: httpx.Client, name: str) -> None:
    """What comes through one comes from anywhere, whatever Host it writes."""
    refused(client.get("/api/probe", headers={name: "127.0.0.1"}), 403, "ForeignHost")


def test_the_open_mode_does_not_speak_the_http_of_old_proxies(served: Served) -> None:
    """Some proxies add no header and speak HTTP/1.0 to what is behind them, as no browser and hardly a program does."""
    asked = b"GET /api/probe HTTP/1.%d\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert raw(served.url, asked % 1).startswith(b"HTTP/1.1 200")
    answer = raw(served.url, asked % 0)
    assert answer.startswith(b"HTTP/1.1 403")
    assert b"ForeignHost" in answer


@pytest.mark.parametrize(
    "marks",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    ],
)
def test_a_page_of_another_origin_changes_nothing(client: httpx.Client, marks: dict[str, str]) -> None:
    """Nor does it with a token, in the open mode as with a cookie."""
    token = client.get("/api/token").json()
    for more in ({}, {"X-CSRF-Token": token}):
        refused(client.post("/api/probe", headers=marks | more), 403, "ForeignOrigin")


def test_a_page_of_another_origin_reads_nothing_but_may_link(client: httpx.Client) -> None:
    """Scripts and images that load from here are refused; a link that a person follows is not."""
    refused(client.get("/api/probe", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}), 403,
            "ForeignOrigin")  # fmt: skip
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client.get("/api/probe", headers=link).status_code == 200


def test_a_page_of_ours_needs_its_token_in_the_open_mode(client: httpx.Client, served: Served) -> None:
    """In the header or in a form's field; programs, which have no pages, need none."""
    own = {"Origin": served.url, "Sec-Fetch-Site": "same-origin"}
    token = client.get("/api/token").json()
    assert client.post("/api/probe").status_code == 200
    refused(client.post("/api/probe", headers=own), 403, "BadToken")
    refused(client.post("/api/probe", headers=own | {"X-CSRF-Token": "x"}), 403, "BadToken")
    odd = {name.encode(): value.encode() for name, value in (own | {"X-CSRF-Token": "é"}).items()}
    refused(client.post("/api/probe", headers=odd), 403, "BadToken")
    refused(client.post("/api/probe", headers=own, data={"csrf_token": token + "x"}), 403, "BadToken")
    assert client.post("/api/probe", headers=own | {"X-CSRF-Token": token}).status_code == 200
    assert client.post("/api/probe", headers=own, data={"csrf_token": token}).status_code == 200
    assert client.post("/api/probe", headers=own, files={"csrf_token": (None, token)}).status_code == 200


def test_the_open_mode_is_for_connections_from_this_machine() -> None:
    """By both ends of the connection, whatever Host says; where the server tells neither, nobody is of this machine."""

    def request(**ends: Any) -> Request:
        return Request({"type": "http", "method": "GET", "headers": [(b"host", b"127.0.0.1")], **ends})

    origins.require_this_machine(request(client=("127.0.0.1", 1), server=("127.0.0.1", 2)))
    origins.require_this_machine(request(client=("::1", 1), server=("::1", 2)))
    origins.require_this_machine(request(client=("::ffff:127.0.0.1", 1)))
    for ends in (
        {"client": ("10.0.0.7", 1)},
        {"client": ("127.0.0.1", 1), "server": ("192.168.1.2", 2)},
        {"client": ("::ffff:10.0.0.7", 1)},
        {"client": ("testclient", 1)},
        {},
    ):
        with pytest.raises(origins.ForeignHost):
            origins.require_this_machine(request(**ends))


# --- logging in -------------------------------------------------------------------------------------------------------


@pytest.fixture
def made(served: Served, migrated_sqlite_url: str) -> Any:
    """A key to write with, known to the server."""
    key = key_for(migrated_sqlite_url, "write", tenant="acme")
    with httpx.Client(base_url=served.url) as other:
        until(other, 401)
    return key


def test_logging_in_gives_a_cookie_that_scripts_cannot_read(client: httpx.Client, made: Any) -> None:
    """HttpOnly and SameSite=Strict, without the key in it; it leads where the person wanted to go."""
    answer = client.post("/login", data={"key": made.key, "next": "/sessions?state=active"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/sessions?state=active")
    cookie = answer.headers["set-cookie"]
    assert re.search(r"; HttpOnly", cookie)
    assert re.search(r"; SameSite=strict", cookie, re.IGNORECASE)
    assert "Path=/;" in cookie
    assert "Max-Age=43200" in cookie
    assert "Secure" not in cookie
    assert made.key.rpartition("_")[2] not in cookie
    told = client.get("/api/probe").json()
    assert told == {"tenant": "'acme'", "scope": "write", "name": "tester", "key_id": made.key_id}


def test_the_cookie_goes_over_https_alone_where_that_is_set(migrated_sqlite_url: str) -> None:
    """With the prefix that keeps neighbours of this host from setting it."""
    key = key_for(migrated_sqlite_url)
    with serving(migrated_sqlite_url, secure_cookies=True) as opened, httpx.Client(base_url=opened.url) as client:
        cookie = client.post("/login", data={"key": key.key}).headers["set-cookie"]
    assert cookie.startswith("__Host-lifecycle_login=")
    assert "; Secure" in cookie
    assert "Domain" not in cookie


@pytest.mark.parametrize(
    "elsewhere", ["//evil.example", "https://evil.example/", "/\\evil.example", "javascript:alert(1)", "\n/", "/a\r\nb"]
)
def test_logging_in_leads_nowhere_else(client: httpx.Client, made: Any, elsewhere: str) -> None:
    """An address of others' is left aside."""
    answer = client.post("/login", data={"key": made.key, "next": elsewhere})
    assert answer.headers["location"] == "/"


def test_a_wrong_key_does_not_log_in(client: httpx.Client, made: Any) -> None:
    """The form comes again and says so; no cookie is given, and what was typed is not shown."""
    answer = client.post("/login", data={"key": made.key + "x", "next": "/<script>"})
    assert answer.status_code == 401
    assert "opens nothing" in answer.text
    assert "set-cookie" not in answer.headers
    assert made.key not in answer.text
    assert "<script>" not in answer.text.replace("<script src", "")


@pytest.mark.parametrize(("field", "status"), [("key", 401), ("next", 303)])
def test_a_form_that_is_not_unicode_is_refused(client: httpx.Client, made: Any, field: str, status: int) -> None:
    """Half a surrogate pair, which a charset of Python's own decodes to, opens nothing and leads nowhere."""
    values = {"key": made.key, "next": "/x"} | {field: r"/\ud800"}
    parts = [
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in values.items()
    ]
    kind = "multipart/form-data; boundary=b; charset=unicode_escape"
    answer = client.post("/login", content="".join(parts) + "--b--\r\n", headers={"Content-Type": kind})
    assert answer.status_code == status, answer.text
    if status == 303:
        assert answer.headers["location"] == "/"


def test_a_token_in_a_charset_that_decodes_nothing_is_none(client: httpx.Client, made: Any) -> None:
    """It is refused as any other wrong one."""
    client.post("/login", data={"key": made.key})
    form = '--b\r\nContent-Disposition: form-data; name="csrf_token"\r\n\r\nx\r\n--b--\r\n'
    kind = "multipart/form-data; boundary=b; charset=undefined"
    refused(client.post("/logout", content=form, headers={"Content-Type": kind}), 403, "BadToken")


def test_nobody_else_logs_a_person_in(client: httpx.Client, made: Any) -> None:
    """A page of others' that sends its own key would have the person work under it."""
    answer = client.post("/login", data={"key": made.key}, headers={"Origin": "https://evil.example"})
    refused(answer, 403, "ForeignOrigin")


def test_a_page_needs_the_token_of_its_own_login(served: Served, made: Any) -> None:
    """With the cookie alone nothing is changed; nor with the token of another login with the same key."""
    with httpx.Client(base_url=served.url) as one, httpx.Client(base_url=served.url) as two:
        for client in (one, two):
            client.post("/login", data={"key": made.key})
        token, other = one.get("/api/token").json(), two.get("/api/token").json()
        assert token != other
        refused(one.post("/api/probe"), 403, "BadToken")
        refused(one.post("/api/probe", headers={"X-CSRF-Token": other}), 403, "BadToken")
        assert one.post("/api/probe", headers={"X-CSRF-Token": token}).status_code == 200
        assert one.post("/api/probe", data={"csrf_token": token}).status_code == 200
        refused(one.post("/api/probe", headers={"X-CSRF-Token": token, "Origin": "http://localhost:3000"}), 403,
                "ForeignOrigin")  # fmt: skip
        assert one.post("/api/form", data={"csrf_token": token, "word": "a"}).json() == "tester: a"
        refused(one.post("/api/form", data={"csrf_token": other, "word": "a"}), 403, "BadToken")
        # A key in the hand needs none: no page can send it for somebody.
        assert one.post("/api/probe", headers=bearer(made.key)).status_code == 200
        assert one.get("/api/token", headers=bearer(made.key)).json() == ""


def test_logging_out_takes_the_cookie(client: httpx.Client, made: Any) -> None:
    """Only for a page of ours, as everything that changes something."""
    client.post("/login", data={"key": made.key})
    refused(client.post("/logout"), 403, "BadToken")
    answer = client.post("/logout", data={"csrf_token": client.get("/api/token").json()})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    refused(client.get("/api/probe"), 401, "Unauthorized")


def test_revoking_the_key_ends_what_was_begun_with_it(
    client: httpx.Client, made: Any, migrated_sqlite_url: str
) -> None:
    """Within seconds, though the cookie is good."""
    client.post("/login", data={"key": made.key})
    assert client.get("/api/probe").status_code == 200
    with SessionManager.open(migrated_sqlite_url, ALL) as manager:
        manager.revoke_key(made.key_id)
    until(client, 401)


def test_a_cookie_that_is_not_ours_is_none(client: httpx.Client, served: Served, made: Any) -> None:
    """One that was changed, signed with another secret, or has ended."""
    client.post("/login", data={"key": made.key})
    good = client.cookies["lifecycle_login"]
    secret = served.app.state.service.keyring.secret
    assert logins.read_cookie(secret, good) is not None
    client.cookies.clear()
    forged = logins._serializer("another").dumps([made.key_id, "x", 2**33])
    ended = logins._serializer(secret).dumps([made.key_id, "x", 1])
    assert logins.read_cookie(secret, str(ended)) is None
    for bad in (good[:-1], "x" + good, "", "a.b", str(forged), str(ended), str(logins._serializer(secret).dumps({}))):
        refused(client.get("/api/probe", headers={"Cookie": f"lifecycle_login={bad}"}), 401, "Unauthorized")
    assert client.get("/api/probe", headers={"Cookie": f"lifecycle_login={good}"}).status_code == 200


def test_processes_share_what_signs_the_cookies(served: Served, made: Any, migrated_sqlite_url: str) -> None:
    """A cookie of one server is good at another on the same database."""
    with httpx.Client(base_url=served.url) as client:
        client.post("/login", data={"key": made.key})
        cookie = client.cookies["lifecycle_login"]
    with serving(migrated_sqlite_url) as other:
        probe(other)
        answer = httpx.get(f"{other.url}/api/probe", headers={"Cookie": f"lifecycle_login={cookie}"})
    assert answer.json()["key_id"] == made.key_id


def test_a_person_is_led_to_the_form(client: httpx.Client, made: Any) -> None:
    """And back to where he wanted to go; a program gets a problem document, and so does what asks the API."""
    page = {"Accept": "text/html,application/xhtml+xml"}
    refused(client.get("/api/probe", headers=page), 401, "Unauthorized")
    answer = client.get("/login", params={"next": "/x?y=1"}, headers=page)
    assert answer.status_code == 200
    assert 'value="/x?y=1"' in answer.text
    client.post("/login", data={"key": made.key})
    assert client.get("/login", params={"next": "/x?y=1"}).headers["location"] == "/x?y=1"


# --- limits -----------------------------------------------------------------------------------------------------------


def test_a_body_that_is_too_large_is_413(migrated_sqlite_url: str) -> None:
    """Whether its length is told or it comes in pieces; the largest that is allowed is taken."""

    def pieces(size: int) -> Iterator[bytes]:
        for _ in range(size // 100):
            yield b"x" * 100

    with serving(migrated_sqlite_url, body_bytes=1000) as opened, httpx.Client(base_url=opened.url) as client:
        probe(opened)
        assert client.post("/api/probe", content=b"x" * 1000).json()["bytes"] == 1000
        assert client.post("/api/probe", content=pieces(1000)).json()["bytes"] == 1000
        answer = client.post("/api/probe", content=b"x" * 1001)
        assert "1,001 bytes" in refused(answer, 413, "BodyTooLarge")
        assert answer.headers["x-frame-options"] == "DENY"
        refused(client.post("/api/probe", content=pieces(1100)), 413, "BodyTooLarge")
        refused(client.post("/login", content=b"key=" + b"x" * 2000, headers={
            "Content-Type": "application/x-www-form-urlencoded"}), 413, "BodyTooLarge")  # fmt: skip


def test_requests_above_the_rate_are_429(migrated_sqlite_url: str) -> None:
    """For each key by itself; `Retry-After` is whole seconds."""
    one, two = key_for(migrated_sqlite_url), key_for(migrated_sqlite_url)
    # A rate this low gives nothing back while the test runs.
    with serving(migrated_sqlite_url, rate=0.001, burst=3) as opened, httpx.Client(base_url=opened.url) as client:
        probe(opened)
        for key in (one, two):
            answers = [client.get("/api/probe", headers=bearer(key.key)) for _ in range(4)]
            assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
            refused(answers[3], 429, "TooMany")
            assert 0 < int(answers[3].headers["retry-after"]) <= 1000


def test_without_keys_addresses_have_the_rate(migrated_sqlite_url: str) -> None:
    """In the open mode, where there is no key to count by."""
    with serving(migrated_sqlite_url, rate=0.001, burst=2) as opened, httpx.Client(base_url=opened.url) as client:
        probe(opened)
        assert [client.get("/api/probe").status_code for _ in range(3)] == [200, 200, 429]


def test_an_address_that_guesses_is_slowed(client: httpx.Client, made: Any) -> None:
    """At the API and at the form alike; a key that was good before goes on working beside it."""
    assert client.get("/api/probe", headers=bearer(made.key)).status_code == 200
    answers = [client.get("/api/probe", headers=bearer(f"guess {i}")) for i in range(40)]
    statuses = [answer.status_code for answer in answers]
    assert statuses[0] == 401
    assert statuses[-1] == 429
    assert set(statuses) == {401, 429}
    assert int(answers[-1].headers["retry-after"]) >= 1
    refused(client.post("/login", data={"key": "guess"}), 429, "TooMany")
    assert client.get("/api/probe", headers=bearer(made.key)).status_code == 200


@pytest.mark.usefixtures("made")
def test_an_address_that_guesses_cannot_choose_another(client: httpx.Client) -> None:
    """Whoever is on this machine could, if what he says of himself were believed."""
    answers = [
        client.get("/api/probe", headers=bearer(f"guess {i}") | {"X-Forwarded-For": f"192.0.2.{i}"}) for i in range(40)
    ]
    assert answers[-1].status_code == 429


def test_the_monitor_believes_the_connection_too(migrated_sqlite_url: str) -> None:
    """As the server does."""
    settings = Settings(database={"url": migrated_sqlite_url}, worker={"port": 0}, web={"metrics": "keys"})
    key_for(migrated_sqlite_url)
    monitor = MonitorServer(settings)
    monitor.start()
    try:
        with httpx.Client(base_url=monitor.url, timeout=PATIENCE) as client:
            statuses = [
                client.get("/metrics", headers=bearer(f"guess {i}") | {"X-Forwarded-For": f"192.0.2.{i}"}).status_code
                for i in range(40)
            ]
        assert statuses[-1] == 429
    finally:
        monitor.stop()


def with_keyring(url: str, use: Callable[[Keyring], Coroutine[Any, Any, None]]) -> None:
    """Use a keyring on a manager of its own, which has seen no key yet."""

    async def run() -> None:
        async with AsyncSessionManager.open(url, ALL) as manager:
            await use(Keyring(manager))

    asyncio.run(run())


async def guess(keyring: Keyring, address: str) -> None:
    """Fail until the address is refused."""
    wrong = f"lc_{'0' * 16}_{'a' * 43}"
    for _ in range(100):
        try:
            assert await keyring.of_text(wrong, address) is None
        except TooMany:
            return
    pytest.fail("the address was not refused")


def test_a_good_key_that_comes_many_times_at_once_is_no_failure(migrated_sqlite_url: str) -> None:
    """However many requests a client begins with; the address may fail as often as any other afterwards."""
    made = key_for(migrated_sqlite_url)

    async def use(keyring: Keyring) -> None:
        found = await asyncio.gather(*(keyring.of_text(made.key, "a") for _ in range(100)))
        assert {key.key_id for key in found if key is not None} == {made.key_id}
        assert len(found) == 100
        statuses = [await keyring.of_text(f"guess {i}", "a") for i in range(10)]
        assert statuses == [None] * 10

    with_keyring(migrated_sqlite_url, use)


def test_guesses_that_come_at_once_are_counted(migrated_sqlite_url: str) -> None:
    """All of them, though none was known to be one when the others came."""

    async def use(keyring: Keyring) -> None:
        wrong = (f"lc_{i:016x}_{'a' * 43}" for i in range(100))
        found = await asyncio.gather(*(keyring.of_text(one, "a") for one in wrong), return_exceptions=True)
        assert found.count(None) == 10
        assert sum(isinstance(one, TooMany) for one in found) == 90

    with_keyring(migrated_sqlite_url, use)


def test_a_refused_address_may_use_the_keys_that_are_known(migrated_sqlite_url: str) -> None:
    """Those that this process has seen to be good; one it has not seen waits, as it may be a guess."""
    seen, unseen = key_for(migrated_sqlite_url), key_for(migrated_sqlite_url)

    async def use(keyring: Keyring) -> None:
        assert await keyring.of_text(seen.key, "elsewhere") is not None
        await guess(keyring, "a")
        assert await keyring.of_text(seen.key, "a") is not None
        with pytest.raises(TooMany):
            await keyring.of_text(unseen.key, "a")
        assert await keyring.of_text(unseen.key, "b") is not None

    with_keyring(migrated_sqlite_url, use)


def test_a_database_that_is_away_makes_no_guesser_of_anybody(served: Served, made: Any) -> None:
    """Each request is answered 503, however many come, and the key works as soon as the database does."""

    async def away(_: str) -> None:
        raise StorageUnavailable("away")

    manager = served.app.state.service.keyring._manager
    here = manager.verify_key
    with httpx.Client(base_url=served.url, timeout=PATIENCE) as client:
        manager.verify_key = away
        for _ in range(30):
            refused(client.get("/api/probe", headers=bearer(made.key)), 503, "StorageUnavailable")
        manager.verify_key = here
        assert client.get("/api/probe", headers=bearer(made.key)).status_code == 200


@pytest.mark.parametrize(
    ("kind", "body"), [("application/json", b"{" * 1000), ("text/plain", b"x"), ("application/json", b'{"a": NaN}')]
)
def test_what_a_stranger_sends_is_not_looked_at(client: httpx.Client, made: Any, kind: str, body: bytes) -> None:
    """He is told that he needs a key, whatever is wrong with it; who has one is told that."""
    headers = {"Content-Type": kind}
    for more in ({}, bearer("guess")):
        refused(client.post("/api/v1/sessions", content=body, headers=headers | more), 401, "Unauthorized")
    answer = client.post("/api/v1/sessions", content=body, headers=headers | bearer(made.key))
    assert answer.status_code in {400, 415}


@pytest.mark.usefixtures("made")
def test_what_a_stranger_sends_is_not_waited_for(served: Served) -> None:
    """He has his answer before the body that he tells of, so that none of it is kept."""
    place = urlsplit(served.url)
    head = b"POST /api/v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=PATIENCE) as connection:
        connection.sendall(head)
        assert connection.recv(65536).startswith(b"HTTP/1.1 401")


@pytest.mark.usefixtures("made")
def test_a_stranger_with_a_large_body_hears_that_he_needs_a_key(client: httpx.Client) -> None:
    """The connection goes on: what comes after the answer is thrown away."""
    body = b"[" + b"1," * 2_000_000 + b"1]"
    for _ in range(2):
        answer = client.post("/api/v1/sessions", content=body, headers={"Content-Type": "application/json"})
        refused(answer, 401, "Unauthorized")


def test_the_form_of_a_stranger_is_small(client: httpx.Client, made: Any) -> None:
    """What is larger than any form of ours is not read to its end."""
    large = {"key": made.key, "next": "/" + "x" * 70_000}
    refused(client.post("/login", data=large), 413, "BodyTooLarge")
    assert client.post("/login", data=large | {"next": "/" + "x" * 1000}).status_code == 303


def test_a_request_to_the_api_is_counted_once(migrated_sqlite_url: str) -> None:
    """Though the caller is asked for twice: before the body is read, and by the route."""
    made = key_for(migrated_sqlite_url)
    with serving(migrated_sqlite_url, rate=0.001, burst=3) as opened, httpx.Client(base_url=opened.url) as client:
        answers = [client.get("/api/v1/sessions", headers=bearer(made.key)) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]


def test_buckets_fill_again_and_forget() -> None:
    """With the clock; what is remembered is bounded."""
    clock = [0.0]
    buckets = Buckets(2.0, 3, most=5, clock=lambda: clock[0])
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    clock[0] = 0.5
    assert [buckets.take("a") for _ in range(2)] == [0, 0.5]
    assert [buckets.wait("a"), buckets.wait("b")] == [0.5, 0]
    clock[0] = 1.0
    assert [buckets.wait("a"), buckets.wait("a"), buckets.take("a"), buckets.wait("a")] == [0, 0, 0, 0.5]
    for i in range(100):
        buckets.take(i)
    assert len(buckets) == 5


def test_failures_are_counted_for_a_network_of_ipv6() -> None:
    """A /64 is one sender: whoever has an address there has all of them."""

    def sender(host: str) -> str:
        return origins.sender(Request({"type": "http", "headers": [], "client": (host, 1)}))

    assert sender("2001:db8::1") == sender("2001:db8::ffff:2") != sender("2001:db8:0:1::1")
    assert sender("::ffff:10.0.0.1") != sender("::ffff:10.0.0.2")
    assert sender("10.0.0.1") != sender("10.0.0.2")


# --- every response ---------------------------------------------------------------------------------------------------


def test_every_response_tells_browsers_to_be_careful(served: Served) -> None:
    """What is found, what is not, what is refused, and what broke here."""
    for path, status in (("/api/probe", 200), ("/nowhere", 404), ("/login", 303), ("/api/broken", 500)):
        answer = httpx.get(served.url + path)  # a connection of its own, as one is closed when something broke
        assert answer.status_code == status
        assert answer.headers["content-security-policy"].startswith("default-src 'self'")
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert "access-control-allow-origin" not in answer.headers
        assert "server" not in answer.headers
    assert httpx.get(f"{served.url}/api/probe").headers["cache-control"] == "no-store"


def test_no_key_gets_into_the_log(client: httpx.Client, made: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Neither a good one nor one that opens nothing, wherever it was sent."""
    caplog.set_level("DEBUG")
    wrong = made.key[:-4] + "AAAA"
    for key in (made.key, wrong):
        client.get("/api/probe", headers=bearer(key))
        client.post("/login", data={"key": key})
    text = " ".join(str(one.msg) + str(one.args) for one in caplog.records)
    assert "login_failed" in text
    assert "key_refused" in text
    assert made.key.rpartition("_")[2][:20] not in text


# --- where it listens -------------------------------------------------------------------------------------------------


def settings_for(url: str, host: str) -> Settings:
    """Settings to listen somewhere."""
    return Settings(database={"url": url}, web={"host": host, "port": 0})


@pytest.mark.parametrize("host", [ANYWHERE, "::", "192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1"])
def test_listening_beyond_this_machine_needs_a_key(migrated_sqlite_url: str, host: str) -> None:
    """Refused at the start, with what to do."""
    with pytest.raises(ConfigError, match=r"web\.host: .*there is no key yet: run `lifecycle keys create") as error:
        WebServer(settings_for(migrated_sqlite_url, host))
    assert host in str(error.value)


def test_a_name_is_judged_by_where_it_leads(migrated_sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`localhost` that leads elsewhere is elsewhere."""

    def elsewhere(*_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", elsewhere)
    with pytest.raises(ConfigError, match=r"localhost \(192\.0\.2\.1\) is reached from beyond"):
        WebServer(settings_for(migrated_sqlite_url, "localhost"))


def test_an_address_that_is_none_is_told(migrated_sqlite_url: str) -> None:
    """Before anything starts."""
    for host in ("a..b", "no host", "256.0.0.1x"):
        with pytest.raises(ConfigError, match="no address to listen on"):
            WebServer(settings_for(migrated_sqlite_url, host))


def test_with_a_key_it_listens_anywhere(migrated_sqlite_url: str) -> None:
    """And asks everybody for it, this machine too."""
    made = key_for(migrated_sqlite_url)
    with serving(settings_for(migrated_sqlite_url, ANYWHERE)) as opened:
        probe(opened)
        port = opened.server.socket.getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            refused(client.get("/api/probe"), 401, "Unauthorized")
            assert client.get("/api/probe", headers=bearer(made.key)).status_code == 200
            # Were the keys gone, a connection from elsewhere would still be refused.
            with connected(migrated_sqlite_url) as connection:
                connection.execute(t.api_keys.delete())
            until(client, 200)


def test_the_database_that_is_away_is_no_open_mode(served: Served, client: httpx.Client) -> None:
    """Where nobody can say whether there is a key, nobody is let in."""

    async def away() -> bool:
        raise StorageUnavailable("away")

    served.app.state.service.keyring._manager.any_key = away
    refused(until(client, 503), 503, "StorageUnavailable")


# --- how it ends ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_stopped_ends_well(migrated_sqlite_url: str, tmp_path: Path, sent: signal.Signals) -> None:
    """With 0, as `lifecycle up` does: what watches processes takes the end by a signal for a crash."""
    with server_process(migrated_sqlite_url, tmp_path) as server:
        server.process.send_signal(sent)
        assert server.process.wait(PATIENCE) == 0, server.log.read_text()

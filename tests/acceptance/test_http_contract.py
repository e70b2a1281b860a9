"""The HTTP API keeps its contract: schemathesis walks its OpenAPI document, hypothesis throws at it what is in none.

What no document can say of a request is whether it fits what is stored, so that a valid one is refused is no failure
here; and that keys are asked for is tested with them.
"""

import json
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote, urlsplit

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.config import SchemathesisConfig

from lifecycle import Settings, migrate
from lifecycle.web import create_app
from tests.calling import PROBLEM, raw
from tests.serving import serving

# As above; and a path that ends in what is to be done is that of a session with such an id too, with its methods.
UNFIT: Final = ("positive_data_acceptance", "ignored_auth", "allow_header_conformance")
CALM: Final[dict[str, Any]] = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": list(HealthCheck),
    "phases": (Phase.explicit, Phase.generate),
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server on a database that all tests here fill."""
    database = f"sqlite:///{tmp_path_factory.mktemp('contract') / 'lifecycle.db'}"
    migrate.upgrade(database)
    with serving(database) as served:
        yield served.url


def told() -> Any:
    """The API's document; a stream of events has no end to wait for."""
    config = SchemathesisConfig.from_dict({"checks": {name: {"enabled": False} for name in UNFIT}})
    schema = create_app(Settings(database={"url": "sqlite:///nowhere.db"})).openapi()
    return schemathesis.openapi.from_dict(schema, config=config).exclude(operation_id="watch")


document = told()


@document.parametrize()  # type: ignore[untyped-decorator]
@settings(max_examples=5, **CALM)
def test_every_route_answers_as_its_document_says(url: str, case: Any) -> None:
    """No 5xx, no status, header or body that is not documented, and what does not fit the document is refused."""
    case.call_and_validate(base_url=url)


def test_chains_of_requests_answer_as_the_document_says(url: str) -> None:
    """Along the document's links: what a request made is what the next one works on."""
    linked = told()
    linked.config.update(base_url=url)
    linked.as_state_machine().run(settings=settings(max_examples=25, stateful_step_count=8, **CALM))


def test_the_document_is_complete() -> None:
    """Every operation says what it does, who refuses it and how, by name and with examples; nothing is called twice."""
    schema = document.raw_schema
    names = []
    for path, item in schema["paths"].items():
        for method, operation in item.items():
            where = f"{method.upper()} {path}"
            names.append(operation["operationId"])
            assert operation["summary"], where
            assert operation["description"], where
            assert {"401", "403", "422", "503"} <= operation["responses"].keys(), where
            if method in {"post", "put", "patch"}:
                assert {"400", "413", "415"} <= operation["responses"].keys(), where
            for status, response in operation["responses"].items():
                assert response["description"], f"{where} {status}"
                if int(status) >= 400:
                    for error, example in response["content"][PROBLEM]["examples"].items():
                        assert (example["value"]["error"], example["value"]["status"]) == (error, int(status)), where
    assert len(names) == len(set(names))


# What a client may send that no document describes.

ROUTES: Final = (
    ("GET", "/sessions/{}"), ("PUT", "/sessions/{}"), ("PATCH", "/sessions/{}"), ("DELETE", "/sessions/{}"),
    ("POST", "/sessions/{}:suspend"), ("POST", "/sessions/{}:fork"), ("GET", "/sessions/{}/state"),
    ("PATCH", "/sessions/{}/state"), ("POST", "/sessions/{}/messages"), ("DELETE", "/sessions/{}/messages/{}"),
    ("POST", "/sessions/{}/lease"), ("PUT", "/sessions/{}/lease"), ("DELETE", "/sessions/{}/lease"),
    ("GET", "/sessions/{}/checkpoints/{}"), ("POST", "/sessions/{}/checkpoints/{}:restore"), ("DELETE", "/users/{}"),
    ("POST", "/sessions/{}/approvals/{}:resolve"), ("POST", "/sessions"), ("GET", "/sessions"), ("POST", "/sessions:claim"),
    ("POST", "/sweeps/prune_sessions"), ("GET", "/{}"), ("{}", "/sessions"),
)  # fmt: skip
HEADERS: Final = (
    "If-Match", "If-None-Match", "Idempotency-Key", "Lease-Holder", "Lease-Epoch", "Lifecycle-Tenant", "Request-Id",
    "Last-Event-ID", "Content-Type", "Accept", "Authorization",
)  # fmt: skip
QUERIES: Final = (
    "cursor",
    "limit",
    "offset",
    "since",
    "metadata",
    "search",
    "sort",
    "after",
    "before",
    "timeout",
    "retry_in",
)

segments = st.one_of(
    st.text(max_size=8).map(lambda text: quote(text.encode("utf-8", "surrogatepass"), safe="")),
    st.binary(max_size=6).map(lambda some: quote(some, safe="")),
    st.sampled_from(
        ["..", "%2e%2e", "%", "%zz", "%00", "a:b", ":", "a%3Asuspend", "%ED%A0%80", "x" * 300, "9" * 30, "-1"]
    ),
)
values = st.one_of(
    st.binary(min_size=1, max_size=12).map(lambda some: bytes(b for b in some if b >= 0x20 and b != 0x7F)),
    st.sampled_from(
        [
            b'"1"',
            b"*",
            b'W/"1"',
            b'"',
            b"1" * 30,
            b"application/json",
            b"WyJzcWxpdGUiLDEsMV0",
            b"\xff\xfe",
            b"%FF",
            b"%00",
        ]
    ),
)
documents = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), st.text(alphabet="\ud800\udfff\x00é", max_size=3),
        st.sampled_from([10**400, -0.0, 1e308, "9" * 300, "2020-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00"]),
    ),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["session_id", "title", "metadata", "status", "context", "append", "token", "step", "role", "content", "messages",
             "holder", "ttl", "kinds", "approved", "states", "older_than", "available_at", "idle_timeout", "checkpoint", ""]
        ),
        inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip
bodies = st.one_of(
    documents.map(lambda value: json.dumps(value).encode()),
    documents.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")),
    st.binary(max_size=20),
    st.sampled_from(
        [b"[" * 3000, b'{"a":' * 3000, b'{"a":1,"a":2}', b"\xef\xbb\xbf{}", b"NaN", b'"\\ud800"', b"1" * 5000]
    ),
)


@given(
    route=st.sampled_from(ROUTES),
    parts=st.tuples(segments, segments),
    query=st.lists(st.tuples(st.sampled_from(QUERIES), segments), max_size=2),
    headers=st.dictionaries(st.sampled_from(HEADERS), values, max_size=3),
    body=bodies,
)
@settings(max_examples=1200, **CALM)
def test_whatever_is_sent_is_answered_or_refused_with_a_problem(
    url: str,
    route: tuple[str, str],
    parts: tuple[str, str],
    query: list[tuple[str, str]],
    headers: dict[str, bytes],
    body: bytes,
) -> None:
    """Ids, cursors, headers and bodies that nobody foresaw: JSON or a problem document, and never a fault of the server."""
    method = route[0].replace("{}", "PROPFIND")
    path = route[1].replace("{}", parts[0], 1).replace("{}", parts[1], 1)
    status, kind, content = sent(
        url, method, with_query(path, query), {"Content-Type": b"application/json"} | headers, body
    )
    assert_contract(status, kind, content)


@given(cursor=values, after=segments, session_id=segments)
@settings(max_examples=150, **CALM)
def test_whatever_a_stream_begins_with(url: str, cursor: bytes, after: str, session_id: str) -> None:
    """It begins, or it is a problem."""
    for headers, query in (
        ({"Last-Event-ID": cursor}, []), ({}, [("after", after)]), ({}, [("session_id", session_id)]),
    ):  # fmt: skip
        status, kind, content = sent(url, "GET", with_query("/events", [*query, ("timeout", "0")]), headers, b"")
        if status == 200:
            assert kind == "text/event-stream; charset=utf-8"
        else:
            assert_contract(status, kind, content)


def with_query(path: str, query: list[tuple[str, str]]) -> str:
    """A path and what it asks for, encoded already."""
    return path + ("?" + "&".join(f"{name}={value}" for name, value in query) if query else "")


def sent(url: str, method: str, path: str, headers: dict[str, bytes], body: bytes) -> tuple[int, str, bytes]:
    """Status, media type and body of the answer to a request that is sent byte for byte."""
    lines = [
        f"{method} /api/v1{path} HTTP/1.1".encode(),
        b"Host: " + urlsplit(url).netloc.encode(),
        b"Connection: close",
    ]
    lines += [name.encode() + b": " + value for name, value in headers.items()]
    lines.append(f"Content-Length: {len(body)}".encode())
    head, _, content = raw(url, b"\r\n".join(lines) + b"\r\n\r\n" + body).partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    told = dict(line.lower().split(": ", 1) for line in rest)
    if told.get("transfer-encoding") == "chunked":
        content = content[: content.rindex(b"0\r\n\r\n")]
    return int(first.split(" ")[1]), told.get("content-type", ""), content


def assert_contract(status: int, kind: str, content: bytes) -> None:
    """JSON for what was done, a problem document for what was not, and nothing that went wrong here."""
    assert status < 500, content
    if status >= 400:
        assert kind == PROBLEM, (status, content)
        problem = json.loads(content)
        assert problem["status"] == status
        assert problem["detail"]
        assert problem["error"]
    elif status in {204, 304}:
        assert content == b""
    else:
        assert kind == "application/json"
        json.loads(content)

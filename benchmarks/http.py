"""The HTTP API under concurrency beside a bare FastAPI application, by turns in one run, on PostgreSQL."""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

from benchmarks.bench import Bench, Section
from benchmarks.grid import Grid
from benchmarks.payload import SESSIONS, context
from benchmarks.serving import free_port, lifecycle_serve, running
from lifecycle import SessionManager

AT_ONCE: Final = 16  # connections that each send the next request when they have the answer
_TURNS: Final = 6
_SLICE_SECONDS: Final = 0.8
_KINDS: Final = 3  # of requests

_HEAD: Final = """## HTTP

The server as `lifecycle serve` starts it, its log of requests included, beside a bare FastAPI application with one
hand-written statement for each route (`benchmarks/http_floor.py`), each a process of its own with as many connections
to PostgreSQL. {at_once} connections send request after request, for {seconds:g} s to the one and then to the other,
{turns} times. The bare one checks neither what it is sent nor who sent it, and knows no conditions, leases or problems.
The clients and both servers share this machine's cores.
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What a server did with one kind of request."""

    per_second: float
    median_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Compared:
    """One kind of request, to the bare application and to ours."""

    name: str
    floor: Load
    ours: Load


@dataclass(slots=True)
class _Taken:
    rates: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def load(self) -> Load:
        ordered = sorted(self.seconds)
        middle, most = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
        return Load(statistics.median(self.rates), middle * 1000, most * 1000)


def section(bench: Bench) -> Section:
    """Requests per second (the median of the turns), and how long they took."""
    turns, seconds = bench.pick(_TURNS, 1), bench.pick(_SLICE_SECONDS, 0.05)
    with bench.postgresql("http") as url:
        found = _measure(bench, url, turns, seconds)
    grid = Grid(_COLUMNS, [_row(one) for one in found])
    text = _HEAD.format(at_once=AT_ONCE, turns=turns, seconds=seconds)
    return Section([asdict(one) for one in found], [grid.rich()], f"{text}\n{grid.markdown()}")


def _measure(bench: Bench, url: str, turns: int, seconds: float) -> list[Compared]:
    with SessionManager.open(url) as manager:
        sides = [[f"{side}-{n:06}-6f1c-7bb0-a1d2" for n in range(SESSIONS)] for side in ("floor", "ours")]
        for session in (one for ids in sides for one in ids):
            manager.open_session(session, user_id="ann", title="A title", metadata={"n": 1}, context=context(0))
    bare, served = free_port(), free_port()
    floor = [sys.executable, "-m", "benchmarks.http_floor", url, str(bare)]
    servers = ((bare, "", sides[0]), (served, "/api/v1", sides[1]))
    progress = bench.stage("http", turns * _KINDS)
    with (
        running(floor, bare, bench.folder / "floor.log"),
        running(lifecycle_serve(url, served), served, bench.folder / "http.log"),
    ):
        return asyncio.run(_compared(servers, turns, seconds, progress))


async def _compared(
    servers: Sequence[tuple[int, str, list[str]]], turns: int, seconds: float, progress: Callable[[], None]
) -> list[Compared]:
    kinds: dict[str, Callable[[str, str, int], bytes]] = {
        "get a session": lambda prefix, session, _: _request("GET", f"{prefix}/sessions/{session}"),
        "save a state": lambda prefix, session, n: _request(
            "PATCH", f"{prefix}/sessions/{session}/state", json.dumps({"step": n, "context": context(n)}).encode()
        ),
        "list 20 sessions": lambda prefix, _, __: _request("GET", f"{prefix}/sessions"),
    }
    taken = {name: (_Taken(), _Taken()) for name in kinds}
    for turn in range(-1, turns):
        for name, made in kinds.items():
            # Who goes first changes, so that neither always meets the other's leavings.
            for side in (0, 1) if turn % 2 else (1, 0):
                port, prefix, ids = servers[side]
                spent = await _slice(port, seconds, [made(prefix, session, turn + 1) for session in ids])
                if turn >= 0:
                    taken[name][side].rates.append(len(spent) / seconds)
                    taken[name][side].seconds += spent
            if turn >= 0:
                progress()
    return [Compared(name, *(side.load() for side in both)) for name, both in taken.items()]


async def _slice(port: int, seconds: float, requests: list[bytes]) -> list[float]:
    """How long each request took of those that were answered in a slice of time."""
    spent: list[float] = []
    end = time.perf_counter() + seconds

    async def send(first: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        turn = first
        while (began := time.perf_counter()) < end:
            writer.write(requests[turn % len(requests)])
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            spent.append(time.perf_counter() - began)
            turn += AT_ONCE
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(send(first) for first in range(AT_ONCE)))
    return spent


def _request(method: str, path: str, body: bytes = b"") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


_COLUMNS: Final = (
    "request",
    "bare (1/s)",
    "lifecycle (1/s)",
    "ratio",
    "bare p99 (ms)",
    "lifecycle p99 (ms)",
    "ratio of p99",
)


def _row(one: Compared) -> list[str]:
    return [
        one.name,
        f"{one.floor.per_second:,.0f}",
        f"{one.ours.per_second:,.0f}",
        f"{one.ours.per_second / one.floor.per_second:.2f}",
        f"{one.floor.p99_ms:.1f}",
        f"{one.ours.p99_ms:.1f}",
        f"{one.ours.p99_ms / one.floor.p99_ms:.2f}",
    ]

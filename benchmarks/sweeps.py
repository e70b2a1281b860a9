"""Sweeps at size on PostgreSQL: beside hand-written SQL, among few and among many sessions, and what they leave behind."""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Final

import psycopg
import typer
from rich.console import Console

from benchmarks import floor_sweeps
from benchmarks.bench import Bench, Section
from benchmarks.grid import Grid
from benchmarks.population import without_indexes
from lifecycle import ALL, SessionManager, Settings
from lifecycle.models import tables as t

FEW, MANY = 10_000, 1_000_000
_DUE: Final = 5_000
_MOST_DUE: Final = 100_000
_MESSAGES: Final = 5
_EMPTY: Final = 20
_CYCLES: Final = 20
_OF_A_CYCLE: Final = 1_000
# Each side does so many parts of what is due, by turns.
_PARTS: Final = 5
_SECONDS: Final = 90.0
_SWEEPS: Final = ("expire_idle", "prune_sessions")

_HEAD: Final = """## Sweeps at size

`expire_idle` writes an audit row for each session, `prune_sessions` removes each with {messages} messages, two audit rows and
its other rows (`benchmarks/sweeps.py`). The floor is the same work in hand-written SQL on our tables
(`benchmarks/floor_sweeps.py`), by turns on the same database, with batches as large as it gets; ours are as large as a quarter
of a second allows. Ids are UUIDv7, what is due are the sessions that were active longest ago, and none is vacuumed meanwhile.
"""
_AFTER: Final = """A sweep that finds nothing, right after those of {due:,} among {sessions:,} and before any vacuum: the first time, and the
median of {times}.
"""
_GROWTH: Final = """{cycles} times {sessions:,} sessions come, expire, are removed and forgotten, with a VACUUM after each: kilobytes of the tables with
their indexes.
"""

# `prior` are days since the last activity. The first ones are due since a day.
_NUMBERED: Final = """
SELECT i, lpad(to_hex(1700000000000 + i::bigint * 2592), 12, '0') AS at, md5(%(seed)s || i) AS dice
FROM generate_series(1, %(n)s) AS i"""
_IDS: Final = f"""
SELECT i, left(at, 8) || '-' || right(at, 4) || '-7' || left(dice, 3) || '-8' || substr(dice, 4, 3) || '-' || right(dice, 12)
  AS id, dice FROM ({_NUMBERED}) AS numbered"""
_FILL: Final = (
    f"""
INSERT INTO sessions (tenant, session_id, kind, user_id, agent_id, title, title_folded, state, metadata, config, version,
  next_seq, message_count, created_at, updated_at, listed_at, last_active_at, idle_active, idle_suspended, expires_at)
SELECT '', id, 'chat', 'user' || i %% 20000, 'agent' || i %% 50, 'About order ' || i, 'about order ' || i, 'active', '{{}}',
  '{{}}', 1, 2 + {_MESSAGES}, {_MESSAGES}, at, at, date_trunc('minute', at), at, 86400, 2592000,
  CASE WHEN i <= %(due)s THEN now() - interval '1 day' + i * interval '1 millisecond'
    ELSE now() + interval '1 day' + i * interval '1 millisecond' END
FROM (SELECT *, now() - (1 - i::float8 / %(n)s) * interval '30 days' AS at FROM ({_IDS}) AS made) AS dated""",
    f"""
INSERT INTO session_transitions (tenant, session_id, seq, trigger_name, to_state, version, txid, created_at)
SELECT '', id, 1, 'create', 'active', 1, 1, now() FROM ({_IDS}) AS made""",
    f"""
INSERT INTO session_messages (tenant, session_id, seq, message_id, role, content, encoding, created_at)
SELECT '', id, s, left(md5(dice || s), 12), 'user', repeat(dice, 5), 'text', now()
FROM ({_IDS}) AS made, generate_series(2, 1 + {_MESSAGES}) AS s WHERE i <= %(talked)s""",
)
_TABLES: Final = ("sessions", "session_transitions", "session_messages")


@dataclass(frozen=True, slots=True)
class Swept:
    """What a session took on either side, in microseconds: medians of the parts."""

    sweep: str
    sessions: int
    due: int
    floor_us: float
    ours_us: float

    @property
    def ratio(self) -> float:
        """Our sessions a second to the floor's."""
        return self.floor_us / self.ours_us


@dataclass(frozen=True, slots=True)
class Empty:
    """What a sweep takes that finds nothing, in milliseconds."""

    sweep: str
    first_ms: float
    median_ms: float


@dataclass(slots=True)
class Measured:
    """All of it; `sizes` are those of the tables with their indexes after each cycle, in bytes."""

    swept: list[Swept] = field(default_factory=list)
    empty: list[Empty] = field(default_factory=list)
    sizes: list[dict[str, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many sessions there are, how many of them are due, and how many come in each cycle."""

    few: int = FEW
    many: int = MANY
    due: int = _DUE
    most_due: int = _MOST_DUE
    cycles: int = _CYCLES
    of_a_cycle: int = _OF_A_CYCLE
    # Whether messages are there only of sessions that will be due: five million more take their time.
    talkative: bool = False


QUICK: Final = Sizes(few=200, many=600, due=100, most_due=200, cycles=2, of_a_cycle=20)


def section(bench: Bench) -> Section:
    """Both sweeps beside the floor, at both sizes, empty ones behind them, and what is left after many."""
    sizes = bench.pick(Sizes(), QUICK)
    measured = measure(bench, sizes)
    return Section(_figures(measured), _grids(measured, sizes, rich=True), _markdown(measured, sizes), _asked(measured))


def measure(bench: Bench, sizes: Sizes) -> Measured:
    """Measure it. Raises `ServerUnavailable` without PostgreSQL."""
    progress = bench.stage("sweeps", 6)
    measured = Measured()
    with contextlib.ExitStack() as stack:
        places = []
        for sessions in (sizes.few, sizes.many):
            url = stack.enter_context(bench.postgresql(f"sweeps_{sessions}"))
            fill(url, sessions, sizes.due, sessions if sizes.talkative else sizes.due + sizes.most_due)
            places.append(stack.enter_context(_place(url, sessions)))
            progress()
        until = bench.until(_SECONDS)
        measured.swept += _race(places, sizes.due, until)
        progress()
        large = places[1:]
        large[0].make_due(sizes.most_due)
        progress()
        measured.swept += _race(large, sizes.most_due, until, measured.empty)
        progress()
        stack.close()
    with bench.postgresql("cycles") as url:
        measured.sizes = list(cycles(url, sizes.cycles, sizes.of_a_cycle))
    progress()
    return measured


class _Place:
    """A database with both sides' connections to it."""

    def __init__(self, sessions: int, manager: SessionManager, raw: psycopg.Connection[Any]) -> None:
        self.sessions = sessions
        self.manager = manager
        self.raw = raw

    def sides(self, sweep: str, part: int) -> dict[str, Callable[[], int]]:
        """What does a part of what is due, on either side: how many it was."""
        ours, floor = getattr(self.manager, sweep), getattr(floor_sweeps, sweep)
        return {
            "ours": lambda: int(ours(batch=min(part, 10_000), go_on=lambda count: count < part).count),
            "floor": lambda: int(floor(self.raw, part)),
        }

    def make_due(self, count: int) -> None:
        """Have the next so many sessions be due, and vacuum as autovacuum would."""
        self.raw.execute(
            "UPDATE sessions SET expires_at = expires_at - interval '2 days' WHERE ctid = ANY(ARRAY(SELECT ctid FROM"
            " sessions WHERE state = 'active' ORDER BY expires_at LIMIT %s))",
            (count,),
        )
        self.raw.execute("VACUUM ANALYZE sessions")


@contextlib.contextmanager
def _place(url: str, sessions: int) -> Iterator[_Place]:
    settings = Settings(database={"url": url, "notify": False}, policies={"default": {"retention": "1s"}})
    with SessionManager.open(settings, tenant=ALL) as manager, psycopg.connect(url, autocommit=True) as raw:
        yield _Place(sessions, manager, raw)


def _race(places: Sequence[_Place], due: int, until: float, empty: list[Empty] | None = None) -> Iterator[Swept]:
    """Have both sides do what is due everywhere, part by part; who goes first changes."""
    part = max(1, due // (2 * _PARTS))
    for sweep in _SWEEPS:
        spent: dict[tuple[int, str], list[float]] = {}
        for turn in range(_PARTS):
            for place in places:
                calls = list(place.sides(sweep, part).items())
                for side, call in calls if turn % 2 else reversed(calls):
                    began = time.perf_counter()
                    done = call()
                    taken = time.perf_counter() - began
                    if done:
                        spent.setdefault((place.sessions, side), []).append(taken / done * 1e6)
            if time.monotonic() > until:
                break
        for place in places:
            # What is left is done without being measured, so that nothing is due then.
            getattr(place.manager, sweep)()
            if empty is not None:
                empty.append(_nothing(place, sweep))
            medians = {side: statistics.median(spent[place.sessions, side]) for side in ("floor", "ours")}
            yield Swept(sweep, place.sessions, due, medians["floor"], medians["ours"])
        if sweep != _SWEEPS[-1]:
            time.sleep(1.1)  # then what was expired is to be pruned


def _nothing(place: _Place, sweep: str) -> Empty:
    taken = []
    for _ in range(_EMPTY):
        began = time.perf_counter()
        report = getattr(place.manager, sweep)()
        taken.append((time.perf_counter() - began) * 1000)
        assert report.count == 0, report
    return Empty(sweep, taken[0], statistics.median(taken))


def fill(url: str, sessions: int, due: int, talked: int) -> None:
    """Add sessions, of which the first ones are due and the first ones (`talked`) have messages.

    The indexes are made behind the rows, and autovacuum leaves the tables alone from then on.
    """
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute("SET maintenance_work_mem = '256MB'")
        for table in t.metadata.tables:
            connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)".encode())
        with without_indexes(connection, *_TABLES):
            for statement in _FILL:
                values = {"n": sessions, "due": due, "talked": talked, "seed": ""}
                connection.execute(statement.encode(), values, prepare=False)
        connection.execute("VACUUM ANALYZE")


def cycles(url: str, times: int, sessions: int) -> Iterator[dict[str, int]]:
    """So many times: fill, expire, prune, trim, vacuum. The sizes after each, in bytes, by table, indexes included."""
    settings = Settings(
        database={"url": url, "notify": False},
        policies={"default": {"retention": "1s"}},
        housekeeping={"tombstones": 60},
    )
    with SessionManager.open(settings, tenant=ALL) as manager, psycopg.connect(url, autocommit=True) as connection:
        for name in t.metadata.tables:
            connection.execute(f"ALTER TABLE {name} SET (autovacuum_enabled = off)".encode())
        for cycle in range(times):
            for statement in _FILL:
                values = {"n": sessions, "due": sessions, "talked": sessions, "seed": str(cycle)}
                moved = statement.replace("1700000000000", f"17{cycle:03}00000000")
                connection.execute(moved.encode(), values, prepare=False)
            assert manager.expire_idle().count == sessions
            connection.execute("UPDATE sessions SET prune_at = now()")
            assert manager.prune_sessions().count == sessions
            connection.execute("UPDATE session_transitions SET created_at = created_at - interval '1 hour'")
            assert manager.trim() == sessions
            connection.execute("VACUUM")
            rows = connection.execute(
                "SELECT name, pg_total_relation_size(name::regclass) FROM unnest(%s::text[]) AS name", (list(_TABLES),)
            )
            yield dict(rows.fetchall())


def _figures(measured: Measured) -> Any:
    return asdict(measured) | {"swept": [asdict(one) | {"ratio": one.ratio} for one in measured.swept]}


def _asked(measured: Measured) -> dict[str, float]:
    found = {}
    for sweep in _SWEEPS:
        name = sweep.partition("_")[0]
        few, many, most = (one for one in measured.swept if one.sweep == sweep)
        found[name] = most.ratio
        found[f"{name}, size"] = many.ours_us / few.ours_us
    found["empty sweep"] = max(one.median_ms for one in measured.empty)
    return found


def _grids(measured: Measured, sizes: Sizes, *, rich: bool) -> list[Any]:
    swept = Grid(
        ("sweep", "sessions", "due", "floor (µs a session)", "lifecycle (µs a session)", "sessions/s", "to the floor"),
        [
            (one.sweep, f"{one.sessions:,}", f"{one.due:,}", f"{one.floor_us:.0f}", f"{one.ours_us:.0f}",
             f"{1e6 / one.ours_us:,.0f}", f"{one.ratio:.2f}")
            for one in measured.swept
        ],
    )  # fmt: skip
    empty = Grid(
        ("empty sweep", "first (ms)", "median (ms)"),
        [(one.sweep, f"{one.first_ms:.1f}", f"{one.median_ms:.1f}") for one in measured.empty],
    )
    shown = sorted({place for place in (1, 2, 5, 10, 15, 20, sizes.cycles) if place <= sizes.cycles})
    grown = Grid(
        ("table", *(f"cycle {place}" for place in shown)),
        [(name, *(f"{measured.sizes[place - 1][name] // 1000:,}" for place in shown)) for name in _TABLES],
    )
    return [grid.rich() if rich else grid.markdown() for grid in (swept, empty, grown)]


def _markdown(measured: Measured, sizes: Sizes) -> str:
    swept, empty, grown = _grids(measured, sizes, rich=False)
    after = _AFTER.format(due=sizes.most_due, sessions=sizes.many, times=_EMPTY)
    growth = _GROWTH.format(cycles=sizes.cycles, sessions=sizes.of_a_cycle)
    return "\n".join((_HEAD.format(messages=_MESSAGES), swept, after, empty, growth, grown))


def main(
    few: Annotated[int, typer.Option(help="sessions of the small database")] = FEW,
    many: Annotated[int, typer.Option(help="sessions of the large one")] = MANY,
    due: Annotated[int, typer.Option(help="of which are due in both")] = _DUE,
    most_due: Annotated[int, typer.Option(help="of which are due in the large one then")] = _MOST_DUE,
    cycles: Annotated[int, typer.Option(help="how often sessions come and go")] = _CYCLES,
    of_a_cycle: Annotated[int, typer.Option(help="how many of them each time")] = _OF_A_CYCLE,
    *,
    talkative: Annotated[bool, typer.Option("--talkative", help="messages for every session")] = False,
) -> None:
    """Measure the sweeps at sizes of one's own."""
    sizes = Sizes(few, many, due, most_due, cycles, of_a_cycle, talkative)
    with contextlib.ExitStack() as stack:
        bench = Bench(stack, lambda *_: lambda: None, turns=1, quick=False)
        for table in _grids(measure(bench, sizes), sizes, rich=True):
            Console().print(table)


if __name__ == "__main__":
    typer.run(main)

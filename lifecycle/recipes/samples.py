"""Samples: counting sessions through indexes, and the audit log by hour, in the order in which it was committed.

The log is read as a watch reads it (`watching.py`), so that what commits late is passed over by nobody. The place up to
which it is counted is a row of `worker_jobs`, locked first and written in the transaction that adds to the hours: each
line is counted once, whoever counts and whatever dies. Its hour is that of its own time, late or not.
"""

import hashlib
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from lifecycle import states
from lifecycle.errors import InvalidArgument
from lifecycle.models import tables as t
from lifecycle.models.types import EPOCH, Timestamp, now
from lifecycle.operations import requests as r
from lifecycle.operations.places import START, Place, read_cursor
from lifecycle.recipes import keyed, mariadb_watching, sweeps, watching
from lifecycle.recipes.portable.base import NOW, Recipe, Row, bound, insert, is_in, p, setting
from lifecycle.recipes.statement import Many, Statement

S = t.sessions.c
T = t.transitions.c
# Rows of `worker_jobs` that are no jobs: when sessions were last counted (and a tenant's own behind a colon), and up to
# where the log is.
LOOKS: Final = "samples"
LOG: Final = "samples_log"
# The sums over all tenants stand with the nameless tenant, under the name behind this.
_ALL: Final = "*"
_ID_CHARS: Final = 255
# A log of fewer lines is counted from its beginning.
_SHORT_LOG: Final = 200_000
_HOUR: Final = timedelta(hours=1)


class hour_of(FunctionElement[int]):  # noqa: N801 - reads as the SQL function it is
    """The whole hours from the epoch to a time."""

    type = sa.BigInteger()
    inherit_cache = True
    name = "hour_of"


@compiles(hour_of, "postgresql")
def _hour_postgresql(element: hour_of, compiler: Any, **more: Any) -> str:
    return f"floor(extract(epoch FROM {compiler.process(element.clauses, **more)}) / 3600)::bigint"


@compiles(hour_of, "mysql", "mariadb")
def _hour_mariadb(element: hour_of, compiler: Any, **more: Any) -> str:
    return f"timestampdiff(HOUR, '1970-01-01', {compiler.process(element.clauses, **more)})"


@compiles(hour_of, "sqlite")
def _hour_sqlite(element: hour_of, compiler: Any, **more: Any) -> str:
    return f"({compiler.process(element.clauses, **more)} / 3600000000)"


# --- what there is


@cache
def _by_state(tenant: bool, deleted: bool) -> Statement:
    # Without a condition that the index on tenant and state does not hold, so that it is enough by itself; what is
    # hidden is little, has an index of its own, and is taken off.
    chosen = sa.select(S.tenant, S.state, sa.func.count().label("n")).group_by(S.tenant, S.state)
    if deleted:
        chosen = chosen.where(S.deleted_at.is_not(None))
    return Statement(chosen.where(S.tenant == p("tenant")) if tenant else chosen)


@cache
def _due(tenant: bool, sweep: str) -> Statement:
    chosen = states.TERMINAL if sweep == "prune_sessions" else ()
    table, match, order = sweeps.predicate(r.Due("" if tenant else None, sweep, states=chosen))
    oldest = (
        sa.select(table.c.tenant, order.label("due"))
        .where(match)
        .order_by(order)
        .limit(p("limit", sa.Integer()))
        .subquery("oldest")
    )
    columns = (oldest.c.tenant, sa.func.count().label("n"), sa.func.min(oldest.c.due, type_=Timestamp()).label("since"))
    return Statement(sa.select(*columns).group_by(oldest.c.tenant))


@cache
def _grouped(tenant: bool, name: str) -> Statement:
    if name == "leased":
        table, match = t.sessions, [S.lease_holder.is_not(None), S.lease_expires_at > p("now", Timestamp())]
    else:
        table, match = t.approvals, [is_in(t.approvals.c.state, ("pending",))]
    chosen = sa.select(table.c.tenant, sa.func.count().label("n")).where(*match).group_by(table.c.tenant)
    return Statement(chosen.where(table.c.tenant == p("tenant")) if tenant else chosen)


def count_sessions(request: r.CountSessions) -> Recipe:
    """Count by tenant: by state, what is due, what waits for a person, what is leased."""
    (clock,) = yield NOW, {}
    tenant = request.tenant is not None
    values = bound({"tenant": request.tenant, "limit": request.limit, "now": clock["now"]})
    numbers: dict[str, dict[str, float]] = {}
    for hidden in (False, True):
        for row in (yield _by_state(tenant, hidden), values):
            own = numbers.setdefault(row["tenant"], {})
            own[row["state"]] = row["n"] if not hidden else max(0, own.get(row["state"], 0) - row["n"])
    for sweep, name in (("expire_idle", "due_to_expire"), ("prune_sessions", "due_to_prune")):
        for row in (yield _due(tenant, sweep), values):
            own = numbers.setdefault(row["tenant"], {})
            own[name] = row["n"]
            if name == "due_to_expire":
                own["backlog_age"] = max(0.0, (clock["now"] - row["since"]).total_seconds())
    for name in ("pending_approvals", "leased"):
        for row in (yield _grouped(tenant, name), values):
            numbers.setdefault(row["tenant"], {})[name] = row["n"]
    return numbers


_LEDGER = Statement(
    sa.select(t.worker_jobs.c.last_finished_at, t.worker_jobs.c.last_result, now().label("now"))
    .where(t.worker_jobs.c.job == p("job"), t.worker_jobs.c.slice_no == p("slice_no"))
)  # fmt: skip
_LOCKED = Statement(_LEDGER.expression.with_for_update())  # type: ignore[attr-defined]


def _looks_of(tenant: str | None) -> str:
    if tenant is None:
        return LOOKS
    row = f"{LOOKS}:{tenant}"
    return row if len(row) <= _ID_CHARS else f"{LOOKS}:{hashlib.sha256(tenant.encode()).hexdigest()}"


def _last_look(tenant: str | None) -> Recipe:
    """The row of the last look that counted the tenant's sessions: one of its own, or one at everybody's."""
    found: list[Row] = []
    for scope in dict.fromkeys((tenant, None)):
        found += yield _LEDGER, bound({"job": _looks_of(scope), "slice_no": 0})
    return max(found, key=lambda row: row["last_finished_at"], default=None)


def read_sampled(request: r.ReadSampled) -> Recipe:
    """When sessions were last counted."""
    (clock,) = yield NOW, {}
    found = yield from _last_look(request.tenant)
    if found is None:
        return None, 0.0, clock["now"]
    return found["last_finished_at"], json.loads(found["last_result"])["seconds"], clock["now"]


def _keep(job: str, at: datetime, result: dict[str, Any], *, known: bool) -> Recipe:
    own, values = {"job": job, "slice_no": 0}, {"last_finished_at": at, "last_result": json.dumps(result)}
    if known:
        yield setting(t.worker_jobs, own, values)
    else:
        yield insert(t.worker_jobs, (*own, *values)), bound(own | values)


def _ten_minutes(at: datetime) -> datetime:
    return at.replace(minute=at.minute // 10 * 10, second=0, microsecond=0)


@cache
def _zero(tenant: bool, names: tuple[str, ...]) -> Statement:
    c = t.samples.c
    chosen = sa.update(t.samples).where(c.sampled_at == p("sampled_at", Timestamp()), is_in(c.name, names))
    if tenant:
        chosen = chosen.where(c.tenant == p("tenant"))
    return Statement(chosen.values(value=sa.literal_column("0")))


def _sample(tenant: str, name: str, at: datetime, value: float) -> Row:
    return bound({"tenant": tenant, "name": name, "sampled_at": at, "value": round(value)})


def store_samples(upsert: Statement) -> Callable[[r.StoreSamples], Recipe]:
    """The recipe for numbers of the same ten minutes: the last ones stay, and what is not among them is 0."""

    def store(request: r.StoreSamples) -> Recipe:
        (clock,) = yield NOW, {}
        # Locked first, so that two looks at once leave the numbers of one of them.
        known = yield _LOCKED, bound({"job": _looks_of(request.tenant), "slice_no": 0})
        at = _ten_minutes(clock["now"])
        named = (*request.totals, *(_ALL + name for name in request.totals))
        yield _zero(request.tenant is not None, named), bound({"sampled_at": at, "tenant": request.tenant})
        rows = [
            _sample(tenant, name, at, value)
            for tenant, own in sorted(request.numbers.items())
            # What is 0 takes no row, `active` aside, which tells that there was a look.
            for name, value in sorted({"active": 0.0, **own}.items())
            if value or name == "active"
        ]
        if request.tenant is None:
            rows += [_sample("", _ALL + name, at, value) for name, value in sorted(request.totals.items())]
        if rows:
            yield Many(upsert, rows)
        result = {"seconds": round(request.seconds, 6)}
        yield from _keep(_looks_of(request.tenant), clock["now"], result, known=bool(known))

    return store


_SPAN = Statement(sa.select(sa.func.min(T.id).label("low"), sa.func.max(T.id).label("high")))
_FIRST = Statement(sa.select(T.created_at).where(T.id == p("id", sa.BigInteger())))


def count_transitions(
    start_watch: Callable[[r.StartWatch], Recipe],
    prepare: Callable[[int], Recipe],
    position: Any,
    behind: tuple[Any, ...],
    upto: Any,
    *,
    add: Statement,
) -> Callable[[r.CountTransitions], Recipe]:
    """The recipe for a log that a watch goes through by `position`, from `start_watch` on.

    `prepare` makes the next lines ready to be read and tells whether there are more; `behind` is the condition of
    lines behind a place, `upto` that of lines up to another.
    """
    line = (position, T.id)
    edge = sa.select(position.label("position"), T.id).where(*behind)
    full = Statement(edge.order_by(*dict.fromkeys(line)).offset(p("offset", sa.Integer())).limit(_ONE))
    last = Statement(edge.order_by(*(column.desc() for column in dict.fromkeys(line))).limit(_ONE))
    hour: Any = hour_of(T.created_at)
    groups = Statement(
        sa.select(T.tenant, T.trigger_name, hour.label("hour"), sa.func.count().label("n"))
        .where(*behind, upto)
        .group_by(T.tenant, T.trigger_name, hour)
    )

    def begin(at: datetime) -> Recipe:
        """Where to begin: at the beginning of a short log, at the end of a long one; None while that is not ready."""
        (span,) = yield _SPAN, {}
        if span["low"] is not None and span["high"] - span["low"] < _SHORT_LOG:
            (first,) = yield _FIRST, {"p_id": span["low"]}
            return (yield from start_watch(r.StartWatch(START))), first["created_at"]
        return (yield from start_watch(r.StartWatch(None))), at

    def count(request: r.CountTransitions) -> Recipe:
        (clock,) = yield NOW, {}
        known = yield _LOCKED, bound({"job": LOG, "slice_no": 0})
        lost = not known
        if known:
            kept = json.loads(known[0]["last_result"])
            began, totals = datetime.fromisoformat(kept["began"]), kept["totals"]
            try:
                place = yield from start_watch(r.StartWatch(read_cursor(kept["cursor"])))
            except InvalidArgument:  # the database was set back behind it
                place, lost = (yield from start_watch(r.StartWatch(None))), True
        else:
            place, began = yield from begin(clock["now"])
            totals = {}
        if place is None:
            return 0, True
        more = yield from prepare(request.limit)
        values = bound({"position": place.position, "id": place.id})
        found = yield full, values | {"p_offset": request.limit - 1}
        more = more or bool(found)
        found = found or (yield last, values)
        if found:
            end = found[0]
            counted = yield groups, values | bound({"last_position": end["position"], "last_id": end["id"]})
            place = Place(place.source, end["position"], end["id"])
            yield Many(add, _added(counted))
        else:
            counted = []
        if found or lost:
            for row in counted:
                totals[row["trigger_name"]] = totals.get(row["trigger_name"], 0) + row["n"]
            result = {"cursor": place.cursor(), "began": began.isoformat(), "totals": totals}
            yield from _keep(LOG, clock["now"], result, known=bool(known))
        return sum(row["n"] for row in counted), more

    return count


def _added(counted: list[Row]) -> list[Row]:
    numbers: dict[tuple[str, str, datetime], int] = {}
    for row in counted:
        at = EPOCH + _HOUR * int(row["hour"])
        for key in ((row["tenant"], row["trigger_name"], at), ("", _ALL + row["trigger_name"], at)):
            numbers[key] = numbers.get(key, 0) + row["n"]
    return [_sample(*key, n) for key, n in sorted(numbers.items())]


_ONE: Any = sa.literal_column("1")
_LAST: Any = (p("last_position", sa.BigInteger()), p("last_id", sa.BigInteger()))
# By the pair where an index is searched by it: one transaction may have written any number of lines.
_BY_PAIR = sa.tuple_(T.txid, T.id) <= sa.tuple_(*_LAST)
# MariaDB finds no range of the index in that; a number of its has a thousand lines at most.
_BY_PARTS = sa.and_(T.txid <= _LAST[0], sa.or_(T.txid < _LAST[0], T.id <= _LAST[1]))


@cache
def _read(names: int) -> Statement:
    c = t.samples.c
    among = c.name.in_([p(f"name_{i}") for i in range(names)])
    chosen = sa.select(c.name, c.sampled_at, c.value).where(
        c.tenant == p("tenant"), among, c.sampled_at >= p("since", Timestamp())
    )
    return Statement(chosen.order_by(c.sampled_at))


def read_samples(request: r.ReadSamples) -> Recipe:
    """Read the rows of one tenant, or the sums over all."""
    (clock,) = yield NOW, {}
    look = yield from _last_look(request.tenant)
    log = yield _LEDGER, bound({"job": LOG, "slice_no": 0})
    at = None if look is None else look["last_finished_at"]
    kept = json.loads(log[0]["last_result"]) if log else None
    began = datetime.fromisoformat(kept["began"]) if kept else None
    since = request.since if request.since is not None or at is None else _ten_minutes(at)
    rows: list[Row] = []
    if since is not None:
        sums = _ALL if request.tenant is None else ""
        names = {f"name_{i}": sums + name for i, name in enumerate(request.names)}
        rows = yield _read(len(names)), bound({"tenant": request.tenant or "", "since": since, **names})
    rows = [row | {"name": row["name"].removeprefix(_ALL)} for row in rows]
    return at, began, clock["now"], rows, kept["totals"] if kept else {}


def _upserts(dialect: str) -> tuple[Statement, Statement]:
    """Two statements that insert a sample: one in the place of what is there, one on top of it."""
    values = {name: p(name, t.samples.c[name].type) for name in t.samples.c.keys()}  # noqa: SIM118 -- no mapping
    if dialect == "mysql":
        made = mysql.insert(t.samples).values(values)
        sums = t.samples.c.value + made.inserted.value
        return (
            Statement(made.on_duplicate_key_update(value=made.inserted.value)),
            Statement(made.on_duplicate_key_update(value=sums)),
        )
    kind: Any = postgresql if dialect == "postgresql" else sqlite
    put = kind.insert(t.samples).values(values)
    by = [t.samples.c.tenant, t.samples.c.name, t.samples.c.sampled_at]
    return (
        Statement(put.on_conflict_do_update(index_elements=by, set_={"value": put.excluded.value})),
        Statement(put.on_conflict_do_update(index_elements=by, set_={"value": t.samples.c.value + put.excluded.value})),
    )


def _ready(_limit: int) -> Recipe:
    """Nothing is to be done before lines are read."""
    yield from ()
    return False


def _dialect(name: str, *log: Any) -> dict[type[r.Request], Callable[[Any], Recipe]]:
    put, add = _upserts(name)
    return {
        r.ReadSampled: read_sampled,
        r.CountSessions: count_sessions,
        r.StoreSamples: store_samples(put),
        r.CountTransitions: count_transitions(*log, add=add),
        r.ReadSamples: read_samples,
    }


RECIPES: dict[str, dict[type[r.Request], Callable[[Any], Recipe]]] = {
    "postgresql": _dialect(
        "postgresql", keyed.recipe(watching.SINGLES[r.StartWatch]), _ready, T.txid, watching.SETTLED, _BY_PAIR
    ),
    "sqlite": _dialect("sqlite", watching.start_watch, _ready, T.id, watching.BY_ID, _LAST[1] >= T.id),
    "mysql": _dialect(
        "mysql", mariadb_watching.start_watch, mariadb_watching.number_committed, T.txid, mariadb_watching.BY_NUMBER,
        _BY_PARTS,
    ),
}  # fmt: skip

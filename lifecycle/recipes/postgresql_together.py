"""How PostgreSQL meets several requests in one round trip: their statements in one pipeline and one transaction.

A statement that refuses a write says so by having no row, which nobody can look at before COMMIT is on its way. So the
first statement locks all the sessions and checks for all of the writes what each of them checks again, and fails unless
every one will be met. Whatever fails is then met the ordinary way (`portable/combined.py`), which waits for locks and
knows what was refused.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from lifecycle.models import tables as t
from lifecycle.operations import requests as r
from lifecycle.recipes.portable.base import bound, is_in, key, p
from lifecycle.recipes.portable.messages import messages_statement
from lifecycle.recipes.postgresql import FREE, LIVE, S
from lifecycle.recipes.postgresql_chunks import TEXTS
from lifecycle.recipes.statement import Single, Statement

Rows = list[dict[str, Any]]
Sent = tuple[Statement, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A recipe of several statements, all known beforehand; `statements` gives None where it has to be another way."""

    statements: Callable[[Any], list[Sent] | None]
    read: Callable[[Any, list[Rows]], Any]


_SAVE: Any = sa.literal_column("'save'")
_ADD: Any = sa.literal_column("'add'")


def _guard() -> Statement:
    """Lock sessions in the order of their keys; fail by dividing by zero where not all are as they should be."""
    texts = ("tenant", "session_id", "what", "holder", "phase")
    numbers = ("epoch", "expected")
    whole = sa.dialects.postgresql.ARRAY(sa.BigInteger())
    wanted = (
        sa.func.unnest(*(p(name, TEXTS) for name in texts), *(p(name, whole) for name in numbers))
        .table_valued(
            *(sa.column(name, sa.Text()) for name in texts),
            *(sa.column(name, sa.BigInteger()) for name in numbers),
            name="wanted",
        )
        .render_derived()
    )
    fenced = sa.and_(S.lease_holder.is_not_distinct_from(wanted.c.holder), S.lease_epoch == wanted.c.epoch)
    allowed = sa.and_(LIVE, sa.case((wanted.c.holder.is_(None), FREE), else_=fenced))
    named = sa.and_(S.tenant == wanted.c.tenant, S.session_id == wanted.c.session_id, S.deleted_at.is_(None))
    met = sa.case(
        (wanted.c.what == _SAVE, sa.and_(allowed, is_in(S.state, ("active",)))),
        (wanted.c.what == _ADD, allowed),
        else_=S.phase.is_not_distinct_from(wanted.c.phase),
    )
    locked = (
        sa.select(S.session_id)
        .select_from(t.sessions)
        .join(wanted, named)
        .where(met, sa.or_(wanted.c.expected.is_(None), S.version == wanted.c.expected))
        .order_by(S.tenant, S.session_id)
        .with_for_update(of=t.sessions)
        .cte("locked")
    )
    one, zero = sa.literal_column("1", sa.BigInteger()), sa.literal_column("0", sa.BigInteger())
    all_there = sa.select(sa.func.count()).select_from(locked).scalar_subquery() == sa.cast(p("n"), sa.BigInteger())
    return Statement(sa.select(one.op("/")(sa.case((all_there, one), else_=zero)).label("checked")))


_GUARD: Final = _guard()
# What it checks of each; there is nothing else to do about an `Expect`.
_CHECKED: Final[Mapping[type[r.Request], str]] = {r.SaveState: "save", r.AddMessages: "add", r.Expect: "expect"}


def _guarding(writes: Sequence[Any]) -> Sent:
    fences = [getattr(write, "fence", None) or (None, None) for write in writes]
    values = {
        "tenant": [write.tenant for write in writes],
        "session_id": [write.session_id for write in writes],
        "what": [_CHECKED[type(write)] for write in writes],
        "holder": [holder for holder, _ in fences],
        "epoch": [epoch for _, epoch in fences],
        "expected": [
            write.version if isinstance(write, r.Expect) else getattr(write, "expected", None) for write in writes
        ],
        "phase": [getattr(write, "phase", None) for write in writes],
        "n": len(writes),
    }
    return _GUARD, bound(values)


def pipelines(singles: Mapping[type[r.Request], Single]) -> dict[type[r.Request], Pipeline]:
    """The pipelines of `Together` and `ReadTogether`, made of these."""

    def statements(request: r.Together) -> list[Sent] | None:
        writes = [one for one in request.requests if not isinstance(one, r.READS)]
        if not all(type(one) in _CHECKED for one in writes):
            return None
        sent = [(singles[type(one)].statement(one), singles[type(one)].bind(one)) for one in asked(request)]
        return [_guarding(writes), *sent] if writes else sent

    def read(request: r.Together, rows: list[Rows]) -> list[Any]:
        answers = iter(rows[len(rows) - len(asked(request)) :])
        return [
            True if isinstance(one, r.Expect) else singles[type(one)].read(one, next(answers))
            for one in request.requests
        ]

    def asked(request: r.Together) -> list[Any]:
        return [one for one in request.requests if not isinstance(one, r.Expect)]

    pipeline = Pipeline(statements, read)
    return {r.Together: pipeline, r.ReadTogether: pipeline}


def _read_messages(request: r.GetMessages, rows: Rows) -> Rows:
    return rows[::-1] if request.before is not None and request.after is None else rows


SINGLES: Final[dict[type[r.Request], Single]] = {
    r.GetMessages: Single(
        lambda request: messages_statement(
            request.since is not None, request.after is not None, request.before is not None
        ),
        lambda request: (
            key(request)
            | bound({name: getattr(request, name) for name in ("limit", "offset", "since", "after", "before")})
        ),
        _read_messages,
    ),
}

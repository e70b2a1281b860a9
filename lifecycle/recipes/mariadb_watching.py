"""How a watch goes through the audit log on MariaDB: by numbers that are stamped on lines once they are committed.

Ids are given before the commit, and transactions commit in any order: a reader that goes by ids would pass over what
commits late. So those who watch number the committed lines that have no number yet, one at a time, under the lock of a
row that keeps the last number given; it is held until the commit, so numbers become visible in their order.
"""

from functools import cache
from typing import Any

import sqlalchemy as sa

from lifecycle.models import tables as t
from lifecycle.operations import requests as r
from lifecycle.operations.places import Place, check_source
from lifecycle.recipes.portable.base import Recipe, bound, p, setting
from lifecycle.recipes.statement import Statement
from lifecycle.recipes.watching import bind, chooser, read

T = t.transitions.c
# The row of `worker_jobs` whose term is the last number given.
_OWN = {"job": "watch", "slice_no": 0}
_BATCH = 1000
# The first watch of an old database numbers all that is there.
_BACKLOG = 5000
_TOGETHER = 100

# A plain read: it sees what is committed and waits for nobody.
_UNNUMBERED = Statement(sa.select(T.id).where(T.txid.is_(None)).order_by(T.id).limit(p("limit", sa.Integer())))
_HIGHEST = Statement(sa.select(sa.func.coalesce(sa.func.max(T.txid), sa.literal_column("0")).label("highest")))
_TERM = sa.select(t.worker_jobs.c.term).where(
    t.worker_jobs.c.job == p("job"), t.worker_jobs.c.slice_no == p("slice_no")
)
_LOOK = Statement(_TERM)
_LOCK = Statement(_TERM.with_for_update())
_MAKE = Statement(
    sa.insert(t.worker_jobs)
    .prefix_with("IGNORE")  # somebody else may just have made it
    .values({"job": p("job"), "slice_no": p("slice_no"), "term": p("term")})
)
# Not by comparing pairs: MariaDB finds no range of the index in that.
BY_NUMBER = (
    p("position", sa.BigInteger()) <= T.txid,
    sa.or_(p("position", sa.BigInteger()) < T.txid, p("id", sa.BigInteger()) < T.id),
)
_BY_NUMBER = chooser(T.txid, *BY_NUMBER)


@cache
def _number() -> Statement:
    ids: list[Any] = [p(f"id_{i}", sa.BigInteger()) for i in range(_TOGETHER)]
    return Statement(sa.update(t.transitions).where(T.id.in_(ids)).values(txid=p("number", sa.BigInteger())))


def start_watch(request: r.StartWatch) -> Recipe:
    """Behind all that is committed, once it is numbered (None while there is more of it); or at a place reached."""
    if request.after is None and (yield from number_committed(_BACKLOG)):
        return None
    found = yield _LOOK, bound(_OWN)
    following = (found[0]["term"] if found else 0) + 1
    if request.after is None:
        return Place("mysql", following, 0)
    return check_source(request.after, "mysql", following)


def read_transitions(request: r.ReadTransitions) -> Recipe:
    """Number what is committed, then read a page by number."""
    unnumbered = yield from number_committed(_BATCH)
    found, last, full = read(request, (yield _BY_NUMBER(request), bind(request)))
    return found, last, full or unnumbered


def number_committed(limit: int) -> Recipe:
    """Give a batch of committed lines their number; whether there may be more of them."""
    if not (yield _UNNUMBERED, {"p_limit": 1}):
        return False
    found = yield _LOCK, bound(_OWN)
    if not found:
        (highest,) = yield _HIGHEST, {}
        yield _MAKE, bound({**_OWN, "term": highest["highest"]})
        found = yield _LOCK, bound(_OWN)
    number = found[0]["term"] + 1
    ids = [row["id"] for row in (yield _UNNUMBERED, {"p_limit": limit})]
    for start in range(0, len(ids), _TOGETHER):
        some = ids[start : start + _TOGETHER]
        some += some[-1:] * (_TOGETHER - len(some))
        yield _number(), {f"p_id_{i}": id_ for i, id_ in enumerate(some)} | {"p_number": number}
    yield setting(t.worker_jobs, _OWN, {"term": number})
    return len(ids) == limit

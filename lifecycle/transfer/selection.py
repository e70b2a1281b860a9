"""Which sessions are meant: the filters of an export."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from lifecycle import states
from lifecycle.errors import InvalidArgument
from lifecycle.models import tables as t
from lifecycle.models.types import Timestamp
from lifecycle.operations.context import check_text
from lifecycle.recipes.portable.base import p
from lifecycle.recipes.statement import Statement
from lifecycle.recipes.whole import MOST
from lifecycle.transfer.rows import Key, Row, columns

S = t.sessions.c
_CHARS = 255


@dataclass(frozen=True, slots=True)
class Selection:
    """Sessions that fit all that is given; `tenant` None is everybody's. Soft-deleted ones count like others.

    `since` and `until` bound `updated_at`, as in `list_sessions`. Raises `InvalidArgument`.
    """

    tenant: str | None = None
    session_ids: tuple[str, ...] = ()
    kind: str | None = None
    state: str | None = None
    user_id: str | None = None
    agent_id: str | None = None
    parent_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def __post_init__(self) -> None:
        if self.state is not None and self.state not in states.STATES:
            raise InvalidArgument(f"state must be one of {', '.join(states.STATES)}, not {self.state!r}")
        if len(self.session_ids) > MOST:
            raise InvalidArgument(f"session_ids: at most {MOST} may be named; leave them out for all")
        for name in ("tenant", "kind", "user_id", "agent_id", "parent_id"):
            if getattr(self, name) is not None:
                check_text(getattr(self, name), name, _CHARS)
        for session_id in self.session_ids:
            check_text(session_id, "session_ids", _CHARS)

    @property
    def whole(self) -> bool:
        """Whether all sessions are meant, of one tenant or of all: then the lines of removed ones are, too."""
        return not self.session_ids and not any(getattr(self, name) is not None for name in _FILTERS)

    def described(self) -> dict[str, Any]:
        """What is given, as JSON."""
        given: dict[str, Any] = {name: getattr(self, name) for name in ("tenant", *_COLUMNS, "since", "until")}
        given["session_ids"] = list(self.session_ids) or None
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in given.items()
            if value is not None
        }

    def page(self, dialect: str, after: Key | None, limit: int) -> tuple[Statement, Row]:
        """The statement that reads at most `limit` of them behind a key, in order."""
        match, values = self._conditions()
        if after is not None:
            match.append(_behind(dialect))
            values |= {"p_after_tenant": after[0], "p_after_session": after[1]}
        chosen = sa.select(*columns(t.sessions)).where(*match).order_by(S.tenant, S.session_id)
        return Statement(chosen.limit(p("limit", sa.Integer()))), values | {"p_limit": limit}

    def count(self) -> tuple[Statement, Row]:
        """The statement that counts them."""
        match, values = self._conditions()
        return Statement(sa.select(sa.func.count().label("n")).select_from(t.sessions).where(*match)), values

    def _conditions(self) -> tuple[list[Any], Row]:
        match: list[Any] = []
        values: Row = {}
        for name in ("tenant", *_COLUMNS):
            if getattr(self, name) is not None:
                match.append(S[name] == p(name, S[name].type))
                values[f"p_{name}"] = getattr(self, name)
        if self.session_ids:
            names = [f"id_{i}" for i in range(len(self.session_ids))]
            match.append(S.session_id.in_([p(name, S.session_id.type) for name in names]))
            values |= {f"p_{name}": session_id for name, session_id in zip(names, self.session_ids, strict=True)}
        if self.since is not None:
            match.append(S.updated_at >= p("since", Timestamp()))
            values["p_since"] = self.since
        if self.until is not None:
            match.append(S.updated_at <= p("until", Timestamp()))
            values["p_until"] = self.until
        return match, values


_COLUMNS = ("kind", "state", "user_id", "agent_id", "parent_id")
_FILTERS = (*_COLUMNS, "since", "until")


def _behind(dialect: str) -> Any:
    tenant, session_id = p("after_tenant"), p("after_session")
    if dialect == "mysql":  # it finds no range of the index in a comparison of pairs
        return sa.or_(S.tenant > tenant, sa.and_(S.tenant == tenant, S.session_id > session_id))
    return sa.tuple_(S.tenant, S.session_id) > sa.tuple_(tenant, session_id)

"""What meets requests on a PostgreSQL database, as its tables are laid out: on one server, or by Citus.

Each new connection looks, as tables can be distributed (`lifecycle db distribute`) between two of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from lifecycle.drivers.postgresql_group import GROUPED
from lifecycle.errors import ConfigError, SchemaOutdated
from lifecycle.operations.requests import Request
from lifecycle.recipes import book
from lifecycle.recipes.citus_catalog import Layout
from lifecycle.recipes.citus_halving import halves
from lifecycle.recipes.portable.base import Recipe
from lifecycle.recipes.postgresql_together import Pipeline
from lifecycle.recipes.statement import Single
from lifecycle.settings import DatabaseSettings


@dataclass(frozen=True, slots=True)
class Meeting:
    """What meets requests: in one statement, in one round trip, or in a transaction; what is committed together, or halved."""

    singles: Mapping[type[Request], Single]
    recipes: Mapping[type[Request], Callable[[Any], Recipe]]
    grouped: frozenset[type[Request]] = GROUPED
    halves: Callable[[Any], Any] = lambda _: None
    pipelines: Mapping[type[Request], Pipeline] = field(default_factory=dict)
    # Of the singles, those that several sessions' requests share a transaction with, where each may fail by itself.
    shared: Mapping[type[Request], Single] = field(default_factory=dict)


_SINGLES: Final = book.SINGLES["postgresql"]
_PLAIN: Final = Meeting(_SINGLES, book.RECIPES["postgresql"], pipelines=book.PIPELINES, shared=_SINGLES)
# What concurrent callers have in flight is several tenants', and each statement's is sent with it. One caller's is his.
_SECURED: Final = Meeting(_SINGLES, book.SECURED, frozenset(), shared=_SINGLES)
# A batch of several sessions is one of several nodes: each would have to prepare its part, at two syncs instead of one,
# and all would be lost where one node is.
_CITUS: Final = Meeting(book.SINGLES["citus"], book.RECIPES["citus"], frozenset(), halves)


def meeting_under(layout: Layout, settings: DatabaseSettings) -> Meeting:
    """What meets requests under a layout. Raises `SchemaOutdated` and `ConfigError` where it cannot be worked with."""
    if not layout.is_distributed:
        return _SECURED if settings.row_security else _PLAIN
    if layout.group:
        raise ConfigError(
            "database.url", "leads to a worker of Citus: connect to the coordinator, as every process must"
        )
    if layout.missing:
        names = ", ".join(layout.missing)
        raise SchemaOutdated(f"{names}: not distributed as `sessions` is; run: lifecycle db distribute")
    return _CITUS

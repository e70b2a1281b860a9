"""What Citus's catalog says of our tables: which are distributed, and whether this is its coordinator."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from lifecycle.models import tables as t

DISTRIBUTED: Final = tuple(table for table in t.metadata.sorted_tables if "session_id" in table.c)
"""What lies with its session, on the node that the session's id says. All else is on the coordinator alone."""

IS_CITUS: Final = "to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL"
"""The expression that says whether there is more to ask."""
LOOK: Final = (
    "SELECT (SELECT groupid FROM pg_dist_local_group), ARRAY(SELECT c.relname::text FROM pg_dist_partition AS d"
    " JOIN pg_class AS c ON c.oid = d.logicalrelid WHERE d.partmethod = 'h' AND c.relnamespace ="
    " (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('sessions')))"
)


@dataclass(frozen=True, slots=True)
class Layout:
    """The tables that are distributed, and the number of this node's group: 0 on the coordinator."""

    distributed: frozenset[str] = frozenset()
    group: int = 0

    @classmethod
    def of(cls, row: Any) -> "Layout":
        """What `LOOK` gives."""
        group, names = row
        return cls(frozenset(names), group)

    @property
    def is_distributed(self) -> bool:
        """Whether sessions are on the nodes of Citus."""
        return t.sessions.name in self.distributed

    @property
    def missing(self) -> list[str]:
        """The tables of this release that are not where their sessions are."""
        return [table.name for table in DISTRIBUTED if table.name not in self.distributed]


ONE_SERVER: Final = Layout()


def layout(fetch: Callable[[str], Any]) -> Layout:
    """How the tables are laid out; `fetch` gives the one row of a statement."""
    return Layout.of(fetch(LOOK)) if fetch(f"SELECT {IS_CITUS}")[0] else ONE_SERVER

"""What PostgreSQL reads to meet a request."""

from dataclasses import dataclass
from typing import Any

import psycopg

from lifecycle.operations.requests import Request
from tests.plans import work_of


@dataclass(frozen=True, slots=True)
class Plan:
    """Rows read from tables and indexes, rows given back, and what they were read through."""

    rows_read: int
    rows_returned: int
    through: str


def plan_of(connection: psycopg.Connection[Any], request: Request) -> Plan:
    """What a request's statements read as they are planned after many runs, from EXPLAIN; what they do is undone."""
    work, _ = work_of(connection, request)
    connection.rollback()
    reads = [*sorted(work.indexes), *(f"all of {table}" for table in sorted(work.sequential))]
    return Plan(round(work.rows_read), work.rows_returned, ", ".join(reads))

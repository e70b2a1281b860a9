"""Requests for many sessions, in two halves: what Citus broke off as it had others wait in a circle is tried by half.

One statement locks rows on every node in whatever order, and takes its turn with others like it. Two that meet in a
circle are rare; of smaller ones fewer meet.
"""

from dataclasses import replace
from typing import Any

from lifecycle.operations import requests as r


def halves(request: Any) -> tuple[Any, Any] | None:
    """Two requests that are this one together; None where it cannot be divided."""
    match request:
        case r.SweepBatch(limit=limit) | r.ClaimSessions(limit=limit) | r.Trim(limit=limit) if limit > 1:
            return replace(request, limit=limit // 2), replace(request, limit=limit - limit // 2)
        case r.RenewLeases(leases=leases) if len(leases) > 1:
            middle = len(leases) // 2
            return replace(request, leases=leases[:middle]), replace(request, leases=leases[middle:])
        case r.Touch(session_ids=ids) if len(ids) > 1:
            middle = len(ids) // 2
            return replace(request, session_ids=ids[:middle]), replace(request, session_ids=ids[middle:])
    return None


def joined(first: Any, second: Any) -> Any:
    """The answer of both halves."""
    return r.SweptIds([*first.keys, *second.keys]) if isinstance(first, r.SweptIds) else first + second

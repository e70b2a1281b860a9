"""How Citus meets the requests: tables distributed by session, spoken to through their coordinator.

A session with all it owns is on one node, so what names its session is that node's alone: a transaction of plain
statements, as on any database. One statement for all of it, as on PostgreSQL, would gain nothing: Citus does not hand an
INSERT within a WITH to the node, but runs each part by itself and carries what it gives from one to the next. What
is about many sessions is a plain read of all nodes, or a plain write by a list of keys.
"""

from collections.abc import Callable, Mapping
from typing import Any

from lifecycle.operations import requests as r
from lifecycle.recipes import (
    citus_leases,
    citus_lists,
    citus_sweeps,
    citus_watching,
    keyed,
    postgresql_loading,
    watching,
)
from lifecycle.recipes.citus_coordinator import on_coordinator, single
from lifecycle.recipes.portable import keys
from lifecycle.recipes.portable.base import Recipe
from lifecycle.recipes.postgresql_leases import SINGLES as LEASES
from lifecycle.recipes.statement import Single

Recipes = Mapping[type[r.Request], Callable[[Any], Recipe]]

_OWN: Recipes = {
    r.Touch: citus_leases.touch,
    r.RenewLeases: citus_leases.renew_leases,
    r.ClaimSessions: citus_leases.claim_sessions,
    r.SweepBatch: citus_sweeps.sweep_batch,
    r.Trim: citus_sweeps.trim,
    r.Restamp: citus_sweeps.restamp,
    r.ListSessions: citus_lists.list_sessions,
    r.ReadTransitions: citus_watching.read_transitions,
}


def recipes(portable: Recipes, samples: Recipes) -> dict[type[r.Request], Callable[[Any], Recipe]]:
    """The recipe of each request that takes a transaction; `samples` are PostgreSQL's."""
    return {kind: on_coordinator(recipe) for kind, recipe in {**portable, **samples, **_OWN}.items()}


# One statement that names its session, or that is for the coordinator.
SINGLES: dict[type[r.Request], Single] = {
    kind: single(one)
    for kind, one in {
        **keyed.READS,
        **keys.READS,
        r.LoadState: postgresql_loading.SINGLES[r.LoadState],
        r.StartWatch: watching.SINGLES[r.StartWatch],
        r.AcquireLease: LEASES[r.AcquireLease],
        r.ReleaseLease: LEASES[r.ReleaseLease],
    }.items()
}

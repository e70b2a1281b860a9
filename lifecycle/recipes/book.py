"""Which recipe meets a request on a dialect."""

from collections.abc import Callable
from typing import Any

from lifecycle.operations import requests as r
from lifecycle.recipes import (
    bulk,
    keyed,
    lists,
    mariadb_watching,
    postgresql,
    postgresql_importing,
    postgresql_leases,
    sweeps,
    watching,
)
from lifecycle.recipes.portable import (
    base,
    claims,
    daemon,
    importing,
    leases,
    messages,
    moves,
    people,
    saving,
    sessions,
)
from lifecycle.recipes.statement import Single

PORTABLE: dict[type[r.Request], Callable[[Any], base.Recipe]] = {
    **{kind: keyed.recipe(single) for kind, single in keyed.READS.items()},
    r.CreateSession: sessions.create_session,
    r.CreateSessions: importing.create_sessions,
    r.SaveState: saving.save_state,
    r.GetToken: saving.get_token,
    r.Move: moves.move,
    r.Touch: moves.touch,
    r.AddMessages: messages.add_messages,
    r.AddMissingMessages: messages.add_missing_messages,
    r.GetMessages: messages.get_messages,
    r.RemoveMessage: messages.remove_message,
    r.UpdateSession: sessions.update_session,
    r.DeleteSessions: sessions.delete_sessions,
    r.SoftDelete: sessions.soft_delete,
    r.ListSessions: lists.list_sessions,
    r.GetHistory: sessions.get_history,
    r.GetStats: lists.get_stats,
    r.MakeCheckpoint: saving.make_checkpoint,
    r.ListCheckpoints: saving.list_checkpoints,
    r.RestoreCheckpoint: saving.restore_checkpoint,
    r.ForkSession: saving.fork_session,
    r.RequestApproval: people.request_approval,
    r.ResolveApproval: people.resolve_approval,
    r.ListApprovals: people.list_approvals,
    r.OpenConnection: people.open_connection,
    r.BeatConnection: people.beat_connection,
    r.CloseConnection: people.close_connection,
    r.ListConnections: people.list_connections,
    r.AcquireLease: leases.acquire_lease,
    r.RenewLeases: leases.renew_leases,
    r.ClaimSessions: claims.claim_sessions,
    r.ReleaseLease: leases.release_lease,
    r.CountDue: sweeps.count_due,
    r.OldestDue: sweeps.oldest_due,
    r.SweepBatch: sweeps.sweep_batch,
    r.Trim: sweeps.trim,
    r.Restamp: sweeps.restamp,
    r.BeatWorker: daemon.beat_worker,
    r.ListWorkers: daemon.list_workers,
    r.TakeJob: daemon.take_job,
    r.EndJob: daemon.end_job,
    r.StartWatch: watching.start_watch,
    r.ReadTransitions: watching.read_transitions,
}

# What a dialect does better in its own way.
RECIPES: dict[str, dict[type[r.Request], Callable[[Any], base.Recipe]]] = {
    "postgresql": {
        **PORTABLE,
        r.CreateSessions: postgresql_importing.create_sessions,
        r.SweepBatch: bulk.sweep_batch,
    },
    "sqlite": PORTABLE,
    "mysql": {
        **PORTABLE,
        r.StartWatch: mariadb_watching.start_watch,
        r.ReadTransitions: mariadb_watching.read_transitions,
    },
}

SINGLES: dict[str, dict[type[r.Request], Single]] = {
    "postgresql": {**postgresql.SINGLES, **postgresql_leases.SINGLES, **watching.SINGLES},
    "sqlite": keyed.READS,
    "mysql": {},
}

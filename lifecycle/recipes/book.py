"""Which recipe meets a request on a dialect."""

from collections.abc import Callable
from typing import Any

from lifecycle.operations import requests as r
from lifecycle.recipes import (
    bulk,
    citus,
    keyed,
    lists,
    mariadb_lists,
    mariadb_watching,
    oversight,
    postgresql,
    postgresql_graphs,
    postgresql_importing,
    postgresql_leases,
    postgresql_lists,
    postgresql_loading,
    postgresql_saving,
    postgresql_together,
    samples,
    sqlite_loading,
    sweeps,
    watching,
)
from lifecycle.recipes.portable import (
    attempts,
    base,
    checkpoints,
    claims,
    clearing,
    combined,
    daemon,
    forks,
    graphs,
    importing,
    keys,
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
    **{kind: keyed.recipe(single) for kind, single in keys.READS.items()},
    r.CreateSession: sessions.create_session,
    r.CreateSessions: importing.create_sessions,
    r.SaveState: saving.save_state,
    r.SaveEdited: saving.save_state,
    r.LoadState: saving.load_state,
    r.Move: moves.move,
    r.Touch: moves.touch,
    r.AddMessages: messages.add_messages,
    r.AddMissingMessages: messages.add_missing_messages,
    r.GetMessages: messages.get_messages,
    r.RemoveMessage: messages.remove_message,
    r.ClearMessages: clearing.clear_messages,
    r.Expect: combined.expect,
    r.UpdateSession: sessions.update_session,
    r.DeleteSessions: sessions.delete_sessions,
    r.SoftDelete: sessions.soft_delete,
    r.ListSessions: lists.list_sessions,
    r.GetHistory: sessions.get_history,
    r.GetStats: lists.get_stats,
    r.RecentTransitions: oversight.recent_transitions,
    r.ListStuck: oversight.list_stuck,
    r.MakeCheckpoint: checkpoints.make_checkpoint,
    r.ListCheckpoints: checkpoints.list_checkpoints,
    r.GetCheckpoint: checkpoints.get_checkpoint,
    r.RestoreCheckpoint: checkpoints.restore_checkpoint,
    r.ForkSession: forks.fork_session,
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
    r.ReadSchema: daemon.read_schema,
    r.StartWatch: watching.start_watch,
    r.ReadTransitions: watching.read_transitions,
    r.ClaimAttempt: attempts.claim_attempt,
    r.AnswerAttempt: attempts.answer_attempt,
    r.CreateKey: keys.create_key,
    r.ListKeys: keys.list_keys,
    r.RevokeKey: keys.revoke_key,
    r.StampKey: keys.stamp_key,
    r.ShareSecret: keys.share_secret,
    **graphs.RECIPES,
}

# What a dialect does better in its own way.
RECIPES: dict[str, dict[type[r.Request], Callable[[Any], base.Recipe]]] = {
    "postgresql": {
        **PORTABLE,
        **samples.RECIPES["postgresql"],
        r.CreateSessions: postgresql_importing.create_sessions,
        r.OldestDue: bulk.oldest_due,
        r.SweepBatch: bulk.sweep_batch,
        r.Trim: bulk.trim,
        r.ListSessions: postgresql_lists.list_sessions,
    },
    "citus": citus.recipes(PORTABLE, samples.RECIPES["postgresql"]),
    "sqlite": {**PORTABLE, **samples.RECIPES["sqlite"], r.Trim: sweeps.trim_at_once},
    "mysql": {
        **PORTABLE,
        **samples.RECIPES["mysql"],
        r.ListSessions: mariadb_lists.list_sessions,
        r.StartWatch: mariadb_watching.start_watch,
        r.ReadTransitions: mariadb_watching.read_transitions,
    },
}

# What is met otherwise where PostgreSQL's row-level security is on.
SECURED: dict[type[r.Request], Callable[[Any], base.Recipe]] = {
    **RECIPES["postgresql"],
    r.ListSessions: postgresql_lists.list_secured_sessions,
}

for _recipes in (*RECIPES.values(), SECURED):
    _recipes |= combined.of(_recipes)

SINGLES: dict[str, dict[type[r.Request], Single]] = {
    "postgresql": {
        **postgresql.SINGLES,
        **postgresql_saving.SINGLES,
        **postgresql_loading.SINGLES,
        **postgresql_leases.SINGLES,
        **postgresql_graphs.SINGLES,
        **postgresql_together.SINGLES,
        **watching.SINGLES,
        **keys.READS,
    },
    "citus": citus.SINGLES,
    "sqlite": {**keyed.READS, **sqlite_loading.READS, **keys.READS},
    "mysql": {},
}

# What PostgreSQL meets in one round trip where it can.
PIPELINES = postgresql_together.pipelines(SINGLES["postgresql"])

"""Which recipe meets a request on a dialect."""

from collections.abc import Callable
from typing import Any

from lifecycle.operations import requests as r
from lifecycle.recipes import bulk, keyed, lists, portable, postgresql, sweeps
from lifecycle.recipes.statement import Single

PORTABLE: dict[type[r.Request], Callable[[Any], portable.Recipe]] = {
    r.CreateSession: portable.create_session,
    r.GetSession: portable.get_session,
    r.SaveState: portable.save_state,
    r.GetToken: portable.get_token,
    r.LoadState: portable.load_state,
    r.Move: portable.move,
    r.Touch: portable.touch,
    r.AddMessages: portable.add_messages,
    r.AddMissingMessages: portable.add_missing_messages,
    r.GetMessages: portable.get_messages,
    r.RemoveMessage: portable.remove_message,
    r.UpdateSession: portable.update_session,
    r.DeleteSessions: portable.delete_sessions,
    r.SoftDelete: portable.soft_delete,
    r.ListSessions: lists.list_sessions,
    r.GetHistory: portable.get_history,
    r.GetStats: lists.get_stats,
    r.MakeCheckpoint: portable.make_checkpoint,
    r.ListCheckpoints: portable.list_checkpoints,
    r.RestoreCheckpoint: portable.restore_checkpoint,
    r.ForkSession: portable.fork_session,
    r.RequestApproval: portable.request_approval,
    r.ResolveApproval: portable.resolve_approval,
    r.ListApprovals: portable.list_approvals,
    r.OpenConnection: portable.open_connection,
    r.BeatConnection: portable.beat_connection,
    r.CloseConnection: portable.close_connection,
    r.ListConnections: portable.list_connections,
    r.CountDue: sweeps.count_due,
    r.OldestDue: sweeps.oldest_due,
    r.SweepBatch: sweeps.sweep_batch,
    r.Trim: sweeps.trim,
    r.Restamp: sweeps.restamp,
    r.BeatWorker: portable.beat_worker,
    r.ListWorkers: portable.list_workers,
    r.TakeJob: portable.take_job,
    r.EndJob: portable.end_job,
}

# What a dialect does better in its own way.
RECIPES: dict[str, dict[type[r.Request], Callable[[Any], portable.Recipe]]] = {
    "postgresql": {**PORTABLE, r.SweepBatch: bulk.sweep_batch},
    "sqlite": PORTABLE,
    "mysql": PORTABLE,
}

SINGLES: dict[str, dict[type[r.Request], Single]] = {
    "postgresql": postgresql.SINGLES,
    "sqlite": keyed.READS,
    "mysql": {},
}

"""What an operator looks at: the sessions that nobody gets on with, and what happened last."""

from lifecycle.errors import InvalidArgument
from lifecycle.models.reads import StuckSession, TransitionRecord
from lifecycle.operations import rows
from lifecycle.operations.context import Context, check_count
from lifecycle.operations.requests import ListStuck, RecentTransitions
from lifecycle.operations.sessions import Duration, _duration
from lifecycle.operations.typing import Steps

# Why a session counts as stuck.
WHYS = ("held but silent", "due but unclaimed", "rescued often")


def list_stuck(context: Context, *, silent_for: Duration = "1m", limit: int = 20) -> Steps[list[StuckSession]]:
    """The sessions that nobody seems to get on with, at most `limit` for each reason, the longest stuck first.

    Held but silent: the lease ran out at least `silent_for` ago and nobody took over. Due but unclaimed: no runner took it
    for so long. Rescued often: its processes died twice or more without progress. One may be listed for several reasons.
    Raises `InvalidArgument`.
    """
    check_count(limit, "limit", 1, 1000)
    seconds = _duration(silent_for, "silent_for")
    if seconds is None:
        raise InvalidArgument("silent_for: must be a duration such as 1m, not never")
    stuck = []
    for why in WHYS:
        found = yield ListStuck(context.tenant_or_all, why, seconds, limit)
        stuck += [StuckSession.of({"why": why, "session": rows.session(row)}) for row in found]
    return stuck


def recent_transitions(
    context: Context, *, session_id: str | None = None, limit: int = 50
) -> Steps[list[TransitionRecord]]:
    """The newest lines of the audit log, newest first, of one session or of all.

    Of all sessions of one tenant, they are those among the newest 5,000 of the whole database: fewer than `limit` may
    come where others are busier. Raises `InvalidArgument`.
    """
    check_count(limit, "limit", 1, 1000)
    if session_id is None:
        tenant = context.tenant_or_all
    else:
        tenant, session_id = context.tenant, context.check_id(session_id)
    found = yield RecentTransitions(tenant, session_id, limit)
    return [rows.transition(row) for row in found]

"""Why a write was refused: a second, rare read, and the error that says so."""

from datetime import UTC, datetime
from typing import Never

from lifecycle import states
from lifecycle.errors import InvalidTransition, LeaseLost, SessionBusy, SessionNotFound, VersionConflict
from lifecycle.operations.context import Context
from lifecycle.operations.requests import Fence, GetSession
from lifecycle.operations.typing import Steps


def explain(
    context: Context,
    session_id: str,
    action: str,
    *,
    needs: tuple[str, ...],
    expected: int | None = None,
    fence: Fence | None = None,
) -> Steps[Never]:
    """Raise what kept `action` from a session: it is missing, leased, in another state, or at another version.

    With a lease, that is what is looked at first: who lost it must not go by the session's state.
    """
    row = yield GetSession(context.tenant, session_id)
    if row is None:
        raise SessionNotFound(session_id)
    if fence is not None and (row["lease_holder"], row["lease_epoch"]) != fence:
        raise LeaseLost(session_id, fence[1], row["lease_epoch"])
    if row["state"] not in needs:
        raise InvalidTransition(session_id, action, row["state"], states.allowed(row["state"]))
    if expected is not None and row["version"] != expected:
        raise VersionConflict(session_id, expected, row["version"])
    if row["lease_holder"] is not None and fence is None:
        raise SessionBusy(session_id, row["lease_holder"], row["lease_expires_at"])
    # What stood in the way is gone already; the caller's next try meets another world.
    raise SessionBusy(session_id, "another process", datetime.now(UTC))

"""Removing all messages of a session at once."""

from lifecycle import states
from lifecycle.operations.context import Context
from lifecycle.operations.fencing import Held, fence_of
from lifecycle.operations.refusal import explain
from lifecycle.operations.requests import ClearMessages
from lifecycle.operations.typing import Steps


def clear_messages(context: Context, session_id: str, *, lease: Held | None = None) -> Steps[int]:
    """Remove all messages of an active or suspended session, and return how many there were. All else of it stays.

    Raises `SessionNotFound`, `InvalidTransition` (it is finished), `SessionBusy` (another holds a lease), `LeaseLost`.
    """
    session_id = context.check_id(session_id)
    fence = fence_of(context.tenant, session_id, lease)
    removed = yield ClearMessages(context.tenant, session_id, fence)
    if removed is None:
        yield from explain(context, session_id, "clear the messages of", needs=states.LIVE, fence=fence)
    return int(removed)

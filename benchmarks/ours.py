"""Each hot operation through a manager, of either kind and on any database."""

import itertools
from typing import Any

from benchmarks.payload import BATCH, CONTENT, SESSIONS, context
from lifecycle import SessionManager

_numbers = itertools.count()


def _name() -> str:
    return f"n-{next(_numbers):012}-6f1c-7bb0-a1d2"


def our_calls(manager: Any, ids: list[str]) -> dict[str, Any]:
    """What to call at a turn, by name; on an async manager each call gives a coroutine."""

    def of(turn: int) -> str:
        return ids[turn % SESSIONS]

    message = {"role": "assistant", "content": CONTENT}
    return {
        "create_session": lambda _: manager.create_session(
            session_id=_name(), user_id="ann", title="A title", metadata={"tier": "gold"}
        ),
        "get_session": lambda i: manager.get_session(of(i)),
        "save_state": lambda i: manager.save_state(of(i), step=i, context=context(i)),
        "load_state": lambda i: manager.load_state(of(i)),
        "add_message": lambda i: manager.add_message(of(i), "assistant", CONTENT),
        f"add_messages ({BATCH})": lambda i: manager.add_messages(of(i), [message] * BATCH),
        "suspend_session": lambda i: manager.suspend_session(of(i)),
        "resume_session": lambda i: manager.resume_session(of(i)),
        "touch_session": lambda i: manager.touch_session(of(i)),
    }


def sessions(manager: SessionManager, prefix: str) -> list[str]:
    """The ids of sessions made for a run, with a saved state each."""
    ids = [f"{prefix}-{i:06}-6f1c-7bb0-a1d2" for i in range(SESSIONS)]
    for session in ids:
        manager.create_session(session_id=session, user_id="ann", title="A title", metadata={"tier": "gold"})
        manager.save_state(session, step=0, context=context(0))
    return ids

"""Each hot operation through a manager, of either kind and on any database."""

import itertools
from typing import Any, Final

from benchmarks.payload import BATCH, CONTENT, PAGE, context
from benchmarks.stores.store import TEXT
from benchmarks.supply import HOLDER, LEASED, TTL, Supply

_numbers = itertools.count()

MESSAGE_TURN: Final = "a turn of 1 KB: add_message, leased"
STATE_TURN: Final = "a turn of 1 KB: save_state(append=), leased"
NAMES: Final = (
    "create_session",
    "get_session",
    "save_state",
    "load_state",
    MESSAGE_TURN,
    STATE_TURN,
    "add_message",
    f"add_messages ({BATCH})",
    f"get_messages ({PAGE})",
    "suspend_session",
    "resume_session",
    "touch_session",
    "renew_leases",
    f"renew_leases ({LEASED})",
    "claim_sessions",
)


def our_calls(manager: Any, supply: Supply) -> dict[str, Any]:
    """What to call at a turn, by name; on an async manager each call gives a coroutine."""
    message = {"role": "assistant", "content": CONTENT}
    entry = {"role": "assistant", "content": TEXT}
    renewals = [("", lease.session_id, lease.epoch, TTL) for lease in supply.leases]

    def add(turn: int) -> Any:
        lease = supply.lease(turn)
        return manager.add_message(lease.session_id, "assistant", TEXT, lease=lease)

    def append(turn: int) -> Any:
        lease = supply.lease(turn)
        return manager.save_state(lease.session_id, append=[entry], step=turn, lease=lease)

    calls = (
        lambda _: manager.create_session(
            session_id=f"n-{next(_numbers):012}-6f1c-7bb0-a1d2",
            user_id="ann",
            title="A title",
            metadata={"tier": "gold"},
        ),
        lambda i: manager.get_session(supply.of(i)),
        lambda i: manager.save_state(supply.of(i), step=i, context=context(i)),
        lambda i: manager.load_state(supply.of(i)),
        add,
        append,
        lambda i: manager.add_message(supply.of(i), "assistant", CONTENT),
        lambda i: manager.add_messages(supply.of(i), [message] * BATCH),
        lambda i: manager.get_messages(supply.to_read(i), limit=PAGE),
        lambda i: manager.suspend_session(supply.of(i)),
        lambda i: manager.resume_session(supply.of(i)),
        lambda i: manager.touch_session(supply.of(i)),
        lambda i: manager.renew_leases([renewals[i % len(renewals)]], holder=HOLDER),
        lambda _: manager.renew_leases(renewals, holder=HOLDER),
        lambda _: manager.claim_sessions([supply.kind], holder=HOLDER, ttl=TTL),
    )
    return dict(zip(NAMES, calls, strict=True))

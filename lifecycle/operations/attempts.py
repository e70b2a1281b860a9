"""Attempts: requests to the HTTP API under an idempotency key, and the answers that a repeated one gets again."""

from typing import Final

from lifecycle.operations.context import Context, check_text
from lifecycle.operations.requests import AnswerAttempt, ClaimAttempt, DuplicateKey, Row
from lifecycle.operations.typing import Steps

# Seconds. No request takes so long: a sweep's budget ends before.
LAPSE: Final = 120


def claim_attempt(context: Context, tenant: str, caller: str, key: str, digest: str, *, repeatable: bool) -> Steps[Row]:
    """Note that a request is being carried out: the key's row. `claimed` says whether it is this caller's to do.

    Otherwise `digest` tells whether it was another request, `status` whether that was answered, and `lapsed` whether
    it gave no answer for `LAPSE` seconds: whoever carried it out is dead by then. With `repeatable` it is claimed then.
    """
    request = ClaimAttempt(
        tenant, check_text(caller, "caller", 255), check_text(key, "Idempotency-Key", 255), digest,
        context.settings.web.idempotency, LAPSE, repeatable,
    )  # fmt: skip
    try:
        row: Row = yield request
    except DuplicateKey:  # another request noted it between our look and our insert
        row = yield request
    return row


def answer_attempt(context: Context, row: Row, status: int, headers: str, body: str) -> Steps[bool]:
    """Keep the answer of a claimed attempt; False when it was taken over meanwhile."""
    del context
    answered: bool = yield AnswerAttempt(
        row["tenant"], row["caller"], row["idempotency_key"], row["claimed_at"], status, headers, body
    )
    return answered


def drop_attempt(context: Context, row: Row) -> Steps[bool]:
    """Forget a claimed attempt that changed nothing, so that its repeat is carried out."""
    del context
    dropped: bool = yield AnswerAttempt(row["tenant"], row["caller"], row["idempotency_key"], row["claimed_at"])
    return dropped

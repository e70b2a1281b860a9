"""Creating sessions with their first messages, many in one transaction."""

from collections.abc import Sequence
from typing import Any

from lifecycle.errors import InvalidArgument
from lifecycle.operations.context import Context
from lifecycle.operations.messages import _auto_title, _row
from lifecycle.operations.requests import AddMessages, CreateSession, CreateSessions, DuplicateKey
from lifecycle.operations.sessions import _creation
from lifecycle.operations.typing import Steps

Import = tuple[dict[str, Any], Sequence[dict[str, Any]]]
"""What `create_session` takes, and the messages as `add_messages` takes them, with ids that differ."""


def create_sessions(context: Context, imports: Sequence[Import]) -> Steps[list[bool]]:
    """Create sessions with messages in one transaction, and say which were made.

    Those are not made that exist, and those that cannot be stored as they are: what speaks against one is what
    `create_session` and `add_messages` raise. Raises `StorageUnavailable`; then none was made.
    """
    requests = [_request(context, *one) for one in imports]
    items = tuple(one for one in requests if one is not None)
    if not items:
        return [False] * len(requests)
    try:
        answers = yield CreateSessions(items)
    except DuplicateKey:
        # Somebody made one of them at the same moment: one by one it shows which.
        return [False] * len(requests)
    made = iter(answers)
    return [one is not None and next(made) for one in requests]


def _request(
    context: Context, values: dict[str, Any], messages: Sequence[dict[str, Any]]
) -> tuple[CreateSession, AddMessages | None] | None:
    try:
        creation = _creation(context, **values)
        rows = tuple(_row(context, item, f"messages[{i}]") for i, item in enumerate(messages))
    except InvalidArgument:
        return None
    if not rows:
        return creation, None
    return creation, AddMessages(creation.tenant, creation.session_id, rows, _auto_title(context, rows), None)

"""The saved state: saving, loading, checkpoints, forks."""

import dataclasses
import hashlib
from typing import Any, Never

from lifecycle import states
from lifecycle.documents import encode
from lifecycle.entries import Entries
from lifecycle.errors import (
    CheckpointNotFound,
    InvalidArgument,
    SessionExists,
    SessionNotFound,
    TokenReused,
)
from lifecycle.ids import uuid7
from lifecycle.models.reads import Checkpoint, CheckpointDocuments, SavedState, Session
from lifecycle.operations import rows
from lifecycle.operations.context import Context, check_count
from lifecycle.operations.fencing import Held, fence_of
from lifecycle.operations.refusal import explain
from lifecycle.operations.requests import (
    DuplicateKey,
    ForkSession,
    GetCheckpoint,
    GetToken,
    ListCheckpoints,
    LoadState,
    MakeCheckpoint,
    RestoreCheckpoint,
    SaveEdited,
    SaveState,
)
from lifecycle.operations.typing import Steps
from lifecycle.pieces import Document
from lifecycle.unset import UNSET, Unset


def save_state(
    context_: Context,
    session_id: str,
    *,
    conversation: list[Any] | Unset = UNSET,
    append: list[Any] | None = None,
    context: Any = UNSET,
    phase: str | Unset | None = UNSET,
    step: int | Unset | None = UNSET,
    plan: Any = UNSET,
    expected_version: int | None = None,
    lease: Held | None = None,
    token: str | None = None,
) -> Steps[int]:
    """Save the state of an active session and return its new version; when it returns, it is durable.

    What is not passed stays as it was; `append` adds entries to the conversation. With `expected_version` a save on
    top of somebody else's is refused. With `token` a repeat of the same save (after a lost connection, say) is safe:
    it returns the first one's version. Under a `lease` it is refused once somebody else has taken over.
    Raises `SessionNotFound`, `InvalidTransition` (it is not active), `VersionConflict`, `SessionBusy` (another holds
    a lease), `LeaseLost`, `NotSerializable`, `LimitExceeded`, `TokenReused`.
    """
    session_id = context_.check_id(session_id)
    documents: dict[str, Document] = {}
    fields: dict[str, Any] = {}
    whole = added = None
    if conversation is not UNSET:
        if append is not None:
            raise InvalidArgument("pass either conversation or append, not both")
        whole = context_.entries(conversation, "conversation")
    if context is not UNSET:
        documents["context"] = context_.stored(context, "context")
    if plan is not UNSET:
        documents["plan"] = context_.stored(plan, "plan")
    if append is not None:
        added = context_.entries(append, "append") if append != [] else None
    if phase is not UNSET:
        fields["phase"] = context_.check_short(phase, "phase")
    if step is not UNSET:
        fields["step"] = None if step is None else check_count(step, "step", 0, 2**63 - 1)
    digest = None
    if token is not None:
        context_.check_id(token, "token")
        digest = _digest(documents, whole, added, fields, expected_version)
    if expected_version is not None:
        check_count(expected_version, "expected_version", 0, 2**63 - 1)
    fence = fence_of(context_.tenant, session_id, lease)
    return (
        yield from carry_out(
            context_,
            SaveState(
                context_.tenant, session_id, documents, whole, added, fields, expected_version, token, digest, fence
            ),
        )
    )


def carry_out(context: Context, request: SaveState) -> Steps[int]:
    """Save, and return the new version or raise why not."""
    version = yield from _attempt(request)
    if version is None and request.conversation is not None:
        values = [getattr(request, field.name) for field in dataclasses.fields(request)]
        version = yield from _attempt(SaveEdited(*values))
    if version is None:
        version = yield from _refused_save(context, request)
    return version


def _attempt(request: SaveState) -> Steps[int | None]:
    try:
        version = yield request
    except DuplicateKey:
        return None
    return None if version is None else int(version)


def _refused_save(context: Context, request: SaveState) -> Steps[int]:
    version = yield from repeated(request)
    if version is not None:
        return version
    never: Never = yield from explain(
        context, request.session_id, "save", needs=("active",), expected=request.expected, fence=request.fence
    )
    return never


def repeated(request: SaveState) -> Steps[int | None]:
    """The version that an earlier save under the same token made, or None where there is none. Raises `TokenReused`."""
    if request.token is None:
        return None
    known = yield GetToken(request.tenant, request.session_id, request.token)
    if known is None:
        return None
    digest, version = known
    if digest != request.digest:
        raise TokenReused(request.session_id, request.token)
    return int(version)


def _digest(
    documents: dict[str, Document],
    whole: Entries | None,
    added: Entries | None,
    fields: dict[str, Any],
    expected: int | None,
) -> str:
    texts = {name: document.pieces if document.text is None else document.text for name, document in documents.items()}
    entries = [None if some is None else list(some.digests) for some in (whole, added)]
    content = encode([texts, entries, fields, expected], "save", limit=2**40)
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def load_state(context: Context, session_id: str, *, any_state: bool = False) -> Steps[SavedState | None]:
    """What the last save left, or None: nothing was saved, or there is no such session.

    Only of active and suspended sessions, unless `any_state`.
    """
    row = yield LoadState(context.tenant, context.check_id(session_id), any_state)
    return None if row is None else rows.saved_state(row)


def checkpoint(
    context: Context, session_id: str, label: str, data: Any = None, *, lease: Held | None = None
) -> Steps[Checkpoint]:
    """Keep a copy of the saved state under a label, with `data` of your own, and return it.

    Older checkpoints of the session that the policy of its kind does not keep (`checkpoints` in config.yaml) are
    removed at once, and at no other time: at most 1024 by one call, the oldest first, the rest by the next calls.
    Raises `SessionNotFound`, `InvalidTransition` (it is finished), `SessionBusy`, `LeaseLost`, `NotSerializable`.
    """
    session_id = context.check_id(session_id)
    fence = fence_of(context.tenant, session_id, lease)
    text = None if data is None else context.document(data, "data")
    label = context.check_id(label, "label")
    row = yield MakeCheckpoint(context.tenant, session_id, label, text, context.policies, fence)
    if row is None:
        yield from explain(context, session_id, "checkpoint", needs=states.LIVE, fence=fence)
    return rows.checkpoint(row)


def list_checkpoints(context: Context, session_id: str) -> Steps[list[Checkpoint]]:
    """The session's checkpoints, oldest first."""
    found = yield ListCheckpoints(context.tenant, context.check_id(session_id))
    return [rows.checkpoint(row) for row in found]


def get_checkpoint(context: Context, session_id: str, seq: int) -> Steps[CheckpointDocuments]:
    """A checkpoint with the documents that it keeps. Raises `CheckpointNotFound`."""
    session_id = context.check_id(session_id)
    check_count(seq, "seq", 1, 2**63 - 1)
    row = yield GetCheckpoint(context.tenant, session_id, seq)
    if row is None:
        raise CheckpointNotFound(session_id, seq)
    return rows.checkpoint_documents(row)


def restore_checkpoint(context: Context, session_id: str, seq: int, *, lease: Held | None = None) -> Steps[int]:
    """Make a checkpoint the saved state of an active session; the new version.

    Raises `CheckpointNotFound`, `SessionNotFound`, `InvalidTransition`, `SessionBusy`, `LeaseLost`.
    """
    session_id = context.check_id(session_id)
    check_count(seq, "seq", 1, 2**63 - 1)
    fence = fence_of(context.tenant, session_id, lease)
    version = yield RestoreCheckpoint(context.tenant, session_id, seq, fence)
    if version is None:
        yield from explain(context, session_id, "restore", needs=("active",), fence=fence)
    if not version:
        raise CheckpointNotFound(session_id, seq)
    return int(version)


def fork_session(
    context: Context,
    session_id: str,
    *,
    checkpoint: int | None = None,
    new_id: str | None = None,
    actor: str | None = None,
) -> Steps[Session]:
    """Create a session that goes on from another's state, or from a checkpoint (its seq) of it, and return it.

    The state and the messages up to there are copied, so that removing the source breaks nothing; the source is
    its `parent_id`. Raises `SessionNotFound`, `CheckpointNotFound`, `SessionExists`.
    """
    session_id = context.check_id(session_id)
    target = uuid7() if new_id is None else context.check_id(new_id, "new_id")
    fork = ForkSession(
        context.tenant, session_id, target, checkpoint, context.check_short(actor, "actor"), context.policies
    )
    try:
        row = yield fork
    except DuplicateKey:
        row = None
    if row is None:
        raise SessionExists(target)
    if row == 0:
        if checkpoint is None:
            raise SessionNotFound(session_id)
        raise CheckpointNotFound(session_id, checkpoint)
    return rows.session(row)

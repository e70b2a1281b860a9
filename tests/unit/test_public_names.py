"""The names that others write against: they stay, on both managers alike."""

import importlib
import inspect

import pytest

import lifecycle
from lifecycle import AsyncSessionManager, SessionManager

# Each method's name and the parameters that are promised; there may be more.
PROMISED = {
    "create_session": (
        "session_id kind user_id agent_id parent_id title metadata config context conversation phase idle_timeout"
        " protected available_at"
    ),
    "open_session": "session_id",
    "get_session": "session_id",
    "list_sessions": (
        "user_id agent_id kind state parent_id search metadata since until sort order limit offset cursor count where"
    ),
    "update_session": "session_id",
    "delete_session": "session_id soft force",
    "undelete_session": "session_id",
    "delete_user": "user_id",
    "get_active_sessions": "",
    "get_stats": "",
    "history": "session_id",
    **{
        f"{trigger}_session": "session_id reason actor lease"
        for trigger in ("suspend", "resume", "complete", "end", "expire", "reopen")
    },
    "touch_session": "session_id",
    "touch_many": "session_ids",
    "save_state": "session_id conversation append context phase step plan expected_version lease token",
    "save_many": "saves",
    "load_state": "session_id any_state",
    "checkpoint": "session_id label data",
    "list_checkpoints": "session_id",
    "restore_checkpoint": "session_id seq",
    "fork_session": "session_id checkpoint",
    "add_message": "session_id role content agent_id metadata message_id lease",
    "add_messages": "session_id messages",
    "add_messages_many": "additions",
    "get_messages": "session_id limit offset since after before",
    "pop_message": "session_id",
    "delete_message": "session_id message_id",
    "clear_messages": "session_id lease",
    "together": "calls",
    "lease": "session_id holder ttl heartbeat wait",
    "claim": "kinds holder ttl limit",
    "request_approval": "session_id",
    "resolve_approval": "session_id approval_id",
    "list_approvals": "",
    "open_connection": "session_id",
    "beat_connection": "session_id connection_id",
    "close_connection": "session_id connection_id",
    "list_connections": "",
    "expire_idle": "",
    "prune_sessions": "older_than states kind dry_run",
    "delete_ghosts": "",
    "expire_approvals": "",
    "reap_connections": "",
    "cleanup_stale_sessions": "max_age",
    "cleanup_after_delegation": "session_id",
    "watch": "after",
    "open": "url tenant",
    "setup": "",
    "close": "",
    "for_tenant": "tenant",
    "start": "",
    "stop": "",
}
# What each manager has of its own: how it is opened and closed, and what stands for its kind of lease and watch.
OWN = {"close", "for_tenant", "lease", "open", "setup", "start", "stop", "watch", "claim"}


@pytest.mark.parametrize("manager", [SessionManager, AsyncSessionManager])
@pytest.mark.parametrize("name", PROMISED)
def test_what_is_promised_is_there(manager: type, name: str) -> None:
    """Under its name, with its parameters, and with something said about it."""
    method = getattr(manager, name)
    assert set(PROMISED[name].split()) <= set(inspect.signature(method).parameters)
    assert inspect.getdoc(method)


def test_both_managers_offer_the_same() -> None:
    """The same methods, with the same parameters and defaults."""

    def public(manager: type) -> dict[str, inspect.Signature]:
        return {
            name: inspect.signature(method).replace(return_annotation=inspect.Signature.empty)
            for name, method in inspect.getmembers(manager, callable)
            if not name.startswith("_")
        }

    sync, asynchronous = public(SessionManager), public(AsyncSessionManager)
    assert sync.keys() == asynchronous.keys()
    assert {name: one for name, one in sync.items() if name not in OWN} == {
        name: one for name, one in asynchronous.items() if name not in OWN
    }
    for name in OWN:
        assert list(sync[name].parameters) == list(asynchronous[name].parameters), name


def test_every_public_name_can_be_imported() -> None:
    """At its first use, from where its home is; what is not public is an error."""
    assert sorted(lifecycle.__all__) == sorted(set(lifecycle.__all__))
    assert set(lifecycle.__all__) <= set(dir(lifecycle))
    for name in lifecycle.__all__:
        assert getattr(importlib.import_module("lifecycle"), name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = lifecycle.Nothing  # type: ignore[attr-defined]

"""Lifecycle: a durable home for the sessions of workflow engines and agents."""

import importlib
from typing import TYPE_CHECKING, Any

from lifecycle.errors import (
    ApprovalNotFound,
    ApprovalResolved,
    CheckpointNotFound,
    ConfigError,
    Conflict,
    FileUnavailable,
    InvalidArgument,
    InvalidFile,
    InvalidTransition,
    KeyNotFound,
    LeaseLost,
    LifecycleError,
    LimitExceeded,
    MessageExists,
    NotFound,
    NotSerializable,
    SchemaOutdated,
    SearchTimeout,
    SessionBusy,
    SessionExists,
    SessionNotFound,
    SessionProtected,
    StorageUnavailable,
    TokenReused,
    VersionConflict,
)

if TYPE_CHECKING:
    from lifecycle.lease import Lease
    from lifecycle.manager.asynchronous import AsyncSessionManager
    from lifecycle.manager.blocking import SessionManager
    from lifecycle.models.events import TransitionEvent
    from lifecycle.models.reads import (
        ApiKey,
        Approval,
        Checkpoint,
        Connection,
        Message,
        NewApiKey,
        SavedState,
        Session,
        SessionPage,
        Stats,
        SweepReport,
        TransitionRecord,
    )
    from lifecycle.operations.context import ALL
    from lifecycle.policies import Policies, Policy
    from lifecycle.runner import SessionRunner
    from lifecycle.settings import Settings, load_settings
    from lifecycle.unset import UNSET

__version__ = "0.1.0"

__all__ = [
    "ALL",
    "UNSET",
    "ApiKey",
    "Approval",
    "ApprovalNotFound",
    "ApprovalResolved",
    "AsyncSessionManager",
    "Checkpoint",
    "CheckpointNotFound",
    "ConfigError",
    "Conflict",
    "Connection",
    "FileUnavailable",
    "InvalidArgument",
    "InvalidFile",
    "InvalidTransition",
    "KeyNotFound",
    "Lease",
    "LeaseLost",
    "LifecycleError",
    "LimitExceeded",
    "Message",
    "MessageExists",
    "NewApiKey",
    "NotFound",
    "NotSerializable",
    "Policies",
    "Policy",
    "SavedState",
    "SchemaOutdated",
    "SearchTimeout",
    "Session",
    "SessionBusy",
    "SessionExists",
    "SessionManager",
    "SessionNotFound",
    "SessionPage",
    "SessionProtected",
    "SessionRunner",
    "Settings",
    "Stats",
    "StorageUnavailable",
    "SweepReport",
    "TokenReused",
    "TransitionEvent",
    "TransitionRecord",
    "VersionConflict",
    "load_settings",
]

# What is imported at its first use: the managers bring SQLAlchemy and Alembic, a second that `lifecycle --help` and
# whoever catches errors only do without.
_HOMES = {
    "lifecycle.lease": ("Lease",),
    "lifecycle.manager.asynchronous": ("AsyncSessionManager",),
    "lifecycle.manager.blocking": ("SessionManager",),
    "lifecycle.models.events": ("TransitionEvent",),
    "lifecycle.models.reads": (
        "ApiKey",
        "Approval",
        "Checkpoint",
        "Connection",
        "Message",
        "NewApiKey",
        "SavedState",
        "Session",
        "SessionPage",
        "Stats",
        "SweepReport",
        "TransitionRecord",
    ),
    "lifecycle.operations.context": ("ALL",),
    "lifecycle.policies": ("Policies", "Policy"),
    "lifecycle.runner": ("SessionRunner",),
    "lifecycle.settings": ("Settings", "load_settings"),
    "lifecycle.unset": ("UNSET",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Import the name's module, and keep the name."""
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(importlib.import_module(_HOME[name]), name)
        return value

    def __dir__() -> list[str]:
        """The public names, imported or not."""
        return sorted({*globals(), *__all__})

"""Lifecycle: a durable home for the sessions of workflow engines and agents."""

from lifecycle.errors import (
    ApprovalNotFound,
    ApprovalResolved,
    CheckpointNotFound,
    ConfigError,
    Conflict,
    InvalidArgument,
    InvalidTransition,
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
from lifecycle.manager.asynchronous import AsyncSessionManager
from lifecycle.manager.blocking import SessionManager
from lifecycle.models.reads import (
    Approval,
    Checkpoint,
    Connection,
    Message,
    SavedState,
    Session,
    SessionPage,
    Stats,
    SweepReport,
    TransitionRecord,
)
from lifecycle.operations.context import ALL
from lifecycle.policies import Policies, Policy
from lifecycle.settings import Settings, load_settings
from lifecycle.unset import UNSET

__version__ = "0.1.0"

__all__ = [
    "ALL",
    "UNSET",
    "Approval",
    "ApprovalNotFound",
    "ApprovalResolved",
    "AsyncSessionManager",
    "Checkpoint",
    "CheckpointNotFound",
    "ConfigError",
    "Conflict",
    "Connection",
    "InvalidArgument",
    "InvalidTransition",
    "LeaseLost",
    "LifecycleError",
    "LimitExceeded",
    "Message",
    "MessageExists",
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
    "Settings",
    "Stats",
    "StorageUnavailable",
    "SweepReport",
    "TokenReused",
    "TransitionRecord",
    "VersionConflict",
    "load_settings",
]

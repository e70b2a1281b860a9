"""What every operation knows besides its parameters: whose sessions, under which policies and bounds."""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from lifecycle.documents import encode, surrogate_problem
from lifecycle.entries import Entries
from lifecycle.errors import InvalidArgument, LimitExceeded
from lifecycle.operations.pace import Pace
from lifecycle.pieces import Document
from lifecycle.policies import Policies
from lifecycle.settings import Settings

if TYPE_CHECKING:
    from lifecycle.archive.store import Archive

Hook = Callable[..., Any]


class AllTenants:
    """The type of `ALL`."""

    def __repr__(self) -> str:
        """As it is written."""
        return "ALL"


ALL: Final = AllTenants()


@dataclass
class Hooks:
    """A user's functions, by trigger: conditions and before-hooks run ahead of the transition, after-hooks behind its commit."""

    conditions: dict[str, list[Hook]] = field(default_factory=lambda: defaultdict(list))
    before: dict[str, list[Hook]] = field(default_factory=lambda: defaultdict(list))
    after: dict[str, list[Hook]] = field(default_factory=lambda: defaultdict(list))


class Context:
    """Tenant, policies, bounds and hooks of one manager."""

    __slots__ = ("_id_chars", "hooks", "limits", "monotonic", "paces", "policies", "scope", "settings")

    def __init__(self, settings: Settings, tenant: str | AllTenants, hooks: Hooks | None = None) -> None:
        if isinstance(tenant, str):
            check_text(tenant, "tenant", settings.limits.id_chars)
        self.scope = tenant
        self.settings = settings
        self.policies: Policies = settings.policy_set
        self.limits = settings.limits
        self._id_chars = settings.limits.id_chars
        self.hooks = hooks or Hooks()
        self.monotonic = time.monotonic
        # Of each sweep, by its name: the next one goes on as the last one did.
        self.paces: defaultdict[str, Pace] = defaultdict(Pace)

    @property
    def tenant(self) -> str:
        """The tenant, for a call about one session; `InvalidArgument` for a manager of all tenants."""
        if isinstance(self.scope, str):
            return self.scope
        raise InvalidArgument("this manager is open for all tenants: call .for_tenant(name) to work on a session")

    @property
    def archive(self) -> "Archive | None":
        """Where sessions are written before they are removed, or None."""
        section = self.settings.archive
        if section.directory is None:
            return None
        from lifecycle.archive.store import Archive

        return Archive(section.directory, section.compression)

    @property
    def tenant_or_all(self) -> str | None:
        """The tenant, or None for all of them: what lists and sweeps go by."""
        return self.scope if isinstance(self.scope, str) else None

    def check_id(self, value: object, name: str = "session_id") -> str:
        """The id if it can be stored."""
        if type(value) is str and 0 < len(value) <= self._id_chars and value.isascii() and "\x00" not in value:
            return value
        if not isinstance(value, str) or not value:
            raise InvalidArgument(f"{name} must be text of 1 to {self.limits.id_chars} characters, not {value!r}")
        return check_text(value, name, self.limits.id_chars)

    def check_short(self, value: str | None, name: str) -> str | None:
        """A short text such as a user id, or None."""
        return None if value is None else check_text(value, name, self.limits.id_chars)

    def check_long(self, value: str | None, name: str) -> str | None:
        """A text such as a reason, or None."""
        return None if value is None else check_text(value, name, self.limits.message_chars, "limits.message_chars")

    def document(self, value: Any, name: str) -> str:
        """The JSON text of a document of the saved state."""
        return encode(value, name, limit=self.limits.document_bytes, depth=self.limits.document_depth)

    def stored(self, value: Any, name: str) -> Document:
        """A document of the saved state as it is stored."""
        return Document.of(name, value, self.document(value, name))

    def entries(self, value: Any, name: str) -> Entries:
        """A list's elements as entries of a conversation."""
        if not isinstance(value, list):
            raise InvalidArgument(f"{name} must be a list, not {type(value).__name__}")
        texts = [self.document(entry, f"{name}[{i}]") for i, entry in enumerate(value)]
        limit = self.limits.document_bytes
        if sum(map(len, texts)) * 4 > limit:
            size = sum(len(text.encode()) + 1 for text in texts) + 1
            if size > limit:
                raise LimitExceeded(name, size, limit, "bytes", "limits.document_bytes")
        return Entries.of(texts)

    def metadata(self, value: Any, name: str) -> str:
        """The JSON text of an object such as metadata or config."""
        if not isinstance(value, dict):
            raise InvalidArgument(f"{name} must be a dict, not {type(value).__name__}")
        if not value:
            return "{}"
        bound = self.limits.metadata_bytes
        return encode(value, name, limit=bound, depth=self.limits.document_depth, key="limits.metadata_bytes")


def check_text(value: object, name: str, limit: int, key: str = "limits.id_chars") -> str:
    """The text if every database can store it as it is."""
    if not isinstance(value, str):
        raise InvalidArgument(f"{name} must be text, not {type(value).__name__}")
    if len(value) > limit:
        raise LimitExceeded(name, len(value), limit, "characters", key)
    if not value.isascii() and (problem := surrogate_problem(value)):
        raise InvalidArgument(f"{name}: {problem}")
    if "\x00" in value:
        raise InvalidArgument(f"{name}: the character U+0000 at index {value.index(chr(0))} cannot be stored in a text")
    return value


def check_count(value: object, name: str, low: int, high: int | None, key: str = "") -> int:
    """A whole number within its bounds."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgument(f"{name} must be a whole number, not {value!r}")
    if value < low or (high is not None and value > high):
        top = "" if high is None else f" and at most {high}" + (f" (config: {key})" if key else "")
        raise InvalidArgument(f"{name} must be at least {low}{top}, not {value}")
    return value

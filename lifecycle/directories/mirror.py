"""The database's side of a removal: done when the database is there, left to the next sync when it is not."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from lifecycle.directories.layout import database_id
from lifecycle.errors import ConfigError, Conflict, InvalidTransition, NotFound, SchemaOutdated, StorageUnavailable

if TYPE_CHECKING:
    from lifecycle.manager.blocking import SessionManager

ACTOR: Final = "directory"
_LIVES: Final = 1000


class Mirror:
    """The sessions of a directory as the database has them, if it can be reached."""

    def __init__(self, manager: "SessionManager | Callable[[], SessionManager] | None") -> None:
        self._manager = manager
        self.problems: list[str] = []
        self._away = manager is None

    def open(self) -> "SessionManager":
        """The manager. Raises what opening it raises, and `ConfigError` where there is none."""
        if self._manager is None:
            raise ConfigError("manager", "a sync needs a database: SessionDirectory(root, manager)", source="argument")
        if callable(self._manager):
            self._manager = self._manager()
        return self._manager

    def end(self, agent_id: str, session_id: str, reason: str) -> bool:
        """End a session; whether the database has it, as finished. Never raises because the database is away."""
        if self._away:
            return False
        try:
            return end(self.open(), agent_id, session_id, reason)
        except (StorageUnavailable, SchemaOutdated) as error:
            # Once is enough: each try may take as long as database.connect_timeout.
            self._away = True
            self.problems.append(f"database: {error}; the next sync ends what vanished from disk")
        except Conflict as error:
            self.problems.append(f"database: {error}")
        return False


def end(manager: "SessionManager", agent_id: str, session_id: str, reason: str) -> bool:
    """End the latest life of a session; whether the database has it, as finished."""
    found = False
    for life in range(1, _LIVES):
        name = database_id(agent_id, session_id, life)
        try:
            manager.end_session(name, reason=reason, actor=ACTOR)
        except NotFound:
            return found
        except InvalidTransition:
            pass  # it is finished in another way
        # Those before the last are finished already, and ending them once more changes nothing.
        found = True
    return found

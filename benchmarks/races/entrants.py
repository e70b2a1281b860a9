"""Who takes part: each store in each way of using it, and whether its package is installed."""

import importlib
from dataclasses import dataclass
from importlib import metadata

from benchmarks.races.store import Store

INSTALL = "run `make races`, or pip install -r benchmarks/peers-requirements.txt in an environment of its own"


@dataclass(frozen=True, slots=True)
class Entrant:
    """A store and the way it is used. `key` chooses it, `home` is `module:class`, `packages` are what it runs on."""

    key: str
    store: str
    use: str
    home: str
    packages: tuple[str, ...]
    # Whether every stale write must be refused, so that an accepted one fails the run.
    guarded: bool = False

    @property
    def name(self) -> str:
        """The store and its use, as in `Lifecycle, lease`."""
        return f"{self.store}, {self.use}"

    def missing(self) -> str | None:
        """Why it cannot run here and what to do about it, or None when it can."""
        absent = [package for package in self.packages if not _installed(package)]
        return f"{', '.join(absent)} not installed: {INSTALL}" if absent else None

    def versions(self) -> dict[str, str]:
        """The version of each of its packages."""
        return {package: metadata.version(package) for package in self.packages}

    def open(self, url: str) -> Store:
        """The store, in this process."""
        module, _, name = self.home.partition(":")
        store: Store = getattr(importlib.import_module(module), name)(url)
        return store


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


_OURS = ("session-lifecycle",)

ENTRANTS = (
    Entrant(
        "lifecycle", "Lifecycle", "expected_version", "benchmarks.races.store_lifecycle:Versioned", _OURS, guarded=True
    ),
    Entrant("lifecycle", "Lifecycle", "lease", "benchmarks.races.store_lifecycle:Leased", _OURS, guarded=True),
    Entrant("lifecycle", "Lifecycle", "neither", "benchmarks.races.store_lifecycle:Unguarded", _OURS),
    Entrant(
        "langgraph",
        "LangGraph",
        "PostgresSaver",
        "benchmarks.races.store_langgraph:LangGraph",
        ("langgraph-checkpoint-postgres", "langgraph-checkpoint"),
    ),
    Entrant(
        "langgraph",
        "LangGraph",
        "LifecycleSaver, lease",
        "benchmarks.races.store_lifecycle_langgraph:LifecycleLangGraph",
        ("langgraph-checkpoint", *_OURS),
        guarded=True,
    ),
    Entrant(
        "adk", "Google ADK", "DatabaseSessionService", "benchmarks.races.store_adk:Adk", ("google-adk", "asyncpg", "greenlet")
    ),
    Entrant(
        "adk", "Google ADK", "SqliteSessionService", "benchmarks.races.store_adk_sqlite:AdkSqlite", ("google-adk", "aiosqlite")
    ),
    Entrant(
        "adk", "Google ADK", "LifecycleSessionService", "benchmarks.races.store_lifecycle_adk:LifecycleAdk",
        ("google-adk", *_OURS), guarded=True,
    ),
    Entrant(
        "openai", "OpenAI Agents", "SQLAlchemySession", "benchmarks.races.store_openai:OpenAI",
        ("openai-agents", "asyncpg", "greenlet"),
    ),
    Entrant(
        "openai", "OpenAI Agents", "LifecycleSession, lease", "benchmarks.races.store_openai:LifecycleOpenAI",
        ("openai-agents", *_OURS), guarded=True,
    ),
)  # fmt: skip
KEYS = tuple(dict.fromkeys(entrant.key for entrant in ENTRANTS))

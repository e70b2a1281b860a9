"""`SessionManager`: every operation as a method that returns when its work is durable."""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from lifecycle import migrate, urls
from lifecycle.drivers.dbapi import DbapiDriver
from lifecycle.drivers.mariadb import MariadbDriver
from lifecycle.drivers.sqlite import SqliteDriver
from lifecycle.manager.hooks import HookRegistry
from lifecycle.manager.methods import sync_method
from lifecycle.manager.opening import behind_cache, require_postgres, scoped, settings_for
from lifecycle.operations import (
    clearing,
    daemon,
    health,
    keys,
    leases,
    lifecycle,
    many,
    messages,
    oversight,
    people,
    samples,
    saving,
    sessions,
    sweeps,
    together,
)
from lifecycle.operations.context import AllTenants, Context
from lifecycle.settings import DatabaseSettings, Settings


class SessionManager(HookRegistry):
    """Keeps sessions. Threads may share one; a child process opens its own.

    `with SessionManager.open("sqlite:///sessions.db") as manager: ...`
    """

    def __init__(
        self, settings: Settings, context: Context, driver: "DbapiDriver | PostgresLike", *, owner: bool
    ) -> None:
        super().__init__(context.hooks)
        self.settings = settings
        self._context = context
        self._driver = scoped(driver, context, asynchronous=False)
        self._owner = owner
        self._stop: Callable[[], object] | None = None

    @classmethod
    def open(cls, url: str | Settings, tenant: str | AllTenants = "") -> Self:
        """Open the store behind a URL (or complete settings) for one tenant, or for `ALL` of them.

        `sqlite:///file`, `sqlite://` (in memory, set up at once), `jsonl:///directory` (for one process),
        `postgresql://...`, `mysql://...`. Nothing is created: call `setup` once. Raises `ConfigError`,
        `StorageUnavailable`.
        """
        settings = settings_for(url)
        context = Context(settings, tenant)
        driver = behind_cache(driver_for(settings.database), settings, asynchronous=False)
        manager = cls(settings, context, driver, owner=True)
        if urls.is_memory(settings.database.url):
            manager.setup()
        return manager

    def setup(self) -> None:
        """Bring the database's schema to this release's; safe from any number of processes at once."""
        url = self.settings.database.url
        if urls.is_memory(url) and isinstance(self._driver, DbapiDriver):
            with self._driver.engine.connect() as connection:
                migrate.upgrade_connection(connection)
        else:
            migrate.upgrade(url)

    def for_tenant(self, tenant: str | AllTenants) -> Self:
        """A manager of another tenant's sessions, on the same connections and with the same hooks."""
        context = Context(self.settings, tenant, self._context.hooks)
        return type(self)(self.settings, context, self._driver, owner=False)

    def start(self) -> None:
        """Run the sweeps in the background of this process, as `settings.worker.jobs` says, until `stop`."""
        from lifecycle.upkeep import Upkeep

        if self._stop is None:
            upkeep = Upkeep(self)
            upkeep.start()
            self._stop = upkeep.stop

    def stop(self) -> None:
        """Stop the sweeps that `start` began, waiting for the batch under way."""
        stop, self._stop = self._stop, None
        if stop is not None:
            stop()

    def claim(
        self,
        kinds: Sequence[str],
        *,
        holder: str | None = None,
        ttl: float = 30.0,
        heartbeat: float | None = None,
        limit: int = 1,
    ) -> "list[Lease]":
        """Lease up to `limit` sessions of these kinds that wait to be worked on, and keep the leases alive.

        Those wait whose `available_at` has come, and those that a worker left behind when it died. Each lease has its
        `session`; give it back with `release_lease`, or `hand_back` to have it taken again. `SessionRunner` does all
        this for you.
        """
        from lifecycle.lease import check_times, clock, holder_or_own
        from lifecycle.lease_context import leases_of
        from lifecycle.lease_keeper import keeper_for

        times, holder, began = check_times(ttl, heartbeat), holder_or_own(holder), clock()
        claimed = self.claim_sessions(kinds, holder=holder, ttl=times[0], limit=limit)
        return leases_of(keeper_for(self), claimed, holder, times, began)

    def lease(
        self,
        session_id: str,
        *,
        holder: str | None = None,
        ttl: float = 30.0,
        heartbeat: float | None = None,
        wait: float | None = None,
    ) -> "LeaseContext":
        """Hold a session against all others: `with manager.lease(id) as lease: manager.save_state(id, lease=lease)`.

        The lease lives `ttl` seconds from its last beat, which comes every `heartbeat` seconds (a third of `ttl` unless
        told otherwise, and never less often) from a thread of its own. While somebody else has it, `wait` says for how
        many seconds to try. `holder` names you in others' errors; it is an id of this process unless given.
        Entering raises `SessionNotFound`, `InvalidTransition` (it is finished), `SessionBusy`.
        """
        from lifecycle.lease_context import LeaseContext

        return LeaseContext(self, session_id, holder, ttl, heartbeat, wait)

    def watch(
        self,
        after: str | None = None,
        *,
        poll: float = 0.5,
        batch: int = 500,
        timeout: float | None = None,
        session_id: str | None = None,
    ) -> "Watch":
        """Every transition as it is committed, creations and deletions too: `for event in manager.watch(): ...`.

        It begins with what is committed from this call on; with `after=""`, at the beginning of what the audit log still
        holds; with the `cursor` of an event, behind it. Nothing is passed over, whatever order transactions commit in;
        a session's events come in their order. Only what is removed with its session before the watch comes to it is
        not seen, its deletion is.
        It looks every `poll` seconds, reads up to `batch` lines at once, and ends when there was nothing new for
        `timeout` seconds (never, for None; 0 takes what is there). `session_id` leaves out all other sessions.
        Raises `StorageUnavailable` when the database is away: go on from the last event's cursor. Raises
        `InvalidArgument` for a cursor that is not of this database, and `LifecycleError` once the manager is closed.
        """
        from lifecycle.watch import Watch

        return Watch(self, after, poll, batch, timeout, session_id)

    def close(self) -> None:
        """Stop the sweeps and close the connections (those of a manager from `for_tenant` are its parent's)."""
        self.stop()
        if self._owner:
            from lifecycle.watch import watches_on

            watches_on(self._driver).close()
            if hasattr(self._driver, "lease_keeper"):
                from lifecycle.lease_keeper import close_keeper

                close_keeper(self._driver)
            self._driver.close()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    create_session = sync_method(sessions.create_session)
    open_session = sync_method(sessions.open_session)
    get_session = sync_method(sessions.get_session)
    list_sessions = sync_method(sessions.list_sessions)
    update_session = sync_method(sessions.update_session)
    delete_session = sync_method(sessions.delete_session)
    undelete_session = sync_method(sessions.undelete_session)
    delete_user = sync_method(sessions.delete_user)
    get_active_sessions = sync_method(sessions.get_active_sessions)
    get_stats = sync_method(sessions.get_stats)
    history = sync_method(sessions.history)
    recent_transitions = sync_method(oversight.recent_transitions)
    list_stuck = sync_method(oversight.list_stuck)

    suspend_session = sync_method(lifecycle.suspend_session)
    resume_session = sync_method(lifecycle.resume_session)
    complete_session = sync_method(lifecycle.complete_session)
    end_session = sync_method(lifecycle.end_session)
    expire_session = sync_method(lifecycle.expire_session)
    reopen_session = sync_method(lifecycle.reopen_session)
    touch_session = sync_method(lifecycle.touch_session)
    touch_many = sync_method(lifecycle.touch_many)

    save_state = sync_method(saving.save_state)
    save_many = sync_method(many.save_many)
    load_state = sync_method(saving.load_state)
    checkpoint = sync_method(saving.checkpoint)
    list_checkpoints = sync_method(saving.list_checkpoints)
    get_checkpoint = sync_method(saving.get_checkpoint)
    restore_checkpoint = sync_method(saving.restore_checkpoint)
    fork_session = sync_method(saving.fork_session)

    add_message = sync_method(messages.add_message)
    add_messages = sync_method(messages.add_messages)
    add_messages_many = sync_method(many.add_messages_many)
    get_messages = sync_method(messages.get_messages)
    pop_message = sync_method(messages.pop_message)
    delete_message = sync_method(messages.delete_message)
    clear_messages = sync_method(clearing.clear_messages)

    together = sync_method(together.together)

    request_approval = sync_method(people.request_approval)
    resolve_approval = sync_method(people.resolve_approval)
    list_approvals = sync_method(people.list_approvals)
    open_connection = sync_method(people.open_connection)
    beat_connection = sync_method(people.beat_connection)
    close_connection = sync_method(people.close_connection)
    list_connections = sync_method(people.list_connections)

    acquire_lease = sync_method(leases.acquire_lease)
    renew_leases = sync_method(leases.renew_leases)
    release_lease = sync_method(leases.release_lease)
    claim_sessions = sync_method(leases.claim_sessions)
    hand_back = sync_method(leases.hand_back)

    expire_idle = sync_method(sweeps.expire_idle)
    prune_sessions = sync_method(sweeps.prune_sessions)
    delete_ghosts = sync_method(sweeps.delete_ghosts)
    expire_approvals = sync_method(sweeps.expire_approvals)
    reap_connections = sync_method(sweeps.reap_connections)
    cleanup_stale_sessions = sync_method(sweeps.cleanup_stale_sessions)
    cleanup_after_delegation = sync_method(sweeps.cleanup_after_delegation)
    trim = sync_method(sweeps.trim)
    apply_policies = sync_method(sweeps.apply_policies)

    take_sample = sync_method(samples.take_sample)
    get_counts = sync_method(samples.get_counts)
    get_samples = sync_method(samples.get_samples)
    get_health = sync_method(health.get_health)

    beat_worker = sync_method(daemon.beat_worker)
    remove_worker = sync_method(daemon.remove_worker)
    list_workers = sync_method(daemon.list_workers)
    take_job = sync_method(daemon.take_job)
    end_job = sync_method(daemon.end_job)

    create_key = sync_method(keys.create_key)
    list_keys = sync_method(keys.list_keys)
    get_key = sync_method(keys.get_key)
    verify_key = sync_method(keys.verify_key)
    revoke_key = sync_method(keys.revoke_key)
    any_key = sync_method(keys.any_key)
    share_secret = sync_method(keys.share_secret)


def driver_for(settings: DatabaseSettings) -> "DbapiDriver | PostgresLike":
    """The sync driver of a database."""
    match urls.dialect_name(settings.url):
        case "sqlite":
            return SqliteDriver(settings)
        case "jsonl":
            from lifecycle.drivers.jsonl import JsonlDriver

            return JsonlDriver(settings)
        case "postgresql":
            require_postgres()
            from lifecycle.drivers.postgresql import PostgresDriver

            return PostgresDriver(settings)
        case _:
            return MariadbDriver(settings)


if TYPE_CHECKING:
    from lifecycle.drivers.postgresql import PostgresDriver as PostgresLike
    from lifecycle.lease import Lease
    from lifecycle.lease_context import LeaseContext
    from lifecycle.watch import Watch

"""`AsyncSessionManager`: every operation as a coroutine method."""

import asyncio
from collections.abc import Generator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from lifecycle import migrate, urls
from lifecycle.drivers.mariadb import MariadbDriver
from lifecycle.drivers.sqlite import SqliteDriver
from lifecycle.drivers.threaded import ThreadedDriver
from lifecycle.manager.hooks import HookRegistry
from lifecycle.manager.methods import async_method
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


class AsyncSessionManager(HookRegistry):
    """Keeps sessions, for asyncio. Tasks of one event loop may share one.

    `async with AsyncSessionManager.open("postgresql://...") as manager: ...`
    """

    def __init__(
        self, settings: Settings, context: Context, driver: "ThreadedDriver | PostgresLike", *, owner: bool
    ) -> None:
        super().__init__(context.hooks)
        self.settings = settings
        self._context = context
        self._driver = scoped(driver, context, asynchronous=True)
        self._owner = owner
        self._upkeep: Any = None

    @classmethod
    def open(cls, url: str | Settings, tenant: str | AllTenants = "") -> Self:
        """Open the store behind a URL (or complete settings) for one tenant, or for `ALL` of them.

        It may be awaited, entered with `async with`, or used as it is: connections are made when they are needed.
        Call `await manager.setup()` once to create the tables. Raises `ConfigError`.
        """
        settings = settings_for(url)
        driver = async_driver_for(settings.database)
        if urls.is_memory(settings.database.url) and isinstance(driver, ThreadedDriver):
            with driver.driver.engine.connect() as connection:
                migrate.upgrade_connection(connection)
        driver = behind_cache(driver, settings, asynchronous=True)
        return cls(settings, Context(settings, tenant), driver, owner=True)

    def __await__(self) -> Generator[Any, Any, Self]:
        """Itself, so that `await AsyncSessionManager.open(url)` reads as it should."""
        yield from ()
        return self

    async def setup(self) -> None:
        """Bring the database's schema to this release's; safe from any number of processes at once."""
        if not urls.is_memory(self.settings.database.url):
            await asyncio.to_thread(migrate.upgrade, self.settings.database.url)

    def for_tenant(self, tenant: str | AllTenants) -> Self:
        """A manager of another tenant's sessions, on the same connections and with the same hooks."""
        context = Context(self.settings, tenant, self._context.hooks)
        return type(self)(self.settings, context, self._driver, owner=False)

    async def start(self) -> None:
        """Run the sweeps in the background of this process, as `settings.worker.jobs` says, until `stop`."""
        from lifecycle.manager.blocking import SessionManager
        from lifecycle.upkeep import Upkeep

        if self._upkeep is None:
            own = await asyncio.to_thread(SessionManager.open, self.settings, self._context.scope)
            self._upkeep = Upkeep(own)
            self._upkeep.start()

    async def stop(self) -> None:
        """Stop the sweeps that `start` began, waiting for the batch under way."""
        upkeep, self._upkeep = self._upkeep, None
        if upkeep is not None:
            await asyncio.to_thread(upkeep.stop)
            await asyncio.to_thread(upkeep.manager.close)

    async def claim(
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
        claimed = await self.claim_sessions(kinds, holder=holder, ttl=times[0], limit=limit)
        keeper = await asyncio.to_thread(keeper_for, self)
        return leases_of(keeper, claimed, holder, times, began, asyncio.get_running_loop())

    def lease(
        self,
        session_id: str,
        *,
        holder: str | None = None,
        ttl: float = 30.0,
        heartbeat: float | None = None,
        wait: float | None = None,
    ) -> "AsyncLeaseContext":
        """Hold a session against all others: `async with manager.lease(id) as lease: ...`.

        The lease lives `ttl` seconds from its last beat, which comes every `heartbeat` seconds (a third of `ttl` unless
        told otherwise, and never less often) from a thread of its own, whatever the event loop is busy with. While
        somebody else has it, `wait` says for how many seconds to try. `holder` names you in others' errors; it is an id
        of this process unless given.
        Entering raises `SessionNotFound`, `InvalidTransition` (it is finished), `SessionBusy`.
        """
        from lifecycle.lease_context import AsyncLeaseContext

        return AsyncLeaseContext(self, session_id, holder, ttl, heartbeat, wait)

    def watch(
        self,
        after: str | None = None,
        *,
        poll: float = 0.5,
        batch: int = 500,
        timeout: float | None = None,
        session_id: str | None = None,
    ) -> "AsyncWatch":
        """Every transition as it is committed, creations and deletions too: `async for event in manager.watch(): ...`.

        It begins with what is committed from its first step on; with `after=""`, at the beginning of what the audit log still
        holds; with the `cursor` of an event, behind it. Nothing is passed over, whatever order transactions commit in;
        a session's events come in their order. Only what is removed with its session before the watch comes to it is
        not seen, its deletion is.
        It looks every `poll` seconds, reads up to `batch` lines at once, and ends when there was nothing new for
        `timeout` seconds (never, for None; 0 takes what is there). `session_id` leaves out all other sessions.
        Raises `StorageUnavailable` when the database is away: go on from the last event's cursor. Raises
        `InvalidArgument` for a cursor that is not of this database, and `LifecycleError` once the manager is closed.
        """
        from lifecycle.watch import AsyncWatch

        return AsyncWatch(self, after, poll, batch, timeout, session_id)

    async def close(self) -> None:
        """Stop the sweeps and close the connections (those of a manager from `for_tenant` are its parent's)."""
        await self.stop()
        if self._owner:
            from lifecycle.watch import watches_on

            watches_on(self._driver).close()
            if hasattr(self._driver, "lease_keeper"):
                from lifecycle.lease_keeper import close_keeper

                await asyncio.to_thread(close_keeper, self._driver)
            await self._driver.close()

    async def __aenter__(self) -> Self:
        """Itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    create_session = async_method(sessions.create_session)
    open_session = async_method(sessions.open_session)
    get_session = async_method(sessions.get_session)
    list_sessions = async_method(sessions.list_sessions)
    update_session = async_method(sessions.update_session)
    delete_session = async_method(sessions.delete_session)
    undelete_session = async_method(sessions.undelete_session)
    delete_user = async_method(sessions.delete_user)
    get_active_sessions = async_method(sessions.get_active_sessions)
    get_stats = async_method(sessions.get_stats)
    history = async_method(sessions.history)
    recent_transitions = async_method(oversight.recent_transitions)
    list_stuck = async_method(oversight.list_stuck)

    suspend_session = async_method(lifecycle.suspend_session)
    resume_session = async_method(lifecycle.resume_session)
    complete_session = async_method(lifecycle.complete_session)
    end_session = async_method(lifecycle.end_session)
    expire_session = async_method(lifecycle.expire_session)
    reopen_session = async_method(lifecycle.reopen_session)
    touch_session = async_method(lifecycle.touch_session)
    touch_many = async_method(lifecycle.touch_many)

    save_state = async_method(saving.save_state)
    save_many = async_method(many.save_many)
    load_state = async_method(saving.load_state)
    checkpoint = async_method(saving.checkpoint)
    list_checkpoints = async_method(saving.list_checkpoints)
    get_checkpoint = async_method(saving.get_checkpoint)
    restore_checkpoint = async_method(saving.restore_checkpoint)
    fork_session = async_method(saving.fork_session)

    add_message = async_method(messages.add_message)
    add_messages = async_method(messages.add_messages)
    add_messages_many = async_method(many.add_messages_many)
    get_messages = async_method(messages.get_messages)
    pop_message = async_method(messages.pop_message)
    delete_message = async_method(messages.delete_message)
    clear_messages = async_method(clearing.clear_messages)

    together = async_method(together.together)

    request_approval = async_method(people.request_approval)
    resolve_approval = async_method(people.resolve_approval)
    list_approvals = async_method(people.list_approvals)
    open_connection = async_method(people.open_connection)
    beat_connection = async_method(people.beat_connection)
    close_connection = async_method(people.close_connection)
    list_connections = async_method(people.list_connections)

    acquire_lease = async_method(leases.acquire_lease)
    renew_leases = async_method(leases.renew_leases)
    release_lease = async_method(leases.release_lease)
    claim_sessions = async_method(leases.claim_sessions)
    hand_back = async_method(leases.hand_back)

    expire_idle = async_method(sweeps.expire_idle)
    prune_sessions = async_method(sweeps.prune_sessions)
    delete_ghosts = async_method(sweeps.delete_ghosts)
    expire_approvals = async_method(sweeps.expire_approvals)
    reap_connections = async_method(sweeps.reap_connections)
    cleanup_stale_sessions = async_method(sweeps.cleanup_stale_sessions)
    cleanup_after_delegation = async_method(sweeps.cleanup_after_delegation)
    trim = async_method(sweeps.trim)
    apply_policies = async_method(sweeps.apply_policies)

    take_sample = async_method(samples.take_sample)
    get_counts = async_method(samples.get_counts)
    get_samples = async_method(samples.get_samples)
    get_health = async_method(health.get_health)

    beat_worker = async_method(daemon.beat_worker)
    remove_worker = async_method(daemon.remove_worker)
    list_workers = async_method(daemon.list_workers)
    take_job = async_method(daemon.take_job)
    end_job = async_method(daemon.end_job)

    create_key = async_method(keys.create_key)
    list_keys = async_method(keys.list_keys)
    get_key = async_method(keys.get_key)
    verify_key = async_method(keys.verify_key)
    revoke_key = async_method(keys.revoke_key)
    any_key = async_method(keys.any_key)
    share_secret = async_method(keys.share_secret)


def async_driver_for(settings: DatabaseSettings) -> "ThreadedDriver | PostgresLike":
    """The async driver of a database."""
    match urls.dialect_name(settings.url):
        case "sqlite":
            return ThreadedDriver(SqliteDriver(settings), 1)
        case "jsonl":
            from lifecycle.drivers.jsonl import JsonlDriver

            return ThreadedDriver(JsonlDriver(settings), 1)
        case "postgresql":
            require_postgres()
            from lifecycle.drivers.postgresql_async import AsyncPostgresDriver

            return AsyncPostgresDriver(settings)
        case _:
            return ThreadedDriver(MariadbDriver(settings), settings.pool_size)


if TYPE_CHECKING:
    from lifecycle.drivers.postgresql_async import AsyncPostgresDriver as PostgresLike
    from lifecycle.lease import Lease
    from lifecycle.lease_context import AsyncLeaseContext
    from lifecycle.watch import AsyncWatch

"""The async driver for PostgreSQL: `postgresql.py` with awaits."""

import asyncio
import contextlib
import time
from typing import Any

import psycopg
from psycopg_pool import PoolTimeout

from lifecycle.drivers import postgresql_bell as bells
from lifecycle.drivers import postgresql_pool as pools
from lifecycle.drivers import postgresql_scope as scopes
from lifecycle.drivers import postgresql_side_by_side as side_by_side
from lifecycle.drivers.combining import NotCommitted
from lifecycle.drivers.postgresql_batch import LOCK_TIMEOUT_MS
from lifecycle.drivers.postgresql_errors import lost, may_go_on, translate
from lifecycle.drivers.postgresql_group import Group, Write
from lifecycle.drivers.postgresql_layout import Meeting, meeting_under
from lifecycle.drivers.postgresql_prepared import AsyncPreparedConnection, Batch, Prepared, Rows, prepared, ready
from lifecycle.drivers.stepping import ATTEMPTS, Aborted, Stepper, call_async_hook, erase_archived, is_read, run_async
from lifecycle.errors import LifecycleError, StorageUnavailable
from lifecycle.news import news_of
from lifecycle.operations.requests import ASSEMBLED, CallHook, EraseArchived, Pause, SideBySide
from lifecycle.operations.typing import Steps, T
from lifecycle.recipes.citus_catalog import Layout
from lifecycle.recipes.citus_halving import joined
from lifecycle.recipes.lists import TimeLimit
from lifecycle.recipes.statement import NOT_ENOUGH, Call, Many, Several
from lifecycle.settings import DatabaseSettings


class AsyncPostgresDriver(Stepper):
    """Runs operations on a pool of async connections, opened in the event loop of its first use."""

    dialect = "postgresql"

    def __init__(self, settings: DatabaseSettings) -> None:
        super().__init__()
        self._settings = settings
        self._secured = settings.row_security
        self._begin = pools.begin(settings)
        self._pool: pools.AsyncPool | None = None
        self._opening = asyncio.Lock()
        self.bell = bells.borrow(settings)
        self._open = True
        self._group = Group(self._execute, self._commit, settings.pool_size)

    async def close(self) -> None:
        """Close the pool."""
        if self._open:
            self._open = False
            await asyncio.to_thread(bells.release, self._settings)
        await self._group.close()
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    async def run(self, operation: Steps[T]) -> T:
        """Run one operation to its end."""
        self.check_process()
        return await run_async(operation, self._meet)

    async def _meet(self, request: Any) -> Any:
        answer = await (self._side_by_side(request) if isinstance(request, SideBySide) else self._answer(request))
        if self.bell is not None and (news := news_of(request)):
            self.bell.ring(news)
        return answer

    async def _looked(self) -> Layout:
        """How the tables are laid out: every connection that is made has looked."""
        pool, connection = await self._take()
        await pool.putconn(connection)
        if pool.layout is None:
            raise AssertionError("unreachable")
        return pool.layout

    async def _meeting(self) -> Meeting:
        known = None if self._pool is None else self._pool.layout
        return meeting_under(known or await self._looked(), self._settings)

    async def _answer(self, request: Any) -> Any:
        if isinstance(request, CallHook):
            return await call_async_hook(request)
        if isinstance(request, Pause):
            await asyncio.sleep(request.seconds)
            return None
        if isinstance(request, EraseArchived):
            return await asyncio.to_thread(erase_archived, request)
        meeting = await self._meeting()
        single = meeting.singles.get(type(request))
        if single is not None:
            run = self._group.run if type(request) in meeting.grouped else self._execute
            values, answer = single.bind(request), NOT_ENOUGH
            for shape in single.tries(request):
                statement = prepared(shape)
                answer = single.read(request, await run(request, statement, statement.values(values)))
                if answer is not NOT_ENOUGH:
                    break
            return answer
        for attempt in range(ATTEMPTS):
            try:
                return await self._piped(meeting, request) or await self._transaction(meeting, request)
            except Aborted as error:
                if (halves := meeting.halves(request)) is not None:
                    return joined(await self._answer(halves[0]), await self._answer(halves[1]))
                if attempt == ATTEMPTS - 1:
                    raise StorageUnavailable(f"PostgreSQL: {error}") from error.__cause__
                await asyncio.sleep(0.005 * 2**attempt)
        raise AssertionError("unreachable")

    async def _execute(self, request: Any, statement: Prepared, values: list[bytes | None]) -> Rows:
        for last in (not is_read(request), True):
            pool, connection = await self._take()
            try:
                return await (connection.run_scoped if self._secured else connection.run)(statement, values)
            except psycopg.Error as error:
                broken = connection.broken
                if broken and not last:
                    continue
                problem = translate(error, broken=broken, write=not is_read(request))
                if isinstance(problem, Aborted):
                    problem = StorageUnavailable(f"PostgreSQL: {problem}")
                raise problem from error
            finally:
                await pool.putconn(connection)
        raise AssertionError("unreachable")

    async def _commit(self, batch: list[Write]) -> list[Rows]:
        return await self._together([(write.statement, write.values) for write in batch])

    async def _together(self, batch: Batch, patience: int = LOCK_TIMEOUT_MS) -> list[Rows]:
        pool, connection = await self._take()
        try:
            scope = scopes.ahead() if self._secured else None
            return await connection.run_together(batch, patience=patience, scope=scope)
        except NotCommitted:
            await _roll_back(connection)
            raise
        except psycopg.Error as error:
            raise lost(error) from error
        finally:
            if not connection.closed and connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                await connection.close()
            await pool.putconn(connection)

    async def _side_by_side(self, request: SideBySide) -> list[Any]:
        try:
            work = side_by_side.steps(request.requests, (await self._meeting()).shared)
        except side_by_side.FAILURES as error:
            return side_by_side.untried(request.requests, error)
        return await run_async(work, self._tried)

    async def _tried(self, asked: Any) -> Any:
        try:
            if isinstance(asked, side_by_side.Part):
                return await self._together(asked.batch, asked.patience)
            return await self._answer(asked)
        except side_by_side.OUTCOMES as error:
            return side_by_side.outcome(asked, error)

    async def _piped(self, meeting: Meeting, request: Any) -> list[Any] | None:
        """The answers of what is met in one round trip; None where it is not, or has to go the ordinary way."""
        pipeline = meeting.pipelines.get(type(request))
        sent = None if pipeline is None else pipeline.statements(request)
        if pipeline is None or sent is None:
            return None
        try:
            answers: list[Any] = pipeline.read(request, await self._together(ready(sent)))
        except (NotCommitted, StorageUnavailable) as error:
            if not may_go_on(request, error):
                raise
            return None
        return answers

    async def _transaction(self, meeting: Meeting, request: Any) -> Any:
        pool, connection = await self._take()
        committing = limited = False
        recipe = meeting.recipes[type(request)](request)
        try:
            # Unprepared, as these are several statements at times.
            begin = pools.at_one_moment(self._begin) if isinstance(request, ASSEMBLED) else self._begin
            await connection.execute(scopes.begin(begin) if self._secured else begin, prepare=False)
            step = next(recipe)
            try:
                while True:
                    if isinstance(step, TimeLimit):
                        limited = True
                        limit = str(int(self._settings.search_timeout * 1000))
                        await connection.execute("SELECT set_config('statement_timeout', %s, true)", (limit,))
                        answer: Any = None
                    else:
                        answer = await self._step(connection, step)
                    step = recipe.send(answer)
            except StopIteration as done:
                committing = True
                await connection.execute("COMMIT")
                return done.value
        except psycopg.Error as error:
            # Before COMMIT was sent nothing can have been committed.
            raise translate(error, broken=connection.broken, write=committing, limited=limited) from error
        finally:
            recipe.close()
            if not connection.closed and connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                await _roll_back(connection)
            await pool.putconn(connection)

    @staticmethod
    async def _step(connection: psycopg.AsyncConnection[Any], step: Any) -> Any:
        if isinstance(step, Many):
            compiled = step.statement.on("postgresql")
            async with connection.cursor() as cursor:
                await cursor.executemany(compiled.sql, [compiled.bind(values) for values in step.values])
            return None
        if isinstance(step, Several):
            parts = [(one.on("postgresql"), values) for one, values in step.steps]
            async with connection.pipeline():
                sent = [await connection.execute(one.sql, one.bind(values)) for one, values in parts]
                return [one.read(await cursor.fetchall()) for (one, _), cursor in zip(parts, sent, strict=True)]
        if isinstance(step, Call):
            return await asyncio.to_thread(step.function)
        statement, values = step
        compiled = statement.on("postgresql")
        result = await connection.execute(compiled.sql, compiled.bind(values))
        return compiled.read(await result.fetchall()) if compiled.returns_rows else result.rowcount

    async def _take(self) -> tuple[pools.AsyncPool, AsyncPreparedConnection]:
        pool = self._pool or await self._opened()
        deadline, tried = time.monotonic() + self._settings.connect_timeout, False
        while True:
            left = deadline - time.monotonic()
            try:
                connection = await pool.getconn(pools.patience(pool, max(left, 0.0), tried=tried))
                if not pools.hung_up(connection):
                    return pool, connection
                await connection.close()
                await pool.putconn(connection)
            except (PoolTimeout, psycopg.Error) as error:
                tried = True
                if isinstance(error, PoolTimeout) and time.monotonic() < deadline:
                    continue
                raise StorageUnavailable(
                    f"no connection to PostgreSQL within {self._settings.connect_timeout} s"
                ) from error

    async def _opened(self) -> pools.AsyncPool:
        async with self._opening:
            if not self._open:
                raise LifecycleError("this manager is closed")
            if self._pool is None:
                pool = pools.async_pool(self._settings)
                await pool.open()
                self._pool = pool
            return self._pool


async def _roll_back(connection: AsyncPreparedConnection) -> None:
    # psycopg sends DEALLOCATE ALL behind it.
    connection.known().clear()
    try:
        await connection.execute("ROLLBACK")
    except psycopg.Error:
        with contextlib.suppress(psycopg.Error):
            await connection.close()

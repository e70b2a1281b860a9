"""The sync driver for PostgreSQL: compiled statements straight on a psycopg connection."""

import time
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg_pool import PoolTimeout

from lifecycle.drivers import postgresql_bell as bells
from lifecycle.drivers import postgresql_pool as pools
from lifecycle.drivers import postgresql_scope as scopes
from lifecycle.drivers import postgresql_side_by_side as side_by_side
from lifecycle.drivers.combining import Group, NotCommitted, Write
from lifecycle.drivers.postgresql_batch import LOCK_TIMEOUT_MS
from lifecycle.drivers.postgresql_errors import lost, may_go_on, translate
from lifecycle.drivers.postgresql_group import LANES, PATIENCE
from lifecycle.drivers.postgresql_layout import Meeting, meeting_under
from lifecycle.drivers.postgresql_prepared import Batch, Prepared, PreparedConnection, Rows, prepared, ready
from lifecycle.drivers.stepping import ATTEMPTS, Aborted, Stepper, call_sync_hook, erase_archived, is_read, run
from lifecycle.errors import StorageUnavailable
from lifecycle.news import news_of
from lifecycle.operations.requests import ASSEMBLED, CallHook, EraseArchived, Pause, SideBySide
from lifecycle.operations.typing import Steps, T
from lifecycle.recipes.citus_catalog import Layout
from lifecycle.recipes.citus_halving import joined
from lifecycle.recipes.lists import TimeLimit
from lifecycle.recipes.statement import NOT_ENOUGH, Call, Many, Several, Single
from lifecycle.settings import DatabaseSettings


class PostgresDriver(Stepper):
    """Runs operations on a pool of connections that the process's managers share."""

    dialect = "postgresql"

    def __init__(self, settings: DatabaseSettings) -> None:
        super().__init__()
        self._settings = settings
        self._secured = settings.row_security
        self._begin = pools.begin(settings)
        self._pool = pools.borrow(settings)
        self.bell = bells.borrow(settings)
        self._open = True
        # A session's writes are always in the same lane, so that two lanes never wait for each other.
        lanes = min(LANES, settings.pool_size)
        self._lanes = [Group(self._commit, self._alone, PATIENCE, _size) for _ in range(lanes)]

    def close(self) -> None:
        """Give the pool back."""
        if self._open:
            self._open = False
            bells.release(self._settings)
            pools.release(self._settings)

    def run(self, operation: Steps[T]) -> T:
        """Run one operation to its end."""
        self.check_process()
        return run(operation, self._meet)

    def _meet(self, request: Any) -> Any:
        answer = self._side_by_side(request) if isinstance(request, SideBySide) else self._answer(request)
        if self.bell is not None and (news := news_of(request)):
            self.bell.ring(news)
        return answer

    def _looked(self) -> Layout:
        """How the tables are laid out: every connection that is made has looked."""
        self._pool.putconn(self._take())
        if self._pool.layout is None:
            raise AssertionError("unreachable")
        return self._pool.layout

    def _meeting(self) -> Meeting:
        return meeting_under(self._pool.layout or self._looked(), self._settings)

    def _answer(self, request: Any) -> Any:
        if isinstance(request, CallHook):
            return call_sync_hook(request)
        if isinstance(request, Pause):
            time.sleep(request.seconds)
            return None
        if isinstance(request, EraseArchived):
            return erase_archived(request)
        meeting = self._meeting()
        single = meeting.singles.get(type(request))
        if single is not None:
            return self._single(single, request, grouped=type(request) in meeting.grouped)
        for attempt in range(ATTEMPTS):
            try:
                return self._piped(meeting, request) or self._transaction(meeting, request)
            except Aborted as error:
                if (halves := meeting.halves(request)) is not None:
                    return joined(self._answer(halves[0]), self._answer(halves[1]))
                if attempt == ATTEMPTS - 1:
                    raise StorageUnavailable(f"PostgreSQL: {error}") from error.__cause__
                time.sleep(0.005 * 2**attempt)
        raise AssertionError("unreachable")

    def _alone(self, work: tuple[Any, Prepared, list[bytes | None]]) -> Rows:
        return self._execute(*work)

    def _commit(self, writes: list[Write]) -> None:
        # In the order of the keys, as everything does that locks several sessions.
        writes = sorted(writes, key=lambda write: (write.work[0].tenant, write.work[0].session_id))
        answers = self._together([write.work[1:] for write in writes], writes)
        for write, rows in zip(writes, answers, strict=True):
            write.value, write.tried = rows, True

    def _together(self, batch: Batch, writes: Sequence[Write] = (), patience: int = LOCK_TIMEOUT_MS) -> list[Rows]:
        connection = self._take()
        try:
            for write in writes:
                write.sent = True
            return connection.run_together(batch, patience=patience, scope=scopes.ahead() if self._secured else None)
        except NotCommitted:
            _roll_back(connection)
            raise
        except psycopg.Error as error:
            raise lost(error) from error
        finally:
            if not connection.closed and connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                connection.close()
            self._pool.putconn(connection)

    def _side_by_side(self, request: SideBySide) -> list[Any]:
        try:
            work = side_by_side.steps(request.requests, self._meeting().shared)
        except side_by_side.FAILURES as error:
            return side_by_side.untried(request.requests, error)
        return run(work, self._tried)

    def _tried(self, asked: Any) -> Any:
        try:
            if isinstance(asked, side_by_side.Part):
                return self._together(asked.batch, patience=asked.patience)
            return self._answer(asked)
        except side_by_side.OUTCOMES as error:
            return side_by_side.outcome(asked, error)

    def _single(self, single: Single, request: Any, *, grouped: bool) -> Any:
        lane = self._lanes[hash(request.session_id) % len(self._lanes)] if grouped else None
        values, answer = single.bind(request), NOT_ENOUGH
        for shape in single.tries(request):
            statement = prepared(shape)
            work = request, statement, statement.values(values)
            answer = single.read(request, self._execute(*work) if lane is None else lane.run(work))
            if answer is not NOT_ENOUGH:
                break
        return answer

    def _execute(self, request: Any, statement: Prepared, values: list[bytes | None]) -> Rows:
        for last in (not is_read(request), True):
            connection = self._take()
            try:
                return (connection.run_scoped if self._secured else connection.run)(statement, values)
            except psycopg.Error as error:
                broken = connection.broken
                if broken and not last:
                    continue
                problem = translate(error, broken=broken, write=not is_read(request))
                if isinstance(problem, Aborted):
                    problem = StorageUnavailable(f"PostgreSQL: {problem}")
                raise problem from error
            finally:
                self._pool.putconn(connection)
        raise AssertionError("unreachable")

    def _piped(self, meeting: Meeting, request: Any) -> list[Any] | None:
        """The answers of what is met in one round trip; None where it is not, or has to go the ordinary way."""
        pipeline = meeting.pipelines.get(type(request))
        sent = None if pipeline is None else pipeline.statements(request)
        if pipeline is None or sent is None:
            return None
        try:
            answers: list[Any] = pipeline.read(request, self._together(ready(sent)))
        except (NotCommitted, StorageUnavailable) as error:
            if not may_go_on(request, error):
                raise
            return None
        return answers

    def _transaction(self, meeting: Meeting, request: Any) -> Any:
        connection = self._take()
        committing = limited = False
        recipe = meeting.recipes[type(request)](request)
        try:
            # Unprepared, as these are several statements at times.
            begin = pools.at_one_moment(self._begin) if isinstance(request, ASSEMBLED) else self._begin
            connection.execute(scopes.begin(begin) if self._secured else begin, prepare=False)
            step = next(recipe)
            try:
                while True:
                    if isinstance(step, TimeLimit):
                        limited = True
                        limit = str(int(self._settings.search_timeout * 1000))
                        connection.execute("SELECT set_config('statement_timeout', %s, true)", (limit,))
                        answer: Any = None
                    else:
                        answer = self._step(connection, step)
                    step = recipe.send(answer)
            except StopIteration as done:
                committing = True
                connection.execute("COMMIT")
                return done.value
        except psycopg.Error as error:
            # Before COMMIT was sent nothing can have been committed.
            raise translate(error, broken=connection.broken, write=committing, limited=limited) from error
        finally:
            recipe.close()
            if not connection.closed and connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                _roll_back(connection)
            self._pool.putconn(connection)

    @staticmethod
    def _step(connection: psycopg.Connection[Any], step: Any) -> Any:
        if isinstance(step, Many):
            compiled = step.statement.on("postgresql")
            with connection.cursor() as cursor:
                cursor.executemany(compiled.sql, [compiled.bind(values) for values in step.values])
            return None
        if isinstance(step, Several):
            parts = [(one.on("postgresql"), values) for one, values in step.steps]
            with connection.pipeline():
                cursors = [connection.execute(one.sql, one.bind(values)) for one, values in parts]
                return [one.read(cursor.fetchall()) for (one, _), cursor in zip(parts, cursors, strict=True)]
        if isinstance(step, Call):
            return step.function()
        statement, values = step
        compiled = statement.on("postgresql")
        cursor = connection.execute(compiled.sql, compiled.bind(values))
        return compiled.read(cursor.fetchall()) if compiled.returns_rows else cursor.rowcount

    def _take(self) -> PreparedConnection:
        deadline, tried = time.monotonic() + self._settings.connect_timeout, False
        while True:
            left = deadline - time.monotonic()
            try:
                connection = self._pool.getconn(pools.patience(self._pool, max(left, 0.0), tried=tried))
                if not pools.hung_up(connection):
                    return connection
                connection.close()
                self._pool.putconn(connection)
            except (PoolTimeout, psycopg.Error) as error:
                tried = True
                if isinstance(error, PoolTimeout) and time.monotonic() < deadline:
                    continue
                raise StorageUnavailable(
                    f"no connection to PostgreSQL within {self._settings.connect_timeout} s"
                ) from error


def _size(work: tuple[Any, Prepared, list[bytes | None]]) -> int:
    return sum(len(value) for value in work[2] if value is not None)


def _roll_back(connection: PreparedConnection) -> None:
    # psycopg sends DEALLOCATE ALL behind it.
    connection.known().clear()
    try:
        connection.execute("ROLLBACK")
    except psycopg.Error:
        connection.close()

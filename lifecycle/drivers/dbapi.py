"""What the drivers for SQLite and MariaDB share: compiled statements on DB-API connections."""

import abc
import contextlib
import time
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from lifecycle.drivers.combining import NotCommitted, Write
from lifecycle.drivers.stepping import ATTEMPTS, Aborted, Stepper, call_sync_hook, erase_archived, is_read, run
from lifecycle.errors import StorageUnavailable
from lifecycle.operations.requests import CallHook, EraseArchived, Pause, SideBySide
from lifecycle.operations.typing import Steps, T
from lifecycle.recipes import book
from lifecycle.recipes.lists import TimeLimit
from lifecycle.recipes.portable.base import Recipe
from lifecycle.recipes.statement import Call, Many
from lifecycle.settings import DatabaseSettings

UPGRADE = "the database has no tables of this release: run `lifecycle db upgrade` (or call manager.setup())"


class DbapiDriver(Stepper, abc.ABC):
    """Runs each request in a transaction of its own; what differs between the two databases is in the subclasses."""

    dialect: str
    failures: tuple[type[Exception], ...]

    def __init__(self, settings: DatabaseSettings, engine: sa.Engine) -> None:
        super().__init__()
        self._settings = settings
        self.engine = engine

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()

    def meet(self, request: Any) -> Any:
        """The answer to one request."""
        return self._meet(request)

    def run(self, operation: Steps[T]) -> T:
        """Run one operation to its end."""
        self.check_process()
        return run(operation, self._meet)

    def _meet(self, request: Any) -> Any:
        if isinstance(request, CallHook):
            return self.call_hook(request)
        if isinstance(request, Pause):
            time.sleep(request.seconds)
            return None
        if isinstance(request, EraseArchived):
            return erase_archived(request)
        if isinstance(request, SideBySide):
            return self._side_by_side(request.requests)
        for attempt in range(ATTEMPTS):
            try:
                return self._transaction(request)
            except Aborted as error:
                if attempt == ATTEMPTS - 1:
                    raise StorageUnavailable(str(error)) from error.__cause__
                time.sleep(0.005 * 2**attempt)
        raise AssertionError("unreachable")

    def _side_by_side(self, requests: Sequence[Any]) -> list[Any]:
        places = sorted(range(len(requests)), key=lambda i: (requests[i].tenant, requests[i].session_id))
        answers: list[Any] = [None] * len(requests)
        for place, write in zip(places, self.meet_together([requests[i] for i in places]), strict=True):
            answers[place] = write.value if write.error is None else write.error
        return answers

    def meet_together(self, requests: list[Any]) -> list[Write]:
        """What came of each write; those that succeeded are committed."""
        writes = [Write(request) for request in requests]
        if len(writes) > 1:
            try:
                self._commit_together(writes)
            except NotCommitted:
                writes = [Write(request) for request in requests]
            except Exception as error:  # noqa: BLE001 -- it is raised where each caller waits
                for write in writes:
                    write.fail(error)
        for write in writes:
            if not write.tried:
                try:
                    write.value = DbapiDriver._meet(self, write.work)
                except Exception as error:  # noqa: BLE001 -- it is raised where its caller waits
                    write.error = error
        return writes

    def _commit_together(self, writes: list[Write]) -> None:
        """Carry out writes in one transaction, each in a savepoint, so that its failure is its own."""
        first = next((write.work for write in writes if not is_read(write.work)), writes[0].work)
        with self._connection(first) as connection:
            cursor = connection.cursor()
            committing = False
            try:
                try:
                    self._begin(cursor, first)
                except self.failures as error:
                    raise self._own(error) from error  # nobody of them can write, and has not
                for write in writes:
                    self._carry_out_one(connection, cursor, write)
                committing = True
                self._commit(cursor)
            except BaseException as error:
                # Python calls the handler of a signal as soon as the log is synced.
                if committing and not isinstance(error, Exception) and self._is_over(connection):
                    _tried(writes)
                self._roll_back(connection, cursor)
                if isinstance(error, self.failures):
                    raise self._undone(error, committing=committing) from error
                raise
            else:
                _tried(writes)
            finally:
                with contextlib.suppress(*self.failures):
                    cursor.close()

    def _carry_out_one(self, connection: Any, cursor: Any, write: Write) -> None:
        cursor.execute("SAVEPOINT one")
        try:
            write.value = self._carry_out(cursor, write.work)
        except Exception as error:
            problem = self._own(error)
            if self._is_over(connection) or isinstance(problem, Aborted):
                raise  # the disk is full, say: the database rolled back the whole
            cursor.execute("ROLLBACK TO one")
            write.error = problem
        self._release(cursor)

    def _undone(self, error: Exception, *, committing: bool) -> Exception:
        """What to raise for the failure of a transaction: that nothing of it was committed, unless that is not known."""
        problem = self._translate(error, committing=committing, limited=False)
        known = not (isinstance(problem, StorageUnavailable) and problem.outcome_unknown)
        return NotCommitted() if known else problem

    def _own(self, error: Exception) -> Exception:
        if not isinstance(error, self.failures):
            return error
        problem = self._translate(error, committing=False, limited=False)
        problem.__cause__ = error
        return problem

    def call_hook(self, request: CallHook) -> Any:
        """Call a user's function."""
        return call_sync_hook(request)

    def _transaction(self, request: Any) -> Any:
        recipe = self._recipe(request)
        committing = limited = False
        with self._connection(request) as connection:
            cursor = connection.cursor()
            try:
                self._begin(cursor, request)
                step = next(recipe)
                try:
                    while True:
                        if isinstance(step, TimeLimit):
                            limited = True
                            self._limit(connection, cursor)
                            answer: Any = None
                        else:
                            answer = self._step(cursor, step)
                        step = recipe.send(answer)
                except StopIteration as done:
                    committing = True
                    self._commit(cursor)
                    committing = False
                    return done.value
            except BaseException as error:
                self._roll_back(connection, cursor)
                if isinstance(error, self.failures):
                    raise self._translate(error, committing=committing, limited=limited) from error
                raise
            finally:
                recipe.close()
                if limited:
                    self._unlimit(connection, cursor)
                with contextlib.suppress(*self.failures):
                    cursor.close()

    def _carry_out(self, cursor: Any, request: Any) -> Any:
        """What a request is answered, within the transaction of the caller."""
        recipe = self._recipe(request)
        try:
            step = next(recipe)
            while True:
                step = recipe.send(self._step(cursor, step))
        except StopIteration as done:
            return done.value
        finally:
            recipe.close()

    def _recipe(self, request: Any) -> Recipe:
        return book.RECIPES[self.dialect][type(request)](request)

    def _step(self, cursor: Any, step: Any) -> Any:
        if isinstance(step, Many):
            compiled = step.statement.on(self.dialect)
            cursor.executemany(compiled.sql, [compiled.bind(values) for values in step.values])
            return None
        if isinstance(step, Call):
            return step.function()
        statement, values = step
        compiled = statement.on(self.dialect)
        cursor.execute(compiled.sql, compiled.bind(values))
        return compiled.read(cursor.fetchall()) if compiled.returns_rows else cursor.rowcount

    def _commit(self, cursor: Any) -> None:
        cursor.execute("COMMIT")

    def _release(self, cursor: Any) -> None:
        """Let go of the savepoint `one`, where the next of this name does not take its place."""

    @abc.abstractmethod
    def _is_over(self, connection: Any) -> bool:
        """Whether a connection has no transaction any more."""

    @abc.abstractmethod
    def _connection(self, request: Any) -> contextlib.AbstractContextManager[Any]: ...

    @abc.abstractmethod
    def _begin(self, cursor: Any, request: Any) -> None: ...

    @abc.abstractmethod
    def _limit(self, connection: Any, cursor: Any) -> None: ...

    @abc.abstractmethod
    def _unlimit(self, connection: Any, cursor: Any) -> None: ...

    @abc.abstractmethod
    def _roll_back(self, connection: Any, cursor: Any) -> None: ...

    @abc.abstractmethod
    def _translate(self, error: Exception, *, committing: bool, limited: bool) -> Exception: ...


def _tried(writes: list[Write]) -> None:
    for write in writes:
        write.tried = True

"""From psycopg's errors to ours."""

import psycopg
from psycopg import errors

from lifecycle.drivers.combining import NotCommitted
from lifecycle.drivers.stepping import Aborted, is_read
from lifecycle.errors import SchemaOutdated, SearchTimeout, StorageUnavailable
from lifecycle.operations.requests import DuplicateKey, Request

UPGRADE = "the database has no tables of this release: run `lifecycle db upgrade` (or call manager.setup())"


def translate(error: psycopg.Error, *, broken: bool, write: bool, limited: bool = False) -> Exception:
    """The error to raise for the driver's; `write` says that a lost connection leaves the outcome unknown."""
    if isinstance(error, errors.UniqueViolation):
        return DuplicateKey(str(error))
    if isinstance(error, (errors.DeadlockDetected, errors.SerializationFailure)):
        return Aborted(str(error))
    if isinstance(error, (errors.UndefinedTable, errors.UndefinedColumn)):
        return SchemaOutdated(UPGRADE)
    if isinstance(error, errors.QueryCanceled):
        if limited:
            return SearchTimeout("the search took longer than database.search_timeout: narrow the filters")
        return StorageUnavailable("the statement took longer than database.statement_timeout")
    first = str(error).strip().splitlines()
    return StorageUnavailable(
        f"PostgreSQL: {first[0] if first else type(error).__name__}", outcome_unknown=broken and write
    )


def forgotten(error: Exception) -> bool:
    """Whether a prepared statement did not run as it is no longer what it was.

    Somebody dropped it (a pooler's DISCARD ALL, psycopg's own DEALLOCATE ALL after a ROLLBACK), or a migration changed
    what it returns.
    """
    return isinstance(error, errors.InvalidSqlStatementName) or "cached plan must not change" in str(error)


def lost(error: psycopg.Error) -> StorageUnavailable:
    """The error to raise for each write of a batch whose connection was lost, whatever the last that it said."""
    first = str(error).strip().splitlines()
    return StorageUnavailable(f"PostgreSQL: {first[0] if first else type(error).__name__}", outcome_unknown=True)


def may_go_on(request: Request, error: NotCommitted | StorageUnavailable) -> bool:
    """Whether what failed as a batch can be met by itself: nothing was committed, or nothing was to be."""
    return isinstance(error, NotCommitted) or (error.outcome_unknown and is_read(request))

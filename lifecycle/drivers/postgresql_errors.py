"""From psycopg's errors to ours."""

import psycopg
from psycopg import errors

from lifecycle.drivers.stepping import Aborted
from lifecycle.errors import SchemaOutdated, SearchTimeout, StorageUnavailable
from lifecycle.operations.requests import DuplicateKey

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


def lost(error: psycopg.Error) -> StorageUnavailable:
    """The error to raise for each write of a batch whose connection was lost, whatever the last that it said."""
    first = str(error).strip().splitlines()
    return StorageUnavailable(f"PostgreSQL: {first[0] if first else type(error).__name__}", outcome_unknown=True)

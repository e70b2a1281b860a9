"""What each error is to a shell and to HTTP: one table, looked up along an error's bases."""

from lifecycle import errors as e

# Error: (exit code, HTTP status). 64 and above are sysexits.h's meanings.
FAULTS: dict[type[e.LifecycleError], tuple[int, int]] = {
    e.LifecycleError: (70, 500),
    e.InvalidArgument: (2, 422),
    e.LimitExceeded: (2, 413),
    e.InvalidFile: (65, 422),
    e.ConfigError: (78, 500),
    e.NotFound: (4, 404),
    e.Conflict: (5, 409),
    e.SessionBusy: (6, 423),
    e.LeaseLost: (7, 409),
    e.VersionConflict: (8, 412),
    e.SessionProtected: (9, 403),
    e.SearchTimeout: (10, 504),
    e.SchemaOutdated: (11, 503),
    e.FileUnavailable: (74, 503),
    e.StorageUnavailable: (75, 503),
}


def exit_code(error: type[e.LifecycleError]) -> int:
    """The exit code of a command that ends with the error."""
    return _found(error)[0]


def http_status(error: type[e.LifecycleError]) -> int:
    """The status of a response that reports the error."""
    return _found(error)[1]


def _found(error: type[e.LifecycleError]) -> tuple[int, int]:
    return next(FAULTS[base] for base in error.__mro__ if base in FAULTS)

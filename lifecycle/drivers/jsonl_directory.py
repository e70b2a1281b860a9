"""What a directory is, as seen without taking it: a store of ours, nothing yet, or somebody else's."""

from pathlib import Path
from typing import Final

from lifecycle.drivers import journal
from lifecycle.drivers.directory_lock import LOCK
from lifecycle.drivers.journal_format import Header, read_header
from lifecycle.errors import StorageUnavailable

_NAMED: Final = 3


def is_store(directory: Path) -> bool:
    """Whether a directory holds a journal of ours; False for one that is empty or not there.

    Raises StorageUnavailable for a directory that holds something else, which is left alone, and where none can be.
    """
    try:
        names = {entry.name for entry in directory.iterdir()}
    except FileNotFoundError:
        if not directory.parent.is_dir():
            raise StorageUnavailable(
                f"there is no directory {directory.parent} for the store {directory.name}; create it first"
            ) from None
        return False
    except NotADirectoryError as error:
        raise StorageUnavailable(f"{directory} is a file; name a directory, as in jsonl:///sessions") from error
    except OSError as error:
        raise StorageUnavailable(f"the store {directory} cannot be read: {error.strerror}") from error
    if journal.JOURNAL in names:
        _header(directory)
        return True
    others = sorted(names - {LOCK, journal.FRESH})
    if others:
        some = ", ".join([*others[:_NAMED], *(["..."] if others[_NAMED:] else [])])
        raise StorageUnavailable(
            f"{directory} is no store: it has no {journal.JOURNAL}, but other files ({some}); name an empty directory or"
            " one that does not exist"
        )
    return False


def revision_of(directory: Path) -> str | None:
    """The revision of a store's schema, None where there is no store, without taking the directory."""
    if not is_store(directory):
        return None
    return _header(directory).revision


def _header(directory: Path) -> Header:
    path = directory / journal.JOURNAL
    try:
        with path.open("rb") as file:
            return read_header(file, path)
    except OSError as error:
        raise StorageUnavailable(f"the store {directory} cannot be read: {error.strerror}") from error

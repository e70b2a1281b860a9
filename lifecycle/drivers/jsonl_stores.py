"""The stores of this process: all managers of a directory share one, as the directory is one process's."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from lifecycle.drivers.jsonl_directory import revision_of
from lifecycle.drivers.jsonl_store import Store

__all__ = ["borrow", "borrowed", "release", "revision_of"]

_stores: dict[Path, Store] = {}
_guard = threading.Lock()


def borrow(directory: Path) -> Store:
    """The store of a directory (absolute), open if it holds one; give it back with `release`. Raises StorageUnavailable."""
    with _guard:
        store = _stores.get(directory)
        if store is None:
            store = _stores[directory] = Store(directory)
        store.users += 1
    try:
        store.open()
    except BaseException:
        release(store)
        raise
    return store


def release(store: Store) -> None:
    """Give a store back; the last one to do so closes it."""
    with _guard:
        store.users -= 1
        if store.users or _stores.get(store.directory) is not store:
            return
        del _stores[store.directory]
        store.close()


@contextlib.contextmanager
def borrowed(directory: Path) -> Iterator[Store]:
    """A store for the length of a block."""
    store = borrow(directory)
    try:
        yield store
    finally:
        release(store)


def _leave_to_parent() -> None:
    """In a forked child: the stores are the parent's, and its locks may have been held just then."""
    global _guard  # noqa: PLW0603 - a lock that another thread held cannot be let go here
    _guard = threading.Lock()
    for store in _stores.values():
        store.abandon()
    _stores.clear()


os.register_at_fork(after_in_child=_leave_to_parent)

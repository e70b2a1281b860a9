"""One process at a time has a directory: a lock that the kernel lets go of with the process, whatever ends it."""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Final

from lifecycle.errors import StorageUnavailable

LOCK: Final = "lock"


class DirectoryLock:
    """The lock on a directory, held from `take` until `release` or the end of the process."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor: int | None = None

    def take(self) -> None:
        """Take the lock and leave this process's id in its file. Raises StorageUnavailable with the holder's."""
        path = self._directory / LOCK
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StorageUnavailable(
                f"the store {self._directory} cannot be locked: {path}: {error.strerror}"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            who = f"process {holder}" if holder else "another process"
            raise StorageUnavailable(
                f"the store {self._directory} is in use by {who}, and a directory of JSONL files serves one process at"
                " a time: end that one first, or move to a database, which any number may use"
            ) from error
        except OSError as error:
            os.close(descriptor)
            raise StorageUnavailable(
                f"the store {self._directory} cannot be locked: {path}: {error.strerror}"
            ) from error
        self._descriptor = descriptor

    def release(self) -> None:
        """Let go. The file stays: to remove it while another process waits to open it would give two the lock."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def abandon(self) -> None:
        """Close a forked child's copy, which would keep the lock when the parent is gone; the parent keeps its own."""
        with contextlib.suppress(OSError):
            self.release()

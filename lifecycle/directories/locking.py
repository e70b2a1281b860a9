"""The lock under which a `sessions.json` is changed.

Two files: our own, which the kernel releases when its holder dies, and `sessions.json.lock`, which the agents' own
writers create (`{"pid": ..., "startedAt": ...}`) and which is theirs to respect. Theirs is taken second, so that of our
processes only one at a time waits for it; one whose process is gone is removed.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from lifecycle.errors import Conflict

_TURN_SECONDS: Final = 0.02
# What file systems without hard links say.
_NO_LINKS: Final = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
# The agents themselves take a lock that is older than half a minute for abandoned.
_STALE_SECONDS: Final = 60.0
# A pid that is nobody's here may be somebody's in another container: such a lock is given so long to be gone by itself.
_FOREIGN_SECONDS: Final = 10.0


@contextlib.contextmanager
def locked(index: Path, timeout: float) -> Iterator[None]:
    """Hold the lock of an index. Raises `Conflict` after `timeout` seconds."""
    end = time.monotonic() + timeout
    with _own(_own_file(index), end), _shared(_shared_file(index), end):
        yield


def clear_abandoned(index: Path, timeout: float) -> None:
    """Remove the agents' lock where its holder is dead: one of ours may have been killed with nothing left to do."""
    if _shared_file(index).exists():
        with _own(_own_file(index), time.monotonic() + timeout):
            _remove_abandoned(_shared_file(index))


def _own_file(index: Path) -> Path:
    return index.with_name(f".{index.name}.lifecycle-lock")


def _shared_file(index: Path) -> Path:
    return index.with_name(f"{index.name}.lock")


@contextlib.contextmanager
def _own(path: Path, end: float) -> Iterator[None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                _wait(path, end)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def _shared(path: Path, end: float) -> Iterator[None]:
    # Linked into its place with its content: whoever finds it, also after a kill, finds whose it is.
    ready = path.with_name(f".{path.name}.lifecycle-new")
    # One that a kill left may be the very file that is in place: written over, a dead process's lock would be ours.
    ready.unlink(missing_ok=True)
    mine = {"pid": os.getpid(), "startedAt": int(time.time() * 1000), "host": socket.gethostname()}
    ready.write_text(json.dumps(mine), encoding="utf-8")
    try:
        while not _placed(ready, path):
            if not _remove_abandoned(path):
                _wait(path, end)
    finally:
        ready.unlink(missing_ok=True)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _placed(ready: Path, path: Path) -> bool:
    try:
        path.hardlink_to(ready)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(ready.read_text(encoding="utf-8"))
        except FileExistsError:
            return False
    return True


def _remove_abandoned(path: Path) -> bool:
    """Remove a lock whose process is gone; whether it may be tried again at once."""
    try:
        status, text = path.stat(), path.read_bytes()
    except FileNotFoundError:
        return True
    try:
        holder: Any = json.loads(text)
    except ValueError:
        holder = None
    abandoned = _is_abandoned(holder, time.time() - status.st_mtime)
    # Somebody else may have come to the same conclusion, and taken it.
    if abandoned and path.exists() and path.stat().st_ino == status.st_ino:
        path.unlink(missing_ok=True)
    return abandoned


def _is_abandoned(holder: Any, age: float) -> bool:
    pid, host = (holder.get("pid"), holder.get("host")) if isinstance(holder, dict) else (None, None)
    if not isinstance(pid, int) or pid <= 0 or host not in {None, socket.gethostname()}:
        return age > _STALE_SECONDS
    return not _alive(pid) and (host is not None or age > _FOREIGN_SECONDS)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _wait(path: Path, end: float) -> None:
    if time.monotonic() >= end:
        raise Conflict(f"{path} is held by another process; try again, or raise directories.lock_timeout")
    time.sleep(_TURN_SECONDS)

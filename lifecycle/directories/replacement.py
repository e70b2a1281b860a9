"""Replacing a file that another process may replace at the same moment, without losing what it wrote.

The new content is exchanged with the file in one step (`renameat2` with RENAME_EXCHANGE), so what was there comes out
and can be looked at: if it is not the version that the new content was made from, it goes back in and the caller
starts over. Where the system or the file system has no such step, the file's facts are compared right before a plain
rename, and a version that lands between these two calls is lost.
"""

import contextlib
import ctypes
import errno
import os
from functools import cache
from pathlib import Path
from typing import Any, Final

from lifecycle.directories.layout import Facts, facts_of

_AT_FDCWD: Final = -100
_EXCHANGE: Final = 2
_UNSUPPORTED: Final = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)
SUFFIX: Final = ".lifecycle-tmp"
_TURNS: Final = 100


def replace(path: Path, content: bytes, seen: Facts) -> bool:
    """Put content in the place of the version of a file that was seen; False if it is no longer that one.

    Durable when it returns: file and directory are synced. Mode and, as far as allowed, owner stay.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{SUFFIX}")
    try:
        ours = _write(temporary, content, path)
        if ours is None or _facts(path) != seen:
            return False
        if not _swap(temporary, path, seen, ours):
            return False
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)
    return True


def sync_directory(path: Path) -> None:
    """Make renames in a directory durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def clear_leftovers(path: Path) -> None:
    """Remove what a process that was killed left of its replacements; to be called under the lock."""
    for left in path.parent.glob(f".{path.name}.*{SUFFIX}"):
        left.unlink(missing_ok=True)


def _write(temporary: Path, content: bytes, like: Path) -> Facts | None:
    try:
        status = like.stat()
    except FileNotFoundError:
        return None
    with temporary.open("wb") as file:
        os.fchmod(file.fileno(), status.st_mode & 0o7777)
        with contextlib.suppress(PermissionError):
            os.fchown(file.fileno(), status.st_uid, status.st_gid)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        return facts_of(os.fstat(file.fileno()))


def _swap(temporary: Path, path: Path, seen: Facts, ours: Facts) -> bool:
    if not exchange(temporary, path):
        temporary.replace(path)
        return True
    placed: Facts | None = ours
    out = _facts(temporary)
    if out == seen:
        return True
    for _ in range(_TURNS):
        # A version nobody has seen came out: it goes back in, and ours has to come out again. If something else does,
        # it was written in between, is newer still, and goes in instead.
        if not exchange(temporary, path):
            break
        came = _facts(temporary)
        if came == placed:
            break
        placed, out = out, came
    return False


def exchange(one: Path, other: Path) -> bool:
    """Exchange two files in one step; False where that is not to be had."""
    call = _renameat2()
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(other))


@cache
def _renameat2() -> Any:
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    call.restype = ctypes.c_int
    return call


def _facts(path: Path) -> Facts | None:
    try:
        return facts_of(path.stat())
    except FileNotFoundError:
        return None

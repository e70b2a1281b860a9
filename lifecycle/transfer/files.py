"""Files of lines: plain, `.gz` or `.zst`; a new one gets its name when all of it is on the disk."""

import contextlib
import gzip
import io
import os
import secrets
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final

from lifecycle.errors import FileUnavailable, InvalidArgument, InvalidFile
from lifecycle.transfer.compression import Compression, compression_of, found_in, packer, zstandard

STDIO: Final = "-"
_BUFFER: Final = 1 << 18


class NewFile:
    """A file being written under a name of its own; `commit` gives it the one it is to have.

    What already has that name is replaced, and leaves it its mode; a new one is for its owner alone. Raises
    `FileUnavailable`.
    """

    def __init__(self, path: Path, compression: Compression) -> None:
        self.path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        with file_errors(path, "write"):
            descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._raw = os.fdopen(descriptor, "wb", buffering=_BUFFER)
            with contextlib.suppress(FileNotFoundError):
                os.fchmod(descriptor, stat.S_IMODE(path.stat().st_mode))
        self._packer = packer(self._raw, compression)
        self._named = False

    def write(self, data: bytes) -> None:
        """Add to it."""
        with file_errors(self.path, "write"):
            self._packer.write(data)

    def flush(self) -> None:
        """Have what was written so far readable even if all that follows is lost."""
        with file_errors(self.path, "write"):
            self._packer.flush()

    def commit(self) -> int:
        """Put it on the disk, name it, and put that on the disk too: its size in bytes."""
        with file_errors(self.path, "write"):
            self._packer.close()
            self._raw.flush()
            sync(self._raw.fileno())
            size = os.fstat(self._raw.fileno()).st_size
            self._raw.close()
            self._temporary.replace(self.path)
            self._named = True
            sync_directory(self.path.parent)
        return size

    def discard(self) -> None:
        """Remove it, unless it has its name: then it is whole, and what had the name before is gone."""
        with contextlib.suppress(OSError):
            self._raw.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink()

    def take_back(self) -> None:
        """Remove it, named or not yet."""
        self.discard()
        if self._named:
            with contextlib.suppress(OSError):
                self.path.unlink()


class Pipe:
    """Standard output in the form of a new file; it cannot be taken back."""

    def __init__(self) -> None:
        self._size = 0

    def write(self, data: bytes) -> None:
        """Add to it."""
        sys.stdout.buffer.write(data)
        self._size += len(data)

    def flush(self) -> None:
        """Hand it over."""
        sys.stdout.buffer.flush()

    def commit(self) -> int:
        """Hand all of it over: its size in bytes."""
        self.flush()
        return self._size

    def discard(self) -> None:
        """What was handed over stays."""


def new_file(target: str, *, overwrite: bool) -> NewFile | Pipe:
    """The file to write, or standard output for `-`. Raises `InvalidArgument` for one that exists, unless told so."""
    if target == STDIO:
        return Pipe()
    path = Path(target)
    if not overwrite and (path.exists() or path.is_symlink()):
        raise InvalidArgument(f"{target} exists already; pass --overwrite to replace it, or name another file")
    return NewFile(path, compression_of(path))


@contextlib.contextmanager
def reading(source: str) -> Iterator[tuple[Any, IO[bytes]]]:
    """A file's content, unpacked, and the file itself, whose position tells how far it is read; `-` is standard input.

    How it is compressed is found by its first bytes. Raises `FileUnavailable`, `InvalidFile`.
    """
    with contextlib.ExitStack() as stack:
        if source == STDIO:
            raw: Any = sys.stdin.buffer
        else:
            with file_errors(Path(source), "read"):
                raw = stack.enter_context(Path(source).open("rb", buffering=_BUFFER))
        with file_errors(Path(source), "read"):
            start = raw.peek(4)[:4]
        kind = found_in(start)
        if kind == "gzip":
            yield gzip.GzipFile(fileobj=raw, mode="rb"), raw
        elif kind == "zstd":
            unpacked = zstandard().ZstdDecompressor().stream_reader(raw, read_across_frames=True, closefd=False)
            yield io.BufferedReader(unpacked, _BUFFER), raw
        else:
            yield raw, raw


def read_line(stream: IO[bytes], limit: int, source: str, number: int) -> bytes:
    """The next line, empty at the end, which a file that was cut off within a packed part has early.

    Raises `InvalidFile` for one that is longer than `limit` bytes, or cannot be unpacked.
    """
    line = _read(stream.readline, limit, source, number)
    if len(line) == limit and not line.endswith(b"\n"):
        raise InvalidFile(source, f"is longer than {limit:,} bytes; this is no export", line=number)
    return line


def is_at_end(stream: IO[bytes], source: str, number: int) -> bool:
    """Whether nothing is left to read. Raises `InvalidFile`."""
    return not _read(stream.read, 1, source, number)


def _read(read: Callable[[int], bytes], size: int, source: str, number: int) -> bytes:
    try:
        return read(size)
    except EOFError:
        return b""
    except Exception as error:
        if isinstance(error, (zlib.error, gzip.BadGzipFile)) or type(error).__name__ == "ZstdError":
            raise InvalidFile(source, f"cannot be unpacked: {error}", line=number) from error
        with file_errors(Path(source), "read"):
            raise


@contextlib.contextmanager
def file_errors(path: Path, what: str) -> Iterator[None]:
    """Turn the operating system's errors into FileUnavailable."""
    try:
        yield
    except OSError as error:
        name = "standard input" if str(path) == STDIO else str(path)
        raise FileUnavailable(f"cannot {what} {name}: {error.strerror or error}") from error


def sync(descriptor: int) -> None:
    """Put a file on the disk."""
    os.fsync(descriptor)


def sync_directory(directory: Path) -> None:
    """Put the names in a directory on the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)

"""How files of lines are packed, by the end of their names."""

import gzip
from pathlib import Path
from typing import IO, Any, Final, Literal

from lifecycle.errors import InvalidArgument

Compression = Literal["none", "gzip", "zstd"]

SUFFIXES: Final[dict[Compression, str]] = {"none": "", "gzip": ".gz", "zstd": ".zst"}
INSTALL: Final = "zstd needs the library zstandard: pip install 'session-lifecycle[zstd]'"
_MAGIC: Final[dict[bytes, Compression]] = {b"\x28\xb5\x2f\xfd": "zstd", b"\x1f\x8b": "gzip"}
_ZSTD_LEVEL: Final = 3
_GZIP_LEVEL: Final = 6


def compression_of(path: Path) -> Compression:
    """What a file's name says of how it is packed."""
    return next((kind for kind, suffix in SUFFIXES.items() if suffix and path.name.endswith(suffix)), "none")


def found_in(start: bytes) -> Compression:
    """How a file is packed that starts so."""
    return next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), "none")


def packer(raw: IO[bytes], compression: Compression) -> Any:
    """What packs into `raw`: it has `write`, `flush` up to where a reader gets everything so far, and `close`."""
    if compression == "gzip":
        return gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=_GZIP_LEVEL, mtime=0)
    if compression == "zstd":
        packing = zstandard().ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True)
        return packing.stream_writer(raw, closefd=False)
    return _Plain(raw)


class _Plain:
    """No packing, in the form of one."""

    def __init__(self, raw: IO[bytes]) -> None:
        self.write = raw.write
        self.flush = raw.flush

    def close(self) -> None:
        """Nothing is to be ended."""


def zstandard() -> Any:
    """The library. Raises `InvalidArgument`, which says how to install it."""
    try:
        import zstandard as library
    except ModuleNotFoundError as error:
        raise InvalidArgument(INSTALL) from error
    return library

"""Where sessions are kept that are removed."""

import importlib.util
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, field_validator

from lifecycle.settings.section import Section
from lifecycle.settings.values import lower
from lifecycle.transfer.compression import INSTALL, Compression


class ArchiveSettings(Section):
    """Where sessions are written before they are removed."""

    directory: str | None = None
    """A directory that all who remove sessions can write to; None removes them for good."""
    compression: Annotated[Compression, BeforeValidator(lower)] = "none"
    """none, gzip or zstd."""

    @field_validator("directory")
    @classmethod
    def _named(cls, directory: str | None) -> str | None:
        if directory is not None and (not directory.strip() or "\x00" in directory):
            raise ValueError("must be the path of a directory, or null for none")
        if directory is not None and Path(directory).is_file():
            raise ValueError(f"must be a directory; {directory!r} is a file")
        return directory

    @field_validator("compression")
    @classmethod
    def _installed(cls, compression: Compression) -> Compression:
        if compression == "zstd" and importlib.util.find_spec("zstandard") is None:
            raise ValueError(INSTALL)
        return compression

"""Session directories: where agents keep sessions in files, and how long what they leave behind is kept."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, field_validator

from lifecycle.settings.section import Section
from lifecycle.settings.values import Seconds, SecondsOrNever, no_bool

_UNITS: Final = {
    "": 1,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "KI": 2**10,
    "MI": 2**20,
    "GI": 2**30,
    "TI": 2**40,
}
_WRITTEN: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,3})?)\s*([KMGT]I?)?B?", re.IGNORECASE)


def parse_size(value: Any) -> int:
    """A size in bytes: a whole number, or text such as 500MB, 5GB (10^9) or 2GiB (2^30). Raises ValueError."""
    no_bool(value)
    match = _WRITTEN.fullmatch(str(value).strip()) if isinstance(value, int | str) else None
    size = int(float(match[1]) * _UNITS[(match[2] or "").upper()]) if match else 0
    if size < 1:
        raise ValueError(f"must be a size such as 500MB, 5GB or 2GiB, or a whole number of bytes; not {value!r}")
    return size


def _size_or_none(value: Any) -> int | None:
    return None if value is None else parse_size(value)


class DirectoryRoot(Section):
    """One root; written as a scalar, it is the path."""

    path: Annotated[str, Field(min_length=1)]
    """The directory that holds `agents/<agentId>/sessions/`; `~` is the home directory."""
    tenant: Annotated[str, Field(max_length=255)] = ""
    """Whose sessions they are in the database."""

    @classmethod
    def from_scalar(cls, value: Any) -> Mapping[str, Any]:
        """A text is the path."""
        if not isinstance(value, str):
            raise ValueError(f"must be a path, or a mapping with path and tenant; not {value!r}")  # noqa: TRY004 -- pydantic reads ValueError
        return {"path": value}


def _list(value: Any) -> Any:
    return () if value is None else value


class DirectoriesSettings(Section):
    """Directories in which agents keep their sessions; `docs/directories.md` describes them."""

    roots: Annotated[tuple[DirectoryRoot, ...], BeforeValidator(_list)] = ()
    """What `lifecycle directory` and the worker's job `sync_directories` work on."""
    protected: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_list)] = ()
    """Session ids, or keys with * for any text, that are never removed from disk."""
    orphan_age: Seconds = 3_600
    """Seconds without a change until a transcript without a key is taken for an orphan that may go."""
    archive_retention: SecondsOrNever = 2_592_000
    """Seconds an archived transcript (.deleted. and .reset.) is kept."""
    disk_budget: Annotated[int | None, BeforeValidator(_size_or_none)] = None
    """Bytes one root may take before its oldest archives go, however young."""
    lock_timeout: Seconds = 30
    """Seconds to wait for the lock of a `sessions.json`."""

    @field_validator("roots")
    @classmethod
    def _each_once(cls, roots: tuple[DirectoryRoot, ...]) -> tuple[DirectoryRoot, ...]:
        paths = [Path(root.path).expanduser().absolute() for root in roots]
        twice = [str(path) for i, path in enumerate(paths) if path in paths[:i]]
        if twice:
            raise ValueError(f"must name each directory once; {twice[0]} is there twice")
        return roots

"""What the options before the command settle: configuration, tenant, and the form of the output."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lifecycle.errors import ConfigError, InvalidArgument, SchemaOutdated, StorageUnavailable

if TYPE_CHECKING:
    from lifecycle.manager.blocking import SessionManager
    from lifecycle.settings import Settings


@dataclass
class Scope:
    """What a command works on. The configuration is read when it is asked for: help and the diagram do without."""

    config_file: Path | None
    url: str | None
    tenant: str | None
    all_tenants: bool
    as_json: bool

    @cached_property
    def settings(self) -> "Settings":
        """The configuration, with the database that `--url` names. Raises `ConfigError`."""
        from lifecycle.settings import Settings, load_settings

        settings = load_settings(self.config_file)
        if self.url is None:
            return settings
        sections = {name: getattr(settings, name) for name in Settings.model_fields}
        sections["database"] = settings.database.model_dump(mode="json") | {"url": self.url}
        try:
            return Settings(**sections)
        except ConfigError as error:
            raise ConfigError(error.key, error.problem, source="--url") from None

    def manager(self, *, single: bool = False) -> "SessionManager":
        """The manager to work with; use it as a context manager. Raises what `SessionManager.open` does.

        `single` is for a command on one session, which belongs to one tenant.
        """
        if single and self.all_tenants:
            raise InvalidArgument("--all-tenants is for lists and sweeps; name the session's tenant with --tenant")
        from lifecycle.cli import quiet
        from lifecycle.manager.blocking import SessionManager
        from lifecycle.operations.context import ALL

        settings = self.settings
        quiet.prepare(settings.logging)
        require_file(settings.database.url)
        return SessionManager.open(settings, ALL if self.all_tenants else self.tenant or "")


def scope_of(ctx: typer.Context) -> Scope:
    """The scope that the top-level options made."""
    # A group of commands may be run by itself, inside somebody else's command line.
    return ctx.obj if isinstance(ctx.obj, Scope) else Scope(None, None, None, all_tenants=False, as_json=False)


def require_file(url: str, *, exists: bool = True) -> None:
    """Refuse a SQLite file that cannot be used, or is not there (`exists`): opening it would create an empty one."""
    from lifecycle import urls

    directory = urls.jsonl_directory(url)
    if directory is not None:
        if exists and directory.parent.is_dir() and not directory.exists():
            raise SchemaOutdated(f"there is no store {directory} yet; run: lifecycle db upgrade")
        return
    parsed = urls.engine_url(url)
    if parsed.get_backend_name() != "sqlite" or urls.is_memory(url) or "uri" in parsed.query:
        return
    file = Path(str(parsed.database))
    if file.is_dir():
        raise StorageUnavailable(
            f"SQLite: {file} is a directory; name a file in it, as in sqlite:///{file}/lifecycle.db"
        )
    if not file.parent.is_dir():
        raise StorageUnavailable(f"SQLite: there is no directory {file.parent} for the database; create it first")
    if exists and not file.exists():
        raise SchemaOutdated(f"there is no database {file.absolute()} yet; run: lifecycle db upgrade")

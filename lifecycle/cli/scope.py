"""What the options before the command settle: configuration, tenant, and the form of the output."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import typer

from lifecycle import SessionManager, Settings
from lifecycle.errors import ConfigError
from lifecycle.log import configure_logging
from lifecycle.operations.context import AllTenants
from lifecycle.settings import load_settings


@dataclass
class Options:
    """The options before the command."""

    config_file: Path | None
    url: str | None
    tenant: str | AllTenants
    as_json: bool

    @cached_property
    def settings(self) -> Settings:
        """The configuration, with the database that `--url` names. Raises `ConfigError`."""
        settings = load_settings(self.config_file)
        if self.url is None:
            return settings
        sections = {name: getattr(settings, name) for name in Settings.model_fields}
        sections["database"] = settings.database.model_dump(mode="json") | {"url": self.url}
        try:
            return Settings(**sections)
        except ConfigError as error:
            raise ConfigError(error.key, error.problem, source="--url") from None


@dataclass(frozen=True, slots=True)
class Scope:
    """What a command works on."""

    settings: Settings
    tenant: str | AllTenants
    as_json: bool

    def manager(self) -> SessionManager:
        """The manager to work with; use it as a context manager."""
        # What a library warns of (a pool that cannot connect) the command's own error says better.
        configure_logging("critical", "console")
        return SessionManager.open(self.settings, self.tenant)


def scope_of(ctx: typer.Context) -> Scope:
    """The scope that the top-level options made."""
    # A group of commands may be run by itself, inside somebody else's command line.
    options: Options = ctx.obj if isinstance(ctx.obj, Options) else Options(None, None, "", as_json=False)
    return Scope(options.settings, options.tenant, options.as_json)

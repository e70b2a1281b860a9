"""All sections together."""

from functools import cached_property
from typing import Annotated, Any, ClassVar, Final

from pydantic import BeforeValidator, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from lifecycle.errors import ConfigError
from lifecycle.log import Format, Level, mask_passwords
from lifecycle.policies import Policies
from lifecycle.settings.archive import ArchiveSettings
from lifecycle.settings.cache import CacheSettings
from lifecycle.settings.database import DatabaseSettings
from lifecycle.settings.directories import DirectoriesSettings
from lifecycle.settings.limits import LimitsSettings
from lifecycle.settings.mistakes import explain, unknown
from lifecycle.settings.policies import PoliciesSettings
from lifecycle.settings.section import Section
from lifecycle.settings.telemetry import TelemetrySettings
from lifecycle.settings.values import Seconds, lower
from lifecycle.settings.web import WebSettings
from lifecycle.settings.worker import WorkerSettings

PREFIX: Final = "LIFECYCLE_"
NESTED: Final = "__"


class HousekeepingSettings(Section):
    """How long small leftovers are kept."""

    tombstones: Seconds = 604_800
    """Seconds the audit rows of a deleted session are kept."""
    tokens: Seconds = 86_400
    """Seconds a retry token is remembered."""
    samples: Seconds = 1_209_600
    """Seconds the numbers over time are kept that the dashboard and the metrics show."""


class LoggingSettings(Section):
    """What the daemon and the command line log; an application that embeds Lifecycle keeps its own logging."""

    level: Annotated[Level, BeforeValidator(lower)] = "info"
    """The lowest level that is logged."""
    format: Annotated[Format, BeforeValidator(lower)] = "auto"
    """json, console, or auto: console on a terminal, json elsewhere."""


class Settings(BaseSettings):
    """All settings. `Settings(database={"url": ...})` reads no file and no environment: see `load_settings`.

    Raises ConfigError for an unknown key and for a value that is not allowed. Fixed once made.
    """

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=NESTED,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    database: DatabaseSettings = DatabaseSettings()
    """Where sessions are stored."""
    cache: CacheSettings = CacheSettings()
    """What answers reads by key in the database's place."""
    policies: PoliciesSettings = PoliciesSettings()
    """How long sessions may idle, live and be kept."""
    limits: LimitsSettings = LimitsSettings()
    """Bounds on what callers pass."""
    worker: WorkerSettings = WorkerSettings()
    """The daemon and its jobs."""
    archive: ArchiveSettings = ArchiveSettings()
    """Where sessions are written before they are removed."""
    directories: DirectoriesSettings = DirectoriesSettings()
    """Directories in which agents keep sessions in files."""
    web: WebSettings = WebSettings()
    """The HTTP API and the dashboard."""
    telemetry: TelemetrySettings = TelemetrySettings()
    """Traces of what is done."""
    housekeeping: HousekeepingSettings = HousekeepingSettings()
    """How long small leftovers are kept."""
    logging: LoggingSettings = LoggingSettings()
    """What is logged, and how."""

    def __init__(self, /, **sections: Any) -> None:
        """Take sections as mappings or as their classes; see the class."""
        # Refused here, as BaseSettings has parameters of its own that a file must not reach.
        for name in sections.keys() - type(self).model_fields.keys():
            raise ConfigError(name, unknown(name, type(self)))
        try:
            super().__init__(**sections)
        except ValidationError as invalid:
            key, problem = explain(invalid.errors(include_url=False), type(self))
        else:
            return
        # Raised out here: the validation error quotes the values it was given, passwords among them.
        raise ConfigError(key, problem)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 -- pydantic-settings' signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the arguments as the only source: an embedding application's settings depend on nothing else."""
        return (init_settings,)

    @cached_property
    def policy_set(self) -> Policies:
        """The policies, built once, so that what they cache is kept."""
        return self.policies.build()

    def redacted(self) -> dict[str, Any]:
        """Return every setting as it would stand in the file, for `lifecycle config show`: no passwords."""
        shown = self.model_dump(mode="json")
        shown["database"]["url"] = mask_passwords(self.database.url)
        if self.cache.url is not None:
            shown["cache"]["url"] = mask_passwords(self.cache.url)
        return shown

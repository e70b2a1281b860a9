"""Configuration: what can be set, its defaults and bounds, and where it is read from.

`Settings(...)` takes what it is given and reads nothing; `load_settings` reads the environment and a YAML file.
Every problem is a `ConfigError` that names the dotted key, what is allowed there and where the value came from.
`config.yaml` at the top of the repository explains every key.
"""

import difflib
import os
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Self, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from lifecycle.durations import format_duration, parse_duration
from lifecycle.errors import ConfigError
from lifecycle.log import Format, Level, mask_passwords
from lifecycle.policies import Policies, Policy

_PREFIX: Final = "LIFECYCLE_"
_NESTED: Final = "__"
_FILE_VARIABLE: Final = "LIFECYCLE_CONFIG"
_DEFAULT_FILE: Final = "config.yaml"
_DEFAULT: Final = Policy()
_MOST: Final = 2**31 - 1
_ABSENT: Final = object()


def load_settings(path: str | Path | None = None) -> "Settings":
    """Return the settings of this process: environment over YAML file over defaults, key by key.

    The file is `path`, else $LIFECYCLE_CONFIG, else ./config.yaml if there is one. In the environment `database.url`
    is LIFECYCLE_DATABASE__URL. Raises ConfigError for an unknown key, a value that is not allowed, invalid YAML and
    a file that cannot be read.
    """
    file = _chosen_file(path)
    from_file = {} if file is None else _read_yaml(file)
    from_environment = _read_environment()
    values = _over(from_file, from_environment, Settings)
    try:
        return Settings(**values)
    except ConfigError as wrong:
        layers = {str(file): from_file, "environment": from_environment}
        sources = [name for name, layer in layers.items() if _value_at(layer, wrong.key) is not _ABSENT]
        # One value is the environment's where both set it; a section may be wrong by what both put into it.
        if not isinstance(_value_at(values, wrong.key), Mapping):
            sources = sources[-1:]
        source = " and ".join(sources) or wrong.source
        raise ConfigError(wrong.key, wrong.problem, source=source) from None


def _seconds(value: Any) -> int:
    seconds = _seconds_or_never(value)
    if seconds is None:
        raise ValueError("never is not allowed here; must be a duration such as 45s, 60m or 24h")
    return seconds


def _seconds_or_never(value: Any) -> int | None:
    if value is None:
        raise ValueError("must be a duration such as 24h or 30d, or never; it is left empty")
    return parse_duration(value)


def _count_or_all(value: Any) -> int | None:
    if isinstance(value, str):
        text = value.strip().lower()
        if text == "all":
            return None
        value = int(text) if re.fullmatch("[0-9]{1,10}", text) else value
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MOST:
        raise ValueError(f"must be a whole number from 1 to {_MOST}, or all; not {value!r}")
    return value


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number; not yes or no")  # noqa: TRY004 -- pydantic reads ValueError
    return value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _empty_mapping(value: Any) -> Any:
    return {} if value is None else value


Seconds = Annotated[int, BeforeValidator(_seconds), PlainSerializer(format_duration)]
SecondsOrNever = Annotated[int | None, BeforeValidator(_seconds_or_never), PlainSerializer(format_duration)]
Count = Annotated[int, BeforeValidator(_no_bool), Field(ge=1, le=_MOST)]
CountOrAll = Annotated[
    int | None, BeforeValidator(_count_or_all), PlainSerializer(lambda count: "all" if count is None else count)
]


class _Section(BaseModel):
    """A mapping of known keys, fixed once read; left empty it is all defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _mapping(cls, value: Any) -> Any:
        if value is None:
            return {}
        return value if isinstance(value, Mapping | cls) else cls._from_scalar(value)

    @classmethod
    def _from_scalar(cls, _value: Any) -> Mapping[str, Any]:
        raise ValueError(f"must be a mapping with any of the keys {', '.join(cls.model_fields)}")

    def _inheriting(self, default: Self) -> Self:
        """Return this section with whatever it leaves out taken from `default`."""
        values: dict[str, Any] = {}
        for name in type(self).model_fields:
            own, inherited = getattr(self, name), getattr(default, name)
            if isinstance(own, _Section):
                values[name] = own._inheriting(inherited)  # noqa: SLF001 -- another of this class
            else:
                values[name] = own if name in self.model_fields_set else inherited
        return self.model_copy(update=values)


class DatabaseSettings(_Section):
    """Where sessions are stored, and how long to wait for it."""

    url: str = "sqlite:///lifecycle.db"
    """An SQLAlchemy URL: sqlite, postgresql, mariadb or mysql."""
    pool_size: Count = 8
    """Connections kept open per process."""
    connect_timeout: Seconds = 5
    """Seconds to wait for a connection."""
    statement_timeout: Seconds = 30
    """Seconds one statement may take."""
    search_timeout: Seconds = 5
    """Seconds a search may take."""
    allow_unsafe_durability: bool = False
    """Work on a database that may lose acknowledged writes when it crashes."""

    @field_validator("url")
    @classmethod
    def _known_database(cls, url: str) -> str:
        scheme, separator, _ = url.partition("://")
        if not separator or scheme.partition("+")[0] not in ("sqlite", "postgresql", "mariadb", "mysql"):
            raise ValueError("must be a URL that starts with sqlite://, postgresql://, mariadb:// or mysql://")
        return url


class IdleSettings(_Section):
    """How long sessions may go without activity before they expire; written as a scalar, it is the active ones'."""

    active: SecondsOrNever = _DEFAULT.idle_active
    """Seconds an active session may idle."""
    suspended: SecondsOrNever = _DEFAULT.idle_suspended
    """Seconds a suspended session may idle."""

    @classmethod
    def _from_scalar(cls, value: Any) -> Mapping[str, Any]:
        _seconds_or_never(value)
        return {"active": value}


class RetentionSettings(_Section):
    """How long finished sessions are kept; written as a scalar, it is that of every terminal state."""

    completed: SecondsOrNever = _DEFAULT.retention_completed
    """Seconds a completed session is kept."""
    ended: SecondsOrNever = _DEFAULT.retention_ended
    """Seconds an ended session is kept."""
    expired: SecondsOrNever = _DEFAULT.retention_expired
    """Seconds an expired session is kept."""

    @classmethod
    def _from_scalar(cls, value: Any) -> Mapping[str, Any]:
        _seconds_or_never(value)
        return dict.fromkeys(cls.model_fields, value)


class CheckpointSettings(_Section):
    """Which checkpoints of a session are kept when another is made."""

    keep_last: CountOrAll = _DEFAULT.checkpoints_keep_last
    """How many of the newest."""
    keep_every: SecondsOrNever = _DEFAULT.checkpoints_keep_every
    """Seconds of which the first of the older ones is kept too."""


class PolicySettings(_Section):
    """The policy of one kind of session, or of all others."""

    idle: IdleSettings = IdleSettings()
    """Seconds without activity until it expires."""
    max_age: SecondsOrNever = _DEFAULT.max_age
    """Seconds after creation until it expires, however busy."""
    retention: RetentionSettings = RetentionSettings()
    """Seconds it is kept once finished."""
    ghosts: SecondsOrNever = _DEFAULT.ghosts
    """Seconds until a session nothing was ever stored in is removed."""
    checkpoints: CheckpointSettings = CheckpointSettings()
    """Which of its checkpoints are kept."""

    def build(self) -> Policy:
        """Return the policy these settings describe."""
        return Policy(
            idle_active=self.idle.active,
            idle_suspended=self.idle.suspended,
            max_age=self.max_age,
            retention_completed=self.retention.completed,
            retention_ended=self.retention.ended,
            retention_expired=self.retention.expired,
            ghosts=self.ghosts,
            checkpoints_keep_last=self.checkpoints.keep_last,
            checkpoints_keep_every=self.checkpoints.keep_every,
        )


class PoliciesSettings(_Section):
    """The default policy, and those of single kinds, which inherit from it what they leave out."""

    default: PolicySettings = PolicySettings()
    """The policy of every kind that has none of its own."""
    kinds: Annotated[
        dict[Annotated[str, Field(min_length=1, max_length=255)], PolicySettings], BeforeValidator(_empty_mapping)
    ] = Field(default_factory=dict)
    """Kind of session to its policy."""

    @model_validator(mode="after")
    def _keep_every_beside_keep_last(self) -> Self:
        # Before inheriting, while what was written can be told: alone, keep_every would silently do nothing.
        inherited = self.default.checkpoints.model_fields_set
        for name, policy in [("default", self.default), *((f"kinds.{kind}", own) for kind, own in self.kinds.items())]:
            own = policy.checkpoints
            if own.keep_every is not None and "keep_last" not in own.model_fields_set | inherited:
                raise ValueError(
                    f"{name}.checkpoints.keep_every needs a keep_last beside it: how many of the newest to keep, "
                    "at least 1 (or all, to remove none)"
                )
        return self

    @model_validator(mode="after")
    def _inherit(self) -> Self:
        self.kinds.update({kind: policy._inheriting(self.default) for kind, policy in self.kinds.items()})  # noqa: SLF001
        return self

    def build(self) -> Policies:
        """Return the policies these settings describe."""
        return Policies(self.default.build(), {kind: policy.build() for kind, policy in self.kinds.items()})


class LimitsSettings(_Section):
    """Bounds: what is larger is refused, never cut."""

    message_chars: Count = 100_000
    """Characters of one message."""
    title_chars: Count = 200
    """Characters of a title."""
    page_size: Count = 100
    """Sessions on one page of a list."""
    messages_page: Count = 500
    """Messages on one page."""
    document_bytes: Count = 16_777_216
    """Bytes of a state document as JSON."""
    id_chars: Annotated[Count, Field(le=255)] = 255
    """Characters of an id; the columns hold 255."""
    metadata_bytes: Count = 65_536
    """Bytes of a session's or message's metadata as JSON."""
    batch_messages: Count = 1_000
    """Messages one call may add."""
    document_depth: Annotated[Count, Field(le=900)] = 200
    """Levels of nesting in a document; Python's own JSON reader ends near 1000."""


_CRON_NUMBERS: Final = (("minute", 0, 59), ("hour", 0, 23), ("day of month", 1, 31), ("month", 1, 12))
_CRON_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class JobSettings(_Section):
    """When a cleanup job runs, and how much it does: exactly one of `every` and `cron` is set."""

    every: Annotated[int | None, PlainSerializer(lambda value: value and format_duration(value))] = None
    """Seconds from one run to the next."""
    cron: str | None = None
    """Five fields, in UTC."""
    enabled: bool = True
    """Whether the job runs at all."""
    batch: Annotated[Count, Field(le=10_000)] = 500
    """Rows per transaction."""
    budget: Seconds = 20
    """Seconds one run may take; what is left waits for the next."""
    slices: Annotated[Count, Field(le=256)] = 1
    """Workers that may share the sweep at a time, each passing over what another holds."""
    pause: Annotated[float, BeforeValidator(_no_bool), Field(ge=0, le=60, allow_inf_nan=False)] = 0.02
    """Seconds between batches, for the database to breathe."""

    @field_validator("every", mode="before")
    @classmethod
    def _every(cls, value: Any) -> int | None:
        return None if value is None else _seconds(value)

    @field_validator("cron")
    @classmethod
    def _cron(cls, value: str | None) -> str | None:
        if value is not None:
            _check_cron(value)
        return value

    @model_validator(mode="after")
    def _one_schedule(self) -> Self:
        if (self.every is None) == (self.cron is None):
            raise ValueError("must have exactly one of every (such as 30s) and cron (such as '*/5 * * * *')")
        return self


class ReapJobSettings(JobSettings):
    """The job that closes connections nobody beats for any more."""

    silent_for: Seconds = 300
    """Seconds without a beat until a connection counts as gone."""


def _check_cron(text: str) -> None:
    """Raise ValueError unless `text` is a cron line every scheduler reads alike.

    Days of the week are names only: 0 is Monday to APScheduler and Sunday to cron.
    """
    parts = text.split()
    if len(parts) != len(_CRON_NUMBERS) + 1:
        raise ValueError(f"must have five fields (minute hour day month weekday), such as '*/5 * * * *'; not {text!r}")
    for part, (name, low, high) in zip(parts, _CRON_NUMBERS, strict=False):
        for item in part.split(","):
            match = re.fullmatch(r"(?:\*|([0-9]{1,2})(?:-([0-9]{1,2}))?)(?:/([1-9][0-9]?))?", item)
            bounds = [int(bound) for bound in match.groups()[:2] if bound] if match else [-1]
            if bounds != sorted(bounds) or not all(low <= bound <= high for bound in bounds):
                raise ValueError(
                    f"cron: {name} must be *, */n, n, n-n or a list of those, {low} to {high}; not {item!r}"
                )
    for item in parts[-1].lower().split(","):
        first, _, last = item.partition("-")
        if item != "*" and not {first, last or first} <= set(_CRON_DAYS):
            raise ValueError(f"cron: weekday must be * or names ({', '.join(_CRON_DAYS)}, mon-fri); not {item!r}")


def _runs_every(seconds: int) -> BeforeValidator:
    """Return a validator that gives a job without a schedule its default one."""

    def fill(value: Any) -> Any:
        if value is None:
            return {"every": seconds}
        if isinstance(value, Mapping) and value.get("every") is None and value.get("cron") is None:
            return {**value, "every": seconds}
        return value

    return BeforeValidator(fill)


class JobsSettings(_Section):
    """The worker's cleanup jobs."""

    expire_idle: Annotated[JobSettings, _runs_every(30)] = JobSettings(every=30)
    """Expires sessions that are past their deadline."""
    prune_sessions: Annotated[JobSettings, _runs_every(300)] = JobSettings(every=300)
    """Removes finished sessions that are past their retention."""
    delete_ghosts: Annotated[JobSettings, _runs_every(300)] = JobSettings(every=300)
    """Removes sessions nothing was ever stored in."""
    expire_approvals: Annotated[JobSettings, _runs_every(30)] = JobSettings(every=30)
    """Expires approval requests nobody answered in time."""
    reap_connections: Annotated[ReapJobSettings, _runs_every(60)] = ReapJobSettings(every=60)
    """Closes connections that fell silent."""

    def by_name(self) -> dict[str, JobSettings]:
        """Return each job's settings by its name."""
        return {name: getattr(self, name) for name in type(self).model_fields}


class WorkerSettings(_Section):
    """The daemon that runs the cleanup jobs."""

    name: Annotated[str, Field(min_length=1, max_length=255, pattern=r"\S")] | None = None
    """The worker's name, unique among those running; None for a generated one."""
    drain_timeout: Seconds = 20
    """Seconds a stopping worker waits for its runs to end."""
    heartbeat: Seconds = 10
    """Seconds between two signs of life."""
    watchdog: Seconds = 120
    """Seconds after which a run that has not returned ends the process."""
    jobs: JobsSettings = JobsSettings()
    """The cleanup jobs."""

    @model_validator(mode="after")
    def _budgets_below_watchdog(self) -> Self:
        for name, job in self.jobs.by_name().items():
            if job.budget >= self.watchdog:
                raise ValueError(
                    f"watchdog ({format_duration(self.watchdog)}) must be longer than jobs.{name}.budget "
                    f"({format_duration(job.budget)}): it would end a healthy run"
                )
        return self


class HousekeepingSettings(_Section):
    """How long small leftovers are kept."""

    tombstones: Seconds = 604_800
    """Seconds the audit rows of a deleted session are kept."""
    tokens: Seconds = 86_400
    """Seconds a retry token is remembered."""


class LoggingSettings(_Section):
    """What the daemon and the command line log; an application that embeds Lifecycle keeps its own logging."""

    level: Annotated[Level, BeforeValidator(_lower)] = "info"
    """The lowest level that is logged."""
    format: Annotated[Format, BeforeValidator(_lower)] = "auto"
    """json, console, or auto: console on a terminal, json elsewhere."""


class Settings(BaseSettings):
    """All settings. `Settings(database={"url": ...})` reads no file and no environment: see `load_settings`.

    Raises ConfigError for an unknown key and for a value that is not allowed. Fixed once made.
    """

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_nested_delimiter=_NESTED,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    database: DatabaseSettings = DatabaseSettings()
    """Where sessions are stored."""
    policies: PoliciesSettings = PoliciesSettings()
    """How long sessions may idle, live and be kept."""
    limits: LimitsSettings = LimitsSettings()
    """Bounds on what callers pass."""
    worker: WorkerSettings = WorkerSettings()
    """The daemon and its jobs."""
    housekeeping: HousekeepingSettings = HousekeepingSettings()
    """How long small leftovers are kept."""
    logging: LoggingSettings = LoggingSettings()
    """What is logged, and how."""

    def __init__(self, /, **sections: Any) -> None:
        """Take sections as mappings or as their classes; see the class."""
        # Refused here, as BaseSettings has parameters of its own that a file must not reach.
        for name in sections.keys() - type(self).model_fields.keys():
            raise ConfigError(name, _unknown(name, type(self)))
        try:
            super().__init__(**sections)
        except ValidationError as invalid:
            key, problem = _explain(invalid.errors(include_url=False))
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
        return shown


def _chosen_file(path: str | Path | None) -> Path | None:
    chosen = path or os.environ.get(_FILE_VARIABLE)
    if chosen:
        return Path(chosen)
    default = Path(_DEFAULT_FILE)
    return default if default.exists() else None


class _Loader(yaml.SafeLoader):
    """YAML without two of its traps: a key given twice, and a key such as `on` that is no text."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.tag != "tag:yaml.org,2002:str":
                raise yaml.MarkedYAMLError(problem="a key must be text: put it in quotes", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value} is given twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return node


def _read_yaml(file: Path) -> Mapping[str, Any]:
    source = str(file)
    try:
        content = yaml.load(file.read_text(encoding="utf-8-sig"), _Loader)  # noqa: S506 -- a SafeLoader
    except OSError as error:
        raise ConfigError("file", f"cannot be read: {error.strerror}", source=source) from error
    except UnicodeDecodeError as error:
        raise ConfigError("file", f"must be YAML in UTF-8; byte {error.start} is not", source=source) from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"line {line}", f"must be valid YAML: {error.problem}", source=source) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError("file", f"must be valid YAML: {mask_passwords(str(error))}", source=source) from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        allowed = ", ".join(Settings.model_fields)
        raise ConfigError("file", f"must be a mapping with any of the keys {allowed}", source=source)
    return content


class _Environment(EnvSettingsSource):
    """LIFECYCLE_SECTION__KEY variables; a whole section may be JSON."""

    def decode_complex_value(self, field_name: str, field: Any, value: Any) -> Any:
        # What is no JSON may be a scalar form (`60m`); if not, the section's own check says what is allowed.
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


def _read_environment() -> Mapping[str, Any]:
    for variable in sorted(os.environ):
        if not variable.upper().startswith(_PREFIX):
            continue
        name = variable[len(_PREFIX) :].lower()
        section, nested, _ = name.partition(_NESTED)
        if nested and section not in Settings.model_fields:
            problem = f"{_unknown(section, Settings)} ({variable} is set)"
            raise ConfigError(name.replace(_NESTED, "."), problem, source="environment")
        # LIFECYCLE_DATABASE_URL would be ignored, and an empty SQLite file used in place of the database meant.
        section, _, key = name.partition("_")
        if key in _names(_child(Settings, section)):
            problem = f"must be set as {_PREFIX}{section.upper()}{_NESTED}{key.upper()}, with two underscores"
            raise ConfigError(f"{section}.{key}", f"{problem}; {variable} sets nothing", source="environment")
    return _Environment(Settings)()


def _over(below: Any, above: Any, schema: Any) -> Any:
    """Return `above` laid over `below`, key by key, where both are mappings of `schema`."""
    if isinstance(below, Mapping) != isinstance(above, Mapping):
        below, above = _spelled_out(below, schema), _spelled_out(above, schema)
    if not isinstance(below, Mapping) or not isinstance(above, Mapping):
        return above
    merged = dict(below)
    if isinstance(schema, type) and issubclass(schema, JobSettings) and above.keys() & {"every", "cron"}:
        # One schedule replaces the other.
        merged = {key: value for key, value in below.items() if key not in ("every", "cron")}
    for key, value in above.items():
        merged[key] = _over(merged[key], value, _child(schema, key)) if key in merged else value
    return merged


def _spelled_out(value: Any, schema: Any) -> Any:
    if isinstance(value, Mapping) or not (isinstance(schema, type) and issubclass(schema, _Section)):
        return value
    try:
        return schema._from_scalar(value)  # noqa: SLF001 -- a section's own scalar form
    except ValueError:
        return value


def _child(schema: Any, key: Any) -> Any:
    """Return what stands under `key` of a section or a mapping of sections, or None."""
    if get_origin(schema) is dict:
        return get_args(schema)[1]
    if key in _names(schema):
        return schema.model_fields[key].annotation
    return None


def _names(schema: Any) -> list[str]:
    return list(schema.model_fields) if isinstance(schema, type) and issubclass(schema, BaseModel) else []


def _value_at(layer: Any, key: str) -> Any:
    """Return what `layer` holds under the dotted key, or `_ABSENT`; a kind's own name may hold dots."""
    if not isinstance(layer, Mapping):
        return _ABSENT
    for name, value in layer.items():
        if key == name:
            return value
        if key.startswith(f"{name}.") and (found := _value_at(value, key[len(name) + 1 :])) is not _ABSENT:
            return found
    return _ABSENT


def _explain(errors: list[ErrorDetails]) -> tuple[str, str]:
    """Return the key of the first error, and what is wrong and allowed there; the other keys are named too."""
    first, *others = errors
    key = _dotted(first)
    if first["type"] == "extra_forbidden":
        schema: Any = Settings
        for part in first["loc"][:-1]:
            schema = _child(schema, part)
        problem = _unknown(str(first["loc"][-1]), schema)
    elif first["type"] == "value_error":
        problem = str(first["ctx"]["error"])
    else:
        problem = first["msg"].replace("Input should", "must").replace("String should", "must")
        if isinstance(first["input"], str | int | float):
            problem += f"; not {first['input']!r}"
    more = sorted({_dotted(error) for error in others} - {key})
    if more:
        problem += f" (also wrong: {', '.join(more)})"
    return key, mask_passwords(problem)


def _dotted(error: ErrorDetails) -> str:
    # pydantic marks a bad key of a mapping with a part of its own.
    return ".".join(str(part) for part in error["loc"] if part != "[key]")


def _unknown(name: str, schema: Any) -> str:
    allowed = _names(schema)
    close = difflib.get_close_matches(name, allowed, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"unknown key; {hint}allowed here: {', '.join(allowed)}"

"""Reading settings from a YAML file and the environment."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic_settings import EnvSettingsSource

from lifecycle.errors import ConfigError
from lifecycle.log import mask_passwords
from lifecycle.settings.mistakes import child, names, unknown
from lifecycle.settings.root import NESTED, PREFIX, Settings
from lifecycle.settings.section import Section
from lifecycle.settings.worker import JobSettings

_FILE_VARIABLE: Final = "LIFECYCLE_CONFIG"
_DEFAULT_FILE: Final = "config.yaml"
_ABSENT: Final = object()


def load_settings(path: str | Path | None = None) -> Settings:
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
        if not variable.upper().startswith(PREFIX):
            continue
        name = variable[len(PREFIX) :].lower()
        section, nested, _ = name.partition(NESTED)
        if nested and section not in Settings.model_fields:
            problem = f"{unknown(section, Settings)} ({variable} is set)"
            raise ConfigError(name.replace(NESTED, "."), problem, source="environment")
        # LIFECYCLE_DATABASE_URL would be ignored, and an empty SQLite file used in place of the database meant.
        section, _, key = name.partition("_")
        if key in names(child(Settings, section)):
            problem = f"must be set as {PREFIX}{section.upper()}{NESTED}{key.upper()}, with two underscores"
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
        merged[key] = _over(merged[key], value, child(schema, key)) if key in merged else value
    return merged


def _spelled_out(value: Any, schema: Any) -> Any:
    if isinstance(value, Mapping) or not (isinstance(schema, type) and issubclass(schema, Section)):
        return value
    try:
        return schema.from_scalar(value)
    except ValueError:
        return value


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

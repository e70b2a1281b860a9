"""Configuration: what can be set, its defaults and bounds, and where it is read from.

`Settings(...)` takes what it is given and reads nothing; `load_settings` reads the environment and a YAML file.
Every problem is a `ConfigError` that names the dotted key, what is allowed there and where the value came from.
`config.yaml` at the top of the repository explains every key.
"""

from lifecycle.settings.database import DatabaseSettings
from lifecycle.settings.loading import load_settings
from lifecycle.settings.root import LoggingSettings, Settings
from lifecycle.settings.worker import JobSettings, ReapJobSettings

__all__ = ["DatabaseSettings", "JobSettings", "LoggingSettings", "ReapJobSettings", "Settings", "load_settings"]

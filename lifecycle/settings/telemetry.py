"""Traces."""

from lifecycle.settings.section import Section


class TelemetrySettings(Section):
    """OpenTelemetry traces of the daemon and the HTTP API; where they go is said by the standard `OTEL_` variables."""

    enabled: bool = False
    """Whether spans are made and sent."""

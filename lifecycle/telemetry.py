"""Traces with OpenTelemetry: a span for each call of a manager, below whatever span is current where it is called.

Off unless `telemetry.enabled` is set (the daemon and the HTTP API) or an application calls `trace_operations`. Needs the
extra `otel`. A span tells the operation, the kind of database and what came of it; no ids, tenants or documents.
"""

import functools
import os
from typing import TYPE_CHECKING, Any, Final

from lifecycle import observing, urls
from lifecycle.errors import ConfigError, LifecycleError
from lifecycle.faults import http_status
from lifecycle.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

_SERVER_ERROR: Final = 500
_SYSTEMS: Final = {"mysql": "mariadb", "jsonl": "other_sql"}


def trace_operations(provider: "TracerProvider | None" = None) -> observing.Observer:
    """Make spans from now on, with the application's own provider or the global one.

    Give what comes back to `lifecycle.observing.forget` to stop. Raises `ConfigError` without the extra `otel`.
    """
    try:
        from opentelemetry import trace
    except ModuleNotFoundError as missing:
        raise ConfigError(
            "telemetry.enabled", f"{missing.name} is not installed: pip install 'session-lifecycle[otel]'"
        ) from missing
    import lifecycle

    observer = _Tracing(trace.get_tracer("lifecycle", lifecycle.__version__, provider))
    observing.observe(observer)
    return observer


def configure(settings: Settings) -> None:
    """Send traces if the settings say so, to where the standard `OTEL_` variables do. Raises `ConfigError`.

    A global provider that the process has already is left as it is, and used.
    """
    if settings.telemetry.enabled:
        _configure()


@functools.cache
def _configure() -> None:
    try:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as missing:
        raise ConfigError(
            "telemetry.enabled", f"{missing.name} is not installed: pip install 'session-lifecycle[otel]'"
        ) from missing
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        named = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        provider = TracerProvider(resource=Resource.create({} if named else {SERVICE_NAME: "lifecycle"}))
        exporter = _exporter(os.environ.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower())
        if exporter is not None:
            provider.add_span_processor(BatchSpanProcessor(exporter))
        trace.set_tracer_provider(provider)
    trace_operations()


def _exporter(name: str) -> Any:
    match name:
        case "otlp" | "":
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            return OTLPSpanExporter()
        case "console":
            from opentelemetry.sdk.trace.export import ConsoleSpanExporter

            return ConsoleSpanExporter()
        case "none":
            return None
    raise ConfigError("OTEL_TRACES_EXPORTER", f"must be otlp, console or none, not {name!r}", source="the environment")


def of_requests(settings: Settings) -> dict[str, Any]:
    """What FastAPI is told about spans of requests, which take up the `traceparent` of who sent them."""
    return {
        "tracing": settings.telemetry.enabled, "metrics": False, "logs": False, "operation_spans": False,
        "auto_configure": False, "exclude": lambda scope: scope.get("path") in {"/livez", "/readyz", "/metrics"},
    }  # fmt: skip


class _Tracing(observing.Observer):
    """Makes a span of each operation, and has it current while the operation runs."""

    def __init__(self, tracer: Any) -> None:
        self._tracer = tracer

    def begin(self, name: str, manager: Any) -> observing.End:
        """Begin its span."""
        from opentelemetry import context, trace

        attributes = {"db.system.name": _system(manager.settings.database.url), "lifecycle.operation": name}
        span = self._tracer.start_span(f"lifecycle {name}", attributes=attributes)
        token = context.attach(trace.set_span_in_context(span))

        def end(error: BaseException | None, result: Any) -> None:
            del result
            context.detach(token)
            kind = None if error is None else type(error)
            span.set_attribute("lifecycle.result", "ok" if kind is None else kind.__name__)
            if kind is not None:
                span.set_attribute("error.type", kind.__name__)
                if _is_fault(kind):
                    span.set_status(trace.StatusCode.ERROR)
            span.end()

        return end


@functools.lru_cache(16)
def _system(url: str) -> str:
    name = urls.dialect_name(url)
    return _SYSTEMS.get(name, name)


def _is_fault(kind: type[BaseException]) -> bool:
    """Whether it is something that the caller can do nothing about: a refusal is an answer."""
    if issubclass(kind, LifecycleError):
        return http_status(kind) >= _SERVER_ERROR
    return issubclass(kind, Exception)

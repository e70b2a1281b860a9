"""The HTTP API and the dashboard."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from lifecycle.settings.section import Section
from lifecycle.settings.values import Count, Seconds, lower, no_bool

Rate = Annotated[float, BeforeValidator(no_bool), Field(gt=0, le=1_000_000, allow_inf_nan=False)]


Metrics = Literal["open", "keys", "off"]


class WebSettings(Section):
    """The HTTP API and the dashboard (`lifecycle serve`, and part of `lifecycle up`)."""

    host: Annotated[str, Field(min_length=1, max_length=255)] = "127.0.0.1"
    """The address to listen on; beyond loopback, keys are needed."""
    port: Annotated[int, BeforeValidator(no_bool), Field(ge=0, le=65_535)] = 8470
    """The port to listen on; 0 for any that is free."""
    dashboard: bool = True
    """Whether the dashboard is served beside the API."""
    mcp: bool = False
    """Whether agents are served at /mcp, over the Model Context Protocol (extra `mcp`)."""
    body_bytes: Count = 20_971_520
    """Bytes of the largest body of a request."""
    rate: Rate | None = None
    """Requests per second of one key, or of one address where there is no key; None for as many as come."""
    burst: Count = 100
    """Requests that may come at once on top of `rate`."""
    login: Seconds = 43_200
    """Seconds after which the dashboard asks for the key again."""
    idempotency: Seconds = 86_400
    """Seconds for which a repeated request with the same Idempotency-Key gets the first one's answer."""
    secure_cookies: bool = False
    """Whether the dashboard's cookie goes over HTTPS only: set it where the dashboard is served by HTTPS."""
    metrics: Annotated[Metrics, BeforeValidator(lower)] = "keys"
    """Who is shown /metrics: `keys`, whom the API lets read everybody's sessions; `open`, anybody; `off`, nobody."""

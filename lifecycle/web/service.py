"""What all requests of one application share."""

from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends, Request

from lifecycle.manager.asynchronous import AsyncSessionManager
from lifecycle.settings import Settings
from lifecycle.web.buckets import Buckets
from lifecycle.web.keyring import Keyring
from lifecycle.web.streams import Streams


@dataclass(slots=True)
class Service:
    """The settings and the manager of an application. The manager is of all tenants: requests take one from it."""

    settings: Settings
    manager: AsyncSessionManager
    streams: Streams = field(default_factory=Streams)
    keyring: Keyring = field(init=False)
    rates: Buckets | None = field(init=False)

    def __post_init__(self) -> None:
        self.keyring = Keyring(self.manager)
        web = self.settings.web
        self.rates = None if web.rate is None else Buckets(web.rate, web.burst)


async def service_of(request: Request) -> Service:
    """The service of the application that a request came to."""
    return cast("Service", request.app.state.service)


TheService = Annotated[Service, Depends(service_of)]

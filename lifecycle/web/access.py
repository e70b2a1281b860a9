"""Who may do what: the caller of a request, and what a route asks of him.

A caller is who sends a key (`Authorization: Bearer lc_...`), a browser that logged in with one, or, on this machine only
and as long as there is no key at all, anybody: the open mode.
"""

import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal, cast
from urllib.parse import unquote

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyCookie, HTTPBearer

from lifecycle.errors import InvalidArgument, LifecycleError
from lifecycle.log import get_logger
from lifecycle.manager.asynchronous import AsyncSessionManager
from lifecycle.models.reads import ApiKey
from lifecycle.operations import keys
from lifecycle.operations.context import ALL, AllTenants, check_text
from lifecycle.web import logins, origins
from lifecycle.web.problems import Forbidden, Refused, TooMany, Unauthorized
from lifecycle.web.service import Service, TheService

log = get_logger(__name__)

Scope = Literal["read", "write", "admin"]
# Each holds those before it.
SCOPES: Final[tuple[Scope, ...]] = cast("tuple[Scope, ...]", keys.SCOPES)
# Whose sessions a caller of all tenants means; `*` is everybody's.
TENANT_HEADER: Final = "Lifecycle-Tenant"
# The same for pages, which cannot send a header when they are opened; percent-encoded.
TENANT_COOKIE: Final = "lifecycle_tenant"
CSRF_HEADER: Final = "X-CSRF-Token"
CSRF_FIELD: Final = "csrf_token"
# Where a request keeps who sent it, once that is known.
_ASKED: Final = "lifecycle.caller"

# What OpenAPI says about the keys; `caller_of` reads the headers itself.
BEARER = HTTPBearer(auto_error=False, scheme_name="key", description="A key of `lifecycle keys create`.")
COOKIE = APIKeyCookie(
    name="lifecycle_login", auto_error=False, scheme_name="login", description="The dashboard's cookie."
)


class NotYourTenant(Refused):
    """The key is bound to a tenant, and the request names another."""

    status = 403


class BadToken(Refused):
    """A page's request that changes something has no token of ours, or that of another login."""

    status = 403


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request: whose sessions he sees, what he may do, and the name that the audit log gives him.

    `of_all` is whether he may name any tenant. `login_id` is there for a page in a browser: its tokens are bound to it.
    """

    tenant: str | AllTenants
    scope: Scope
    name: str
    key_id: str | None = None
    of_all: bool = False
    login_id: str | None = None

    def may(self, scope: Scope) -> bool:
        """Whether a scope is among his."""
        return SCOPES.index(scope) <= SCOPES.index(self.scope)

    def in_tenant(self, tenant: str | AllTenants) -> "Caller":
        """The caller as he means that tenant, or `ALL`. Raises `NotYourTenant`, the same whether there is such a one."""
        if not self.of_all and tenant != self.tenant:
            raise NotYourTenant("this key opens the sessions of another tenant only")
        return replace(self, tenant=tenant)


async def caller_of(
    request: Request,
    service: TheService,
    _bearer: Annotated[Any, Security(BEARER)] = None,
    _cookie: Annotated[Any, Security(COOKIE)] = None,
) -> Caller:
    """The caller of a request. Raises `Unauthorized`, `NotYourTenant`, `BadToken`, `ForeignOrigin`, `TooMany`.

    It may be asked again in the same request, and counts it once.
    """
    if (before := request.scope.get(_ASKED)) is not None:
        return cast("Caller", before)
    caller = await _caller(request, service)
    if service.rates is not None and (wait := service.rates.take(caller.key_id or origins.sender(request))):
        raise TooMany(f"more than {service.settings.web.rate:g} requests per second", wait)
    request.scope[_ASKED] = caller
    return caller


async def _caller(request: Request, service: Service) -> Caller:
    given = request.headers.get("authorization")
    if given is not None:
        kind, _, text = given.partition(" ")
        if kind.lower() != "bearer":
            raise Unauthorized("send the key as 'Authorization: Bearer lc_...'")
        key = await service.keyring.of_text(text.strip(), origins.sender(request))
        if key is None:
            log.info("key_refused", address=origins.sender(request))
            raise Unauthorized("this key opens nothing: it is unknown, revoked or has expired")
        return _meaning(request, service, _of_key(key), by_cookie=False)
    caller = await _logged_in(request, service)
    if caller is None:
        if await service.keyring.any():
            raise Unauthorized("send a key as 'Authorization: Bearer lc_...', or log in at /login")
        origins.require_this_machine(request)
        await service.keyring.load_secret()
        caller = Caller("", "admin", "local", of_all=True, login_id=logins.OPEN)
        if not origins.is_from_browser(request):
            return _meaning(request, service, replace(caller, login_id=None), by_cookie=True)
    origins.require_own_page(request)
    if request.method not in origins.SAFE:
        await _require_token(request, service, caller)
    return _meaning(request, service, caller, by_cookie=True)


async def _logged_in(request: Request, service: Service) -> Caller | None:
    """The caller whose cookie a browser sent, or None."""
    value = request.cookies.get(logins.cookie_name(service.settings.web))
    if value is None:
        return None
    login = logins.read_cookie(await service.keyring.load_secret(), value)
    key = None if login is None else await service.keyring.of_id(login.key_id)
    return None if key is None or login is None else _of_key(key, login.login_id)


async def _require_token(request: Request, service: Service, caller: Caller) -> None:
    token = request.headers.get(CSRF_HEADER)
    if token is None and request.headers.get("content-type", "").startswith(
        ("application/x-www-form-urlencoded", "multipart/form-data")
    ):
        # Kept for the route too; where it reads a form itself, that was done before we are called.
        with contextlib.suppress(RuntimeError):
            await request.body()
        try:
            field = (await request.form()).get(CSRF_FIELD)
        except UnicodeError:  # a charset that decodes nothing
            field = None
        token = field if isinstance(field, str) else None
    if token is None or not logins.token_fits(service.keyring.secret, caller.login_id or "", token):
        raise BadToken(
            f"a page must send its token in the header {CSRF_HEADER} or the field {CSRF_FIELD}; reload it and try again"
        )


def csrf_token(request: Request, caller: Caller) -> str:
    """The token that a page sends with whatever changes something: for a form's field, or a script's header.

    Empty for a caller with a key in his hands, who needs none.
    """
    service = cast("Service", request.app.state.service)
    # A page that was opened by its address bears no marks of a browser; what it sends will.
    login_id = caller.login_id or (logins.OPEN if caller.key_id is None else None)
    return "" if login_id is None else logins.token_for(service.keyring.secret, login_id)


async def still_opens(caller: Caller, service: Service) -> bool:
    """Whether a caller's key is good yet: for an answer that goes on for longer than a request."""
    if caller.key_id is None:
        return not await service.keyring.any()
    return await service.keyring.of_id(caller.key_id) is not None


async def announce(service: Service) -> None:
    """Say in the log when an application starts in the open mode."""
    try:
        closed = await service.keyring.any()
    except LifecycleError:
        return  # what is wrong with the database, requests and /readyz tell
    if not closed:
        log.warning(
            "open_mode", who="anybody on this machine may do anything: there is no key",
            close="lifecycle keys create NAME --scope admin --all-tenants",
        )  # fmt: skip


def caller_with(scope: Scope) -> Callable[..., Coroutine[Any, Any, Caller]]:
    """A dependency: the caller, if he has the scope. Raises `Unauthorized` and `Forbidden`."""

    async def check(caller: Annotated[Caller, Depends(caller_of)]) -> Caller:
        if not caller.may(scope):
            raise Forbidden(scope)
        return caller

    return check


def manager_of(caller: Caller, service: TheService) -> AsyncSessionManager:
    """A manager of the caller's sessions."""
    return service.manager.for_tenant(caller.tenant)


def _of_key(key: ApiKey, login_id: str | None = None) -> Caller:
    tenant = "" if key.tenant is None else key.tenant
    return Caller(tenant, cast("Scope", key.scope), key.name, key.key_id, key.tenant is None, login_id)


def _meaning(request: Request, service: Service, caller: Caller, *, by_cookie: bool) -> Caller:
    """The caller with the tenant that he names. A page's choice is left aside where the key leaves none."""
    named = request.headers.get(TENANT_HEADER)
    if named is not None:
        try:
            named = named.encode("latin-1").decode()
        except UnicodeDecodeError:
            raise InvalidArgument(f"{TENANT_HEADER} must be text in UTF-8") from None
    elif by_cookie and caller.of_all and TENANT_COOKIE in request.cookies:
        named = unquote(request.cookies[TENANT_COOKIE])
    if named is None:
        return caller
    most = service.settings.limits.id_chars
    if len(named) > most:
        raise InvalidArgument(f"{TENANT_HEADER} must be a tenant's name of at most {most} characters, not {len(named)}")
    return caller.in_tenant(ALL if named == "*" else check_text(named, TENANT_HEADER, most))


Reader = Annotated[Caller, Depends(caller_with("read"))]
Writer = Annotated[Caller, Depends(caller_with("write"))]
Admin = Annotated[Caller, Depends(caller_with("admin"))]

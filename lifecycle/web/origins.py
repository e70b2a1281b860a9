"""Where a request comes from: this machine, a page of ours in a browser, or somebody else's page."""

import ipaddress
import re
from functools import lru_cache
from typing import Final

from fastapi import Request

from lifecycle.web.problems import Refused

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""

# What proxies add: these, and whatever begins so.
_FORWARDED: Final = frozenset({"forwarded", "via", "x-client-ip", "x-real-ip", "true-client-ip"})
_FORWARDED_PREFIXES: Final = ("x-forwarded-", "cf-")
# A name or an address, and a port; nothing that reads otherwise elsewhere.
_HOST: Final = re.compile(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*\])(?::[0-9]{1,5})?")


class ForeignOrigin(Refused):
    """A page of another origin sent this."""

    status = 403


class ForeignHost(Refused):
    """Without keys, only this machine is answered, under its own names."""

    status = 403


@lru_cache(1024)
def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own; a name is none but for localhost."""
    name = host.strip("[]").partition("%")[0].lower().rstrip(".")
    if name == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def require_this_machine(request: Request) -> None:
    """Refuse, where there is no key, what comes from elsewhere or names us by another name. Raises `ForeignHost`.

    A page on the internet can have its own name resolve to 127.0.0.1 (DNS rebinding), and then its requests are of one
    origin with ours; but its browser still sends that name.
    """
    for _, end in ends(request):
        if not is_loopback(end):
            raise ForeignHost("without a key only this machine is answered: lifecycle keys create")
    if _is_forwarded(request):
        raise ForeignHost("without a key nothing is answered through a proxy: lifecycle keys create")
    host = ", ".join(request.headers.getlist("host"))
    named = _HOST.fullmatch(host)
    if named is None or not is_loopback(named[1]):
        raise ForeignHost(
            f"without a key only localhost, 127.0.0.1 and [::1] are answered, not the host {host!r}:"
            " lifecycle keys create"
        )


def ends(request: Request) -> list[tuple[str, str]]:
    """The two ends of the connection, as far as the server tells."""
    return [(name, str(end[0])) for name in ("client", "server") if (end := request.scope.get(name)) is not None] or [
        ("client", "")
    ]


def is_from_browser(request: Request) -> bool:
    """Whether the request bears the marks that browsers put on whatever a page sends, and programs do not."""
    return "origin" in request.headers or "sec-fetch-site" in request.headers


def require_own_page(request: Request) -> None:
    """Refuse what a page of another origin sent, but for following a link to here. Raises `ForeignOrigin`.

    Another port of this machine is of the same site, and its pages' requests bear our cookies: only the origin tells.
    """
    site = request.headers.get("sec-fetch-site")
    follows = request.method in SAFE and request.headers.get("sec-fetch-mode") == "navigate"
    if site is not None and site not in {"same-origin", "none"} and not follows:
        raise ForeignOrigin(f"this was sent by a page of another origin (Sec-Fetch-Site: {site})")
    origin = request.headers.get("origin")
    if origin is None:
        return
    # The scheme is left out: behind a proxy that ends HTTPS it is not the one the browser saw.
    if origin.partition("://")[2].lower() != request.headers.get("host", "").lower():
        raise ForeignOrigin(f"this was sent by a page of another origin ({origin})")


def sender(request: Request) -> str:
    """Whom failures and rates are counted for: the address, or the network of an IPv6 one, as each has billions."""
    host = request.client.host if request.client is not None else ""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def _is_forwarded(request: Request) -> bool:
    """Whether a request shows that a proxy sent it: by what it adds, or by HTTP/1.0, which some speak to us."""
    return request.scope.get("http_version") == "1.0" or any(
        name in _FORWARDED or name.startswith(_FORWARDED_PREFIXES) for name in request.headers
    )

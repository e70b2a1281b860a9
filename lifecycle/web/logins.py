"""The dashboard's cookie, and the tokens that tell its own requests from those of other sites.

The cookie holds the key's id, a number of its own and when it ends, signed: nothing of it is stored, and the key is
looked up at each use, so that revoking it ends what was begun with it.
"""

import hashlib
import secrets
import time
from dataclasses import dataclass
from typing import Final

from fastapi import Response
from itsdangerous import BadData, Signer, URLSafeSerializer

from lifecycle.settings.web import WebSettings

OPEN: Final = "open"
"""What the tokens of the open mode are bound to, where nobody logs in."""

_PARTS: Final = 3


@dataclass(frozen=True, slots=True)
class Login:
    """A cookie that was signed here and has not ended."""

    key_id: str
    login_id: str


def cookie_name(settings: WebSettings) -> str:
    """The cookie's name. Over HTTPS its prefix makes browsers take it from this host alone."""
    return "__Host-lifecycle_login" if settings.secure_cookies else "lifecycle_login"


def give_cookie(response: Response, settings: WebSettings, secret: str, key_id: str) -> None:
    """Set the cookie for a key."""
    until = int(time.time()) + settings.login
    value = _serializer(secret).dumps([key_id, secrets.token_urlsafe(16), until])
    response.set_cookie(
        cookie_name(settings), str(value), max_age=settings.login, path="/", secure=settings.secure_cookies,
        httponly=True, samesite="strict",
    )  # fmt: skip


def take_cookie(response: Response, settings: WebSettings) -> None:
    """Have the browser forget the cookie."""
    response.delete_cookie(
        cookie_name(settings), path="/", secure=settings.secure_cookies, httponly=True, samesite="strict"
    )


def read_cookie(secret: str, value: str) -> Login | None:
    """The login that a cookie holds; None where we did not sign it, or it has ended."""
    try:
        parts = _serializer(secret).loads(value)
    except BadData:
        return None
    if not isinstance(parts, list) or len(parts) != _PARTS:
        return None
    key_id, login_id, until = parts
    return Login(key_id, login_id) if until > time.time() else None


def token_for(secret: str, login_id: str) -> str:
    """The token that a page sends with what changes something; nobody else's page can read it."""
    return _signer(secret).get_signature(login_id).decode()


def token_fits(secret: str, login_id: str, token: str) -> bool:
    """Whether a token is the login's, compared in constant time."""
    return _signer(secret).verify_signature(login_id, token.encode("utf-8", "replace"))


def _serializer(secret: str) -> URLSafeSerializer:
    how = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
    return URLSafeSerializer(secret, salt="lifecycle.login", signer_kwargs=how)


def _signer(secret: str) -> Signer:
    return Signer(secret, salt="lifecycle.csrf", key_derivation="hmac", digest_method=hashlib.sha256)

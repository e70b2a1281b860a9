"""Which session of the tenant is which of ADK's: an ADK session is named by its app, its user and its id.

The session is `adk:APP/USER/ID`; state that an app's sessions share is that of `adk-app:APP`, and a user's in that app
that of `adk-user:APP/USER`. A slash or a percent sign in a name is written as in a URL. What would be longer than an id
may be is named by its digest instead.
"""

import hashlib
from typing import Final, NamedTuple

_DIGEST_BYTES: Final = 16


class Keys(NamedTuple):
    """The session ids that an ADK session's parts are kept under."""

    session: str
    app: str
    user: str

    @classmethod
    def of(cls, app_name: str, user_id: str, session_id: str = "", *, longest: int = 255) -> "Keys":
        """Those of an app's, a user's and a session's names, of at most `longest` characters each."""
        app, user, own = (_escaped(name) for name in (app_name, user_id, session_id))
        return cls(
            _key("adk", f"{app}/{user}/{own}", longest),
            _key("adk-app", app, longest),
            _key("adk-user", f"{app}/{user}", longest),
        )


def _escaped(name: str) -> str:
    return name.replace("%", "%25").replace("/", "%2F")


def _key(kind: str, name: str, longest: int) -> str:
    key = f"{kind}:{name}"
    if len(key) <= longest:
        return key
    digest = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=_DIGEST_BYTES).hexdigest()
    # No written-out name of a session or a user is without a slash; none of an app has one.
    return f"{kind}:{'/' if kind == 'adk-app' else ''}{digest}"

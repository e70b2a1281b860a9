"""Who a process is: an id that no other process has had, this one's earlier runs included."""

import os
import secrets
import socket
from typing import Final

_ID_CHARS: Final = 255
_known: dict[int, str] = {}


def incarnation(name: str | None = None) -> str:
    """A new id for this run of this process: a name or the host's, the process id, and something that never recurs."""
    end = f":{os.getpid()}:{secrets.token_hex(4)}"
    return (name or socket.gethostname())[: _ID_CHARS - len(end)] + end


def this_process() -> str:
    """The id of this process, the same at each call; a forked child has another."""
    pid = os.getpid()
    if pid not in _known:
        _known.clear()
        _known[pid] = incarnation()
    return _known[pid]

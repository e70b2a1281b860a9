"""Which core works for whom, where one caller waits for one answer after the other.

Left to itself the scheduler lets one connection's server process share the caller's core, where it is woken at once, and
another's not, for as long as it pleases. With a floor of 100 µs on the wire that is worth 40 µs, for whichever side
happens to have it: the floor's own statement took so much longer when it was sent on the manager's connection.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Final

import psutil

_CAN: Final = hasattr(os, "sched_setaffinity")


@contextlib.contextmanager
def apart(server: int) -> Iterator[bool]:
    """Keep the calling thread, and those it starts, to the first of its cores, and a server's processes on the others.

    `server` is the process id of the server; its processes to come follow. Gives whether it could be done: it takes
    Linux and two cores. Afterwards all may run where they could before.
    """
    ours = os.sched_getaffinity(0) if _CAN else set()
    if len(ours) < 2:
        yield False
        return
    theirs, first = os.sched_getaffinity(server), min(ours)
    try:
        os.sched_setaffinity(0, {first})
        _place(server, ours - {first})
        yield True
    finally:
        os.sched_setaffinity(0, ours)
        _place(server, theirs)


def _place(server: int, cores: set[int]) -> None:
    parent = psutil.Process(server)
    # The parent before its children: what it starts in between is where it should be.
    for process in (parent, *parent.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            for thread in process.threads():
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(thread.id, cores)

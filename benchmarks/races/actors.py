"""The processes of a race: each has its own way to the store, and does what the referee tells it.

An actor can be stopped in the middle of its work, as a machine that swaps, pauses or is cut off stops a process, and
goes on later without having noticed. What it is told meanwhile waits for it.
"""

import contextlib
import ctypes
import logging
import os
import signal
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Self

from benchmarks.races.entrants import Entrant
from benchmarks.races.store import Standing, Store

PATIENCE = 120.0  # seconds for an answer: far longer than any takes
_FAREWELL = 10.0
_PR_SET_PDEATHSIG = 1


class RaceFailed(Exception):
    """Something went wrong that is not a refusal, so that there is nothing to count."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one write: acknowledged, or refused with an error of this name."""

    entry: str
    refused: str | None = None


class Desk:
    """The commands, inside of the process. `enter` comes first."""

    def __init__(self) -> None:
        self._entered: Store | None = None

    def enter(self, entrant: Entrant, url: str) -> None:
        """Open a store, and close the one before."""
        self.leave()
        self._entered = entrant.open(url)

    def leave(self) -> None:
        """Close the store."""
        store, self._entered = self._entered, None
        if store is not None:
            store.close()

    def setup(self) -> None:
        """Create the tables."""
        self._store.setup()

    def create(self, sessions: Sequence[str]) -> None:
        """Create sessions."""
        for session in sessions:
            self._store.create(session)

    def take(self, sessions: Sequence[str], ttl: float, wait: float) -> dict[str, str]:
        """Begin to work on sessions: hold each, where the store has that, and read it; returns the refusals."""
        refused = {}
        for session in sessions:
            try:
                self._store.hold(session, ttl, wait)
                self._store.read(session)
            except self._store.refusals as error:
                refused[session] = type(error).__name__
        return refused

    def write(self, sessions: Sequence[str], entries: Sequence[str]) -> dict[str, list[Answer]]:
        """Write these entries to each session, one after the other, going on after a refusal."""
        return {session: [self._write(session, entry) for entry in entries] for session in sessions}

    def give_up(self, sessions: Sequence[str]) -> None:
        """Let the time of whoever holds them be over."""
        for session in sessions:
            self._store.give_up(session)

    def release(self, sessions: Sequence[str]) -> None:
        """Hold them no longer."""
        for session in sessions:
            self._store.release(session)

    def standing(self, sessions: Sequence[str]) -> dict[str, Standing]:
        """Read them as somebody who comes later."""
        return {session: self._store.standing(session) for session in sessions}

    @property
    def _store(self) -> Store:
        if self._entered is None:
            raise RuntimeError("no store was entered")
        return self._entered

    def _write(self, session: str, entry: str) -> Answer:
        try:
            self._store.write(session, entry)
        except self._store.refusals as error:
            return Answer(entry, type(error).__name__)
        return Answer(entry)


def _serve(pipe: Connection) -> None:
    # Ctrl-C is for the referee. A referee that is killed takes its actors along, stopped ones too.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # Refusals are counted; a line for each would say it again.
    logging.disable(logging.WARNING)
    desk = Desk()
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            command, arguments = pipe.recv()
            try:
                answer = getattr(desk, command)(*arguments)
            except Exception as error:  # noqa: BLE001 - it is the race that fails of it
                answer = RaceFailed(f"{command} failed: {''.join(traceback.format_exception_only(error)).strip()}")
            pipe.send(answer)
    desk.leave()


class Actor:
    """A process, seen by the referee."""

    def __init__(self) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        """The actor itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the process: in good order after a race, at once when the race was broken off."""
        if kind is not None:
            self._process.kill()
        self._pipe.close()
        self._process.join(_FAREWELL)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        self._process.close()

    def call(self, command: str, *arguments: Any) -> Any:
        """Have a command of `Desk` done, and return what it returns. Raises `RaceFailed`."""
        self.tell(command, *arguments)
        return self.answer()

    def tell(self, command: str, *arguments: Any) -> None:
        """Send a command; `answer` gives what it returns."""
        self._pipe.send((command, arguments))

    def answer(self) -> Any:
        """What the oldest command without an answer returned. Raises `RaceFailed`."""
        try:
            if not self._pipe.poll(PATIENCE):
                raise RaceFailed(f"process {self._process.pid} did not answer within {PATIENCE:g} seconds")
            answer = self._pipe.recv()
        except EOFError:
            raise RaceFailed(f"process {self._process.pid} ended in the middle of the race") from None
        if isinstance(answer, RaceFailed):
            raise answer
        return answer

    def stop(self) -> None:
        """Stop the process where it is, and return when it stands still."""
        os.kill(self._pid, signal.SIGSTOP)
        # Without being collected, so that its end can still be waited for.
        found = os.waitid(os.P_PID, self._pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        if found is None or found.si_code != os.CLD_STOPPED:
            raise RaceFailed(f"process {self._pid} ended in the middle of the race")

    def go_on(self) -> None:
        """Let it go on."""
        os.kill(self._pid, signal.SIGCONT)

    @property
    def _pid(self) -> int:
        pid = self._process.pid
        if pid is None:
            raise RaceFailed("the process was not started")
        return pid

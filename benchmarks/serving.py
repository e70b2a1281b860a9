"""Servers over HTTP as processes of their own."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
_START_SECONDS: Final = 30
_LOG_CHARACTERS: Final = 2000


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def lifecycle_serve(url: str, port: int) -> list[str]:
    """The command that serves a database."""
    return [sys.executable, "-m", "lifecycle.cli", "--url", url, "serve", "--port", str(port)]


@contextlib.contextmanager
def running(command: list[str], port: int, log: Path) -> Iterator[None]:
    """A server that accepts connections; it is ended in the end. What it says goes to a file."""
    with log.open("wb") as said:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=said, stdout=said)
        try:
            end = time.monotonic() + _START_SECONDS
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                if process.poll() is not None or time.monotonic() > end:
                    told = log.read_text(errors="replace")[-_LOG_CHARACTERS:]
                    raise RuntimeError(f"{' '.join(command)} does not answer:\n{told}")
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait()

"""A program that calls the HTTP API."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2 as httpx

ROOT: Final = Path(__file__).resolve().parents[1]
PATIENCE: Final = 60
PROBLEM: Final = "application/problem+json"


class Api:
    """A client that encodes ids, and sends paths as they are."""

    def __init__(self, url: str, **headers: str) -> None:
        self.http = httpx.Client(timeout=PATIENCE, headers=headers)
        self.base = url

    def __call__(self, method: str, path: str, /, body: Any = None, **headers: str) -> httpx.Response:
        """Send a request; names of headers have underscores."""
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.request(method, f"{self.base}/api/v1{path}", json=body, headers=more)

    def ok(self, method: str, path: str, /, body: Any = None, **headers: str) -> Any:
        """The JSON of an answer that is no refusal."""
        answer = self(method, path, body, **headers)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None


@contextlib.contextmanager
def calling(url: str, **headers: str) -> Iterator[Api]:
    """A client of a server."""
    api = Api(url, **headers)
    with api.http:
        yield api


def refused(answer: httpx.Response, status: int, error: str) -> dict[str, Any]:
    """The problem document, which must be of that kind."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM), answer.text
    problem: dict[str, Any] = answer.json()
    assert (problem["error"], problem["status"]) == (error, status)
    return problem


def raw(url: str, request: bytes) -> bytes:
    """What a server answers to bytes that no client would send."""
    place = urlsplit(url)
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=PATIENCE) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


class ServerProcess:
    """`lifecycle serve` in a process of its own, on a port that was free."""

    def __init__(self, url: str, folder: Path) -> None:
        self.log = folder / f"serve-{len(list(folder.glob('serve-*')))}.log"
        command = [sys.executable, "-m", "lifecycle.cli", "--url", url, "serve", "--port", "0"]
        more = {"PYTHONPATH": str(ROOT), "LIFECYCLE_LOGGING__FORMAT": "json"}
        with self.log.open("wb") as stderr:
            self.process = subprocess.Popen(command, cwd=folder, env=os.environ | more, stderr=stderr)
        self.url: str = until(lambda: self.events("serving"), f"the server: {self.log}")[0]["url"]
        until(self._answers, f"an answer: {self.log}")

    def events(self, name: str) -> list[dict[str, Any]]:
        """The events of a name that it logged so far."""
        assert self.process.poll() is None, self.log.read_text()
        lines = self.log.read_text().splitlines(keepends=True)
        found = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]
        return [event for event in found if event["event"] == name]

    def _answers(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/api/v1/openapi.json", timeout=PATIENCE).is_success
        return False

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self.process.kill()
        self.process.wait(PATIENCE)


@contextlib.contextmanager
def server_process(url: str, folder: Path) -> Iterator[ServerProcess]:
    """A server in a process of its own; it is gone in the end."""
    server = ServerProcess(url, folder)
    try:
        yield server
    finally:
        server.kill()


def until(condition: Callable[[], Any], what: str) -> Any:
    """Poll until the condition gives something true, and return that."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {PATIENCE} s for {what}"
        time.sleep(0.02)
    return found

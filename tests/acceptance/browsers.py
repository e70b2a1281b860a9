"""Debian's Chromium, driven by Playwright: its own browsers are not downloaded."""

from pathlib import Path
from typing import Final

from tests.servers import ServerUnavailable

CHROMIUM: Final = Path("/usr/bin/chromium")
ARGUMENTS: Final = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


def find_chromium() -> Path:
    """The path of Chromium. Raises `ServerUnavailable` where there is none."""
    if not CHROMIUM.exists():
        raise ServerUnavailable(f"Chromium is not installed; looked for {CHROMIUM}")
    return CHROMIUM

"""Pictures of every page of the dashboard, light and dark: `make screenshots` writes docs/images."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote

from playwright.sync_api import Page, sync_playwright

from lifecycle import ALL, SessionManager, migrate
from tests.acceptance.browsers import ARGUMENTS, CHROMIUM
from tests.acceptance.demo import HERO, fill

ROOT: Final = Path(__file__).parents[2]
IMAGES: Final = ROOT / "docs" / "images"
WIDE, HIGH = 1280, 860
SCHEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")
PAGES: Final = {
    "overview": "/dashboard/",
    "sessions": "/dashboard/sessions?state=active",
    "session": f"/dashboard/session?id={quote(HERO, safe='')}",
    "approvals": "/dashboard/approvals",
    "stuck": "/dashboard/stuck",
    "sweeps": "/dashboard/sweeps",
}


@contextmanager
def serving(url: str, *command: str, **settings: Any) -> Iterator[str]:
    """A process of `lifecycle` that serves a database: where it is reached. It is ended with SIGTERM."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LIFECYCLE_DATABASE__URL": url, "LIFECYCLE_WEB__PORT": "0"}
    environment |= {"LIFECYCLE_LOGGING__FORMAT": "json", **settings}
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", "lifecycle.cli", *(command or ("up",))], cwd=folder, env=environment,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stderr is not None
        said = []
        address = None
        for line in process.stderr:
            said.append(line)
            if '"serving"' in line:
                address = json.loads(line)["url"]
            if "startup complete" in line:
                break
        assert address is not None, "".join(said)
        # Read on, so that the process never waits for room to say something.
        drain = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
        try:
            yield address
        finally:
            process.terminate()
            process.wait(30)
            drain.wait(30)
            process.stderr.close()


def take(page: Page, name: str) -> None:
    """One picture, in the theme that the page has."""
    page.screenshot(path=IMAGES / f"{name}.png", animations="disabled")


def main() -> None:
    """Fill a store, serve it, and look at every page."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/demo.db"
        migrate.upgrade(url)
        fill(url)
        with serving(url) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            for scheme in SCHEMES:
                page = browser.new_page(
                    viewport={"width": WIDE, "height": HIGH}, color_scheme=scheme, timezone_id="UTC"
                )  # fmt: skip
                if scheme == "light":
                    page.goto(address + PAGES["overview"])
                    page.locator(".tile").first.wait_for()
                    page.reload()
                for name, path in PAGES.items():
                    page.goto(address + path)
                    page.locator("#stream[data-status=on]").or_(page.locator("#preview")).first.wait_for()
                    take(page, f"{name}-{scheme}")
                page.goto(address + PAGES["session"])
                page.locator("#compared").scroll_into_view_if_needed()
                page.evaluate("document.querySelector('#compared').closest('section').scrollIntoView()")
                take(page, f"session-changes-{scheme}")
                page.goto(address + PAGES["sweeps"])
                page.get_by_label("Ended at least so long ago").fill("12h")
                page.get_by_role("button", name="Preview").click()
                page.locator("#run").wait_for()
                take(page, f"sweeps-{scheme}")
                page.goto(address + "/dashboard/session?id=gone")
                take(page, f"not-found-{scheme}")
                page.set_viewport_size({"width": 390, "height": 844})
                for name in ("overview", "sessions", "session"):
                    page.goto(address + PAGES[name])
                    page.locator("h1").wait_for()
                    take(page, f"phone-{name}-{scheme}")
                page.close()
            with SessionManager.open(url, ALL) as manager:
                manager.create_key("ada", scope="admin")
            for scheme in SCHEMES:
                page = browser.new_page(viewport={"width": WIDE, "height": HIGH}, color_scheme=scheme)
                page.goto(address + "/login")
                # The process looks for a first key now and then.
                while page.get_by_label("Key").count() == 0:
                    page.goto(address + "/login")
                take(page, f"login-{scheme}")
                page.close()
            browser.close()
    for picture in sorted(IMAGES.glob("*.png")):
        print(f"{picture.relative_to(ROOT)}: {picture.stat().st_size / 1000:.0f} KB")  # noqa: T201 -- what it wrote


if __name__ == "__main__":
    main()

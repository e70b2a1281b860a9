"""The dashboard as a person on call uses it: a real Chromium on a real `lifecycle up`."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote, urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from lifecycle import ALL, SessionManager
from lifecycle.models import tables as t
from tests.acceptance.browsers import ARGUMENTS, find_chromium
from tests.acceptance.demo import APPROVAL, HERO, fill
from tests.acceptance.screenshots import ROOT, serving
from tests.conftest import _found
from tests.managers import backdate

expect.set_options(timeout=15_000)

# Whatever a session's texts hold: markup, quotes, other directions, controls, blanks, and no place to break a line.
HOSTILE: Final = (
    "<script>window.hacked = 1</script>",
    '"><img src=x onerror="window.hacked = 1">',
    "{{ 7 * 7 }}{% raw %}",
    "\u202eright to left\u202c and back",
    "\u05e9\u05dc\u05d5\u05dd " * 20,
    "../../etc/passwd",
    "..",
    "a/b//c?d=e&f#g%2F",
    "x" * 200,
    "Z" + "\u0335\u0321\u0327" * 60,
    "line\nbreak\ttab \u2028",
    "</title></textarea></template><b>",
)


class Watched:
    """A page, with everything that a browser complains of or asks from elsewhere."""

    def __init__(self, context: BrowserContext, address: str) -> None:
        self.page = context.new_page()
        self.address = address
        self.complaints: list[str] = []
        self.requests: list[str] = []
        # The browser names each page that was refused, and may do so after the test went on: said beforehand, not cleared.
        self.refusals: set[int] = set()
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def _said(self, message: Any) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(f"{message.text} {message.location.get('url')}")

    def open(self, path: str) -> Page:
        """Go to a page."""
        self.page.goto(self.address + path)
        return self.page

    def assert_quiet(self) -> None:
        """Nothing was complained of but refusals that were expected, and nothing was asked from elsewhere."""
        assert [
            said for said in self.complaints if not any(f"status of {status} " in said for status in self.refusals)
        ] == []
        foreign = {url for url in self.requests if urlsplit(url).netloc != urlsplit(self.address).netloc}
        assert foreign == set()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for the tests of this file."""
    path = _found(find_chromium)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def store(migrated_sqlite_file: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store that is filled as a busy team's."""
    file = tmp_path_factory.mktemp("demo") / "demo.db"
    file.write_bytes(migrated_sqlite_file.read_bytes())
    url = f"sqlite:///{file}"
    fill(url, 120)
    return url


@pytest.fixture(scope="module")
def address(store: str) -> Iterator[str]:
    """Where a daemon serves it."""
    with serving(store) as url:
        yield url


@pytest.fixture
def watched(browser: Browser, address: str) -> Iterator[Watched]:
    """A page of a browser without history, which nothing may upset."""
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    page = Watched(context, address)
    yield page
    context.close()
    page.assert_quiet()


def session_path(session_id: str, **more: str) -> str:
    """The path of a session's page."""
    return "/dashboard/session?" + "&".join(f"{k}={quote(v, safe='')}" for k, v in {"id": session_id, **more}.items())


def elsewhere(store: str, code: str) -> None:
    """Do something to the store in a process of its own."""
    program = f"from lifecycle import SessionManager\nwith SessionManager.open({store!r}) as manager:\n    {code}\n"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_overview(watched: Watched, store: str) -> None:
    """It shows the counts by state, both charts with their tables, the worker and its sweeps, and what waits."""
    with SessionManager.open(store) as manager:
        waiting = str(len(manager.list_approvals()))
    page = watched.open("/")
    expect(page).to_have_title("Overview · Lifecycle")
    assert page.url.endswith("/dashboard/")
    expect(page.locator(".tile")).to_have_count(7)
    expect(page.locator(".tile", has_text="to approve").locator(".figure")).to_have_text(waiting)
    for name in ("happened", "backlog"):
        chart = page.locator(f"#chart-{name}")
        expect(chart.get_by_role("img")).to_have_accessible_name(re.compile(r"at most .+; last "))
        chart.get_by_text("As a table").click()
        expect(chart.get_by_role("row").nth(1)).to_be_visible()
    expect(page.locator("#health")).to_contain_text("running")
    expect(page.locator("#health")).to_contain_text("expire idle")
    expect(page.locator("#recent li")).to_have_count(15)


def test_from_a_search_to_suspended_and_resumed(watched: Watched) -> None:
    """The list follows what is typed; the session's page offers what the machine allows, and does it."""
    page = watched.open("/dashboard/sessions")
    page.get_by_label("Title or id").press_sequentially("ORDER 1047")
    expect(page.locator("#results tbody tr")).to_have_count(1)
    expect(page).to_have_url(re.compile(r"q=ORDER\+1047"))
    page.get_by_role("link", name="Refund for order 1047").click()
    expect(page.locator("#badge")).to_have_text("active")
    page.get_by_label("Reason").fill("looked at by a person")
    page.get_by_role("button", name="Suspend").click()
    expect(page.locator("#badge")).to_have_text("suspended")
    expect(page.locator("#timeline li").first).to_contain_text("looked at by a person")
    assert page.locator("#standing button").all_text_contents() == ["Resume", "Complete", "End", "Expire"]
    expect(page.locator(".machine .state.lit")).to_have_text("suspended")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#badge")).to_have_text("active")
    expect(page.locator(".machine .state.lit")).to_have_text("active")


def test_a_whole_id_is_found_too(watched: Watched) -> None:
    """Search takes an id as it is, beside parts of titles."""
    page = watched.open(f"/dashboard/sessions?q={quote(HERO, safe='')}")
    expect(page.locator("#results tbody tr")).to_have_count(1)


def test_saved_state_and_what_changed(watched: Watched) -> None:
    """The saved state folds and opens, and differs from the checkpoint where it does."""
    page = watched.open(session_path(HERO))
    tree = page.locator("section", has=page.get_by_role("heading", name="Saved state")).locator(".tree")
    charge = tree.get_by_text('"ch_81"')
    expect(charge).to_be_hidden()
    tree.locator("summary", has_text="charges").first.click()
    expect(charge).to_be_visible()
    changed = page.locator(".diff tbody")
    expect(changed.locator("tr", has_text="context.verified")).to_contain_text("true")
    expect(changed.locator("tr", has_text="context.refund")).to_contain_text("added")
    page.get_by_label("From", exact=True).select_option("now")
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_text("Nothing differs.")).to_be_visible()


def test_a_lease_counts_down(watched: Watched, store: str) -> None:
    """Its holder, its epoch, and the time that is left; once it is given back, nobody holds it."""
    with SessionManager.open(store) as manager:
        manager.create_session(session_id="held")
        epoch = manager.acquire_lease("held", holder="runner-7", ttl=600)
        page = watched.open(session_path("held"))
        lease = page.locator("#lease")
        expect(lease).to_contain_text("runner-7")
        expect(lease.locator("[data-countdown]")).to_have_text(re.compile(r"^9 min left$"))
        manager.release_lease("held", holder="runner-7", epoch=epoch)
    expect(lease).to_contain_text("Nobody holds it")


def test_an_approval_is_granted(watched: Watched, store: str) -> None:
    """The inbox asks; the answer is kept with its note, and the session goes on."""
    page = watched.open("/dashboard/approvals")
    asked = page.locator("article", has_text="Deploy release 2.4")
    asked.get_by_label("Note").fill("tests are green")
    asked.get_by_role("button", name="Approve").click()
    expect(page.get_by_text("Approved.")).to_be_visible()
    expect(page.locator("article")).to_have_count(1)
    with SessionManager.open(store) as manager:
        (decided,) = manager.list_approvals(APPROVAL, state="approved")
        assert (decided.note, decided.resolved_by) == ("tests are green", "local")
        session = manager.get_session(APPROVAL)
        assert session is not None
        assert session.state == "active"


def test_a_prune_is_previewed_then_run(watched: Watched, store: str) -> None:
    """The preview counts and changes nothing; the run removes as many."""
    with SessionManager.open(store) as manager:
        manager.create_session(session_id="old", kind="attic")
        manager.add_message("old", "user", "long ago")
        manager.end_session("old")
    past = datetime.now(UTC) - timedelta(days=2)
    backdate(store, t.sessions, t.sessions.c.session_id == "old", ended_at=past)
    page = watched.open("/dashboard/sweeps")
    page.get_by_label("Only of the kind").fill("attic")
    page.get_by_label("Ended at least so long ago").fill("1d")
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_role("heading", name="Preview: 1 would be removed")).to_be_visible()
    with SessionManager.open(store) as manager:
        assert manager.get_session("old") is not None
    page.get_by_role("button", name="Run now").click()
    expect(page.get_by_role("heading", name="Result: 1 removed")).to_be_visible()
    with SessionManager.open(store) as manager:
        assert manager.get_session("old") is None


def test_a_duration_that_is_none_is_said(watched: Watched) -> None:
    """A wrong field is told in words, and the form keeps what was typed."""
    watched.refusals = {422}
    page = watched.open("/dashboard/sweeps")
    page.get_by_label("Ended at least so long ago").fill("soon")
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_role("alert")).to_contain_text("older_than: must be a duration")
    expect(page.get_by_label("Ended at least so long ago")).to_have_value("soon")


def test_transitions_of_another_process_appear(watched: Watched, store: str) -> None:
    """On the overview, in the list and on the session's page, without a click."""
    with SessionManager.open(store) as manager:
        manager.create_session(session_id="seen-elsewhere", title="Seen elsewhere")
    context = watched.page.context
    pages = [Watched(context, watched.address) for _ in range(2)]
    overview = watched.open("/dashboard/")
    listed = pages[0].open("/dashboard/sessions?q=seen+elsewhere")
    alone = pages[1].open(session_path("seen-elsewhere"))
    for page in (overview, listed, alone):
        expect(page.locator("#stream")).to_have_text("Live")
    elsewhere(store, "manager.suspend_session('seen-elsewhere', reason='from afar', actor='other')")
    expect(overview.locator("#recent li").first).to_contain_text("seen-elsewhere")
    expect(overview.locator("#recent li").first).to_contain_text("from afar")
    expect(overview.locator("#told")).to_contain_text("seen-elsewhere: suspend")
    expect(listed.locator("#results .badge")).to_have_text("suspended")
    expect(alone.locator("#badge")).to_have_text("suspended")
    expect(alone.locator("#timeline li").first).to_contain_text("from afar")
    for other in pages:
        other.assert_quiet()


def test_many_at_once(watched: Watched, store: str) -> None:
    """Ticked sessions are moved, each with its result; deleting them asks first."""
    with SessionManager.open(store) as manager:
        for name in ("bulk/1", "bulk/2", "bulk/3"):
            manager.create_session(session_id=name, kind="bulk")
        manager.complete_session("bulk/3")
    page = watched.open("/dashboard/sessions?kind=bulk")
    suspend = page.get_by_role("button", name="Suspend")
    expect(suspend).to_be_disabled()
    page.get_by_label("Tick all").check()
    expect(page.locator("#ticked")).to_have_text("3 ticked")
    suspend.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Suspend: 2 of 3 done")
    expect(page.get_by_role("row", name="bulk/3")).to_contain_text("cannot suspend")
    page.get_by_role("link", name="Back to the sessions").click()
    page.get_by_label("Kind").fill("bulk")
    expect(page.locator("#results tbody tr")).to_have_count(3)
    page.get_by_label("Tick bulk/1").check()
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Delete 1 session?")
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Delete: 1 of 1 done")
    with SessionManager.open(store) as manager:
        assert manager.get_session("bulk/1") is None


def test_deleting_asks_first(watched: Watched, store: str) -> None:
    """A dialog asks; what is hidden can be brought back."""
    with SessionManager.open(store) as manager:
        manager.create_session(session_id="to hide")
    page = watched.open(session_path("to hide"))
    page.get_by_role("link", name="Delete").click()
    dialog = page.get_by_role("dialog", name="Delete this session?")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.get_by_role("link", name="Delete").click()
    dialog.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Hidden")
    page.get_by_role("button", name="Bring it back").click()
    expect(page.get_by_text("The session is back.")).to_be_visible()


def test_without_script(browser: Browser, address: str, store: str) -> None:
    """Filters, moves and deleting work as plain forms."""
    with SessionManager.open(store) as manager:
        manager.create_session(session_id="plain", kind="unscripted")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/dashboard/sessions")
    page.get_by_label("Kind").fill("unscripted")
    page.get_by_role("button", name="Show").click()
    page.get_by_role("link", name="plain").click()
    page.get_by_role("button", name="Suspend").click()
    expect(page.locator("#badge")).to_have_text("suspended")
    page.get_by_role("link", name="Delete").click()
    page.get_by_label("Remove it for good").check()
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Deleted")
    context.close()
    with SessionManager.open(store) as manager:
        assert manager.get_session("plain") is None


def test_hostile_texts(watched: Watched, store: str) -> None:
    """They are shown as they are: nothing runs, nothing is injected, and no page becomes wider than the window."""
    with SessionManager.open(store) as manager:
        for text in HOSTILE:
            manager.create_session(
                session_id=text, kind="hostile", title=text, user_id=text, agent_id=text, metadata={text: text},
                config={"deep": [[[text]]]},
            )  # fmt: skip
            manager.add_message(text, "user", text * 30, agent_id=text)
            manager.save_state(text, context={text: [text]}, phase=text)
            manager.checkpoint(text, text)
            manager.request_approval(text, text, details={text: text})
            manager.suspend_session(text, reason=text, actor=text)
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    for size in ({"width": 1280, "height": 800}, {"width": 360, "height": 740}):
        watched.page.set_viewport_size(size)  # type: ignore[arg-type]
        for path in ("/dashboard/", "/dashboard/sessions?kind=hostile", "/dashboard/approvals"):
            page = watched.open(path)
            assert page.evaluate(wide) == 0, (size, path)
            assert page.evaluate("window.hacked") is None
    watched.open("/dashboard/sessions?kind=hostile")
    expect(watched.page.locator("#results tbody tr")).to_have_count(len(HOSTILE))
    for text in HOSTILE:
        page = watched.open(session_path(text))
        expect(page.locator("#badge")).to_have_text("suspended")
        assert page.locator("h1 bdi").text_content() == text
        assert page.evaluate(wide) == 0, text
        assert page.evaluate("window.hacked") is None
    with SessionManager.open(store) as manager:
        for text in HOSTILE:
            for approval in manager.list_approvals(text):
                manager.resolve_approval(text, approval.approval_id, approved=False)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_can_be_read_by_all(watched: Watched, scheme: Any) -> None:
    """Landmarks, one main heading, names for all that is operated, labels, unique ids, and enough contrast."""
    watched.page.emulate_media(color_scheme=scheme)
    paths = ("/dashboard/", "/dashboard/sessions", session_path(HERO), "/dashboard/approvals", "/dashboard/stuck",
             "/dashboard/sweeps", session_path(HERO).replace("session?", "session/delete?"))  # fmt: skip
    for path in paths:
        page = watched.open(path)
        assert page.evaluate(_AUDIT) == [], (path, scheme)


# The ratio of WCAG 2.1 (1.4.3), measured on what is painted: text against the nearest background behind it.
_AUDIT: Final = """() => {
  const wrong = [];
  const one = (n, what) => n === 1 || wrong.push(`${n} ${what}`);
  one(document.querySelectorAll("h1").length, "h1");
  one(document.querySelectorAll("main").length, "main");
  if (!document.documentElement.lang) wrong.push("no language");
  const levels = [...document.querySelectorAll("main :is(h1, h2, h3)")].map((h) => Number(h.tagName[1]));
  levels.forEach((level, i) => { if (i && level > levels[i - 1] + 1) wrong.push(`h${level} after h${levels[i - 1]}`); });
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) wrong.push(`two elements #${id}`);
  for (const e of document.querySelectorAll("input:not([type=hidden]), select, textarea")) {
    if (!e.labels.length && !e.getAttribute("aria-label")) wrong.push(`no label: ${e.outerHTML}`);
  }
  for (const e of document.querySelectorAll("button, a[href]")) {
    if (!(e.textContent.trim() || e.getAttribute("aria-label"))) wrong.push(`no name: ${e.outerHTML}`);
  }
  for (const e of document.querySelectorAll("[aria-labelledby]")) {
    for (const id of e.getAttribute("aria-labelledby").split(" ")) {
      if (!document.getElementById(id)) wrong.push(`#${id} labels and is not there`);
    }
  }
  for (const e of document.querySelectorAll("th")) if (!e.scope) wrong.push(`no scope: ${e.outerHTML}`);
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = (e) => {
    for (let at = e; at; at = at.parentElement) {
      const color = channels(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const e = node.parentElement;
    if (!node.data.trim() || !e.checkVisibility() || e.closest("svg, :disabled, script, template")) continue;
    const [a, b] = [light(channels(getComputedStyle(e).color)), light(ground(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) wrong.push(`contrast ${ratio.toFixed(2)}: ${node.data.trim().slice(0, 40)}`);
  }
  return [...new Set(wrong)];
}"""


def test_with_the_keyboard_alone(watched: Watched) -> None:
    """The first Tab skips to the content, the next ones go through it, with a focus that shows; Enter acts."""
    page = watched.open("/dashboard/sessions?kind=chat")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Title or id")).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.type("parcel")
    expect(page).to_have_url(re.compile("q=parcel"))
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.className + document.activeElement.name"))
        if "named" in seen[-1]:
            break
    assert "pick" in seen
    assert "named" in seen[-1]
    page.keyboard.press("Enter")
    expect(page.locator("#badge")).to_be_visible()


def test_the_theme_can_be_chosen(watched: Watched) -> None:
    """The button turns the theme over, and the next page keeps it."""
    watched.page.emulate_media(color_scheme="light")
    page = watched.open("/dashboard/")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    before = page.evaluate(ground)
    page.get_by_role("button", name="Dark theme").click()
    after = page.evaluate(ground)
    assert before != after
    watched.open("/dashboard/sessions")
    assert page.evaluate(ground) == after
    expect(page.get_by_role("button", name="Light theme")).to_be_visible()


def test_pages_of_errors(watched: Watched) -> None:
    """What is not there, or cannot be asked, is a page of ours with its status and no trace of code."""
    watched.refusals = {404, 422}
    for path, status, says in (
        ("/dashboard/nowhere", 404, "There is no such page"),
        (session_path("never was"), 404, "never was"),
        ("/dashboard/session", 422, "id"),
        (session_path(HERO, one="x"), 422, "compare a checkpoint's number"),
        ("/dashboard/sessions?state=odd", 422, "state must be one of"),
        ("/dashboard/sessions?cursor=odd", 422, "cursor"),
    ):
        answer = watched.page.goto(watched.address + path)
        assert answer is not None
        assert answer.status == status, path
        expect(watched.page.locator("main")).to_contain_text(re.compile(re.escape(says), re.IGNORECASE))
        assert "Traceback" not in watched.page.content()


def test_a_form_without_its_token_is_refused(watched: Watched, store: str) -> None:
    """What another site would send changes nothing."""
    watched.refusals = {403}
    page = watched.open(session_path(HERO))
    page.get_by_role("button", name="Complete").evaluate(
        "(button) => { button.form.elements.csrf_token.value = 'guessed'; button.form.requestSubmit(button); }"
    )
    expect(page.get_by_role("heading", level=1)).to_have_text("Not with this key")
    with SessionManager.open(store) as manager:
        session = manager.get_session(HERO)
        assert session is not None
        assert session.state == "active"


@pytest.fixture
def locked(migrated_sqlite_url: str) -> tuple[str, Callable[..., str]]:
    """A store with a session of each of two tenants, and what makes keys for it."""
    for tenant in ("red", "blue"):
        with SessionManager.open(migrated_sqlite_url, tenant) as manager:
            manager.create_session(session_id=f"{tenant}-1", title=f"Of {tenant}")

    def key(tenant: Any, scope: str) -> str:
        with SessionManager.open(migrated_sqlite_url, tenant) as manager:
            return str(manager.create_key("grace", scope=scope).key)

    return migrated_sqlite_url, key


def test_who_has_no_key_is_refused(browser: Browser, locked: tuple[str, Callable[..., str]]) -> None:
    """Every page leads to the form; a wrong key is refused; a right one opens what it is for, until the log-out."""
    url, key = locked
    text = key("red", "read")
    with serving(url, "serve") as address:
        context = browser.new_context()
        page = Watched(context, address)
        for path in ("/", "/dashboard/", "/dashboard/sessions", session_path("red-1"), "/dashboard/sweeps"):
            page.open(path)
            expect(page.page.get_by_label("Key")).to_be_visible()
            assert "red-1" not in page.page.content().replace("session%3Fid%3Dred-1", "").replace("id=red-1", "")
        page.open(session_path("red-1"))
        page.page.get_by_label("Key").fill("lc_0000000000000000_wrong")
        page.page.get_by_role("button", name="Log in").click()
        expect(page.page.get_by_role("alert")).to_contain_text("opens nothing")
        page.page.get_by_label("Key").fill(text)
        page.page.get_by_role("button", name="Log in").click()
        expect(page.page.get_by_role("heading", level=1)).to_have_text("Of red")
        expect(page.page.get_by_role("button", name="Suspend")).to_have_count(0)
        answer = page.page.goto(address + session_path("blue-1", tenant="blue"))
        assert answer is not None
        assert answer.status == 404
        page.page.goto(address + "/dashboard/sessions")
        expect(page.page.locator("#results tbody tr")).to_have_count(1)
        expect(page.page.locator("#stream")).to_have_text("Live")
        page.page.get_by_role("button", name="Log out").click()
        page.open("/dashboard/sessions")
        expect(page.page.get_by_label("Key")).to_be_visible()
        context.close()


def test_one_tenant_of_all(watched: Watched, store: str) -> None:
    """Who may see every tenant does, filters by one, or looks at one alone."""
    for tenant in ("red", "blue"):
        with SessionManager.open(store, tenant) as manager:
            manager.create_session(session_id="same id", title=f"Of {tenant}", kind="tenants")
    page = watched.open("/dashboard/sessions?kind=tenants")
    expect(page.locator("#results tbody tr")).to_have_count(2)
    page.get_by_label("Tenant", exact=True).fill("blue")
    expect(page.locator("#results tbody tr")).to_have_count(1)
    page.get_by_role("link", name="Of blue").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Of blue")
    page.get_by_role("button", name="Suspend").click()
    expect(page.locator("#badge")).to_have_text("suspended")
    page.get_by_label("Tenant (* for all)").fill("red")
    page.get_by_label("Tenant (* for all)").press("Enter")
    expect(page).to_have_title("Overview · Lifecycle")
    page.get_by_role("link", name="Sessions", exact=True).click()
    expect(page.locator("#results tbody tr")).to_have_count(1)
    expect(page.locator("#results .badge")).to_have_text("active")


def test_the_database_is_away(browser: Browser, postgres_server: Any, postgres_template: str) -> None:
    """A page says so, and comes back with the database; no trace of code is shown."""
    name = "dashboard_away"
    url = postgres_server.create_database(name, template=postgres_template)
    with serving(url, "serve", LIFECYCLE_DATABASE__CONNECT_TIMEOUT="1s") as address:
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"{address}/dashboard/sessions")
        expect(page.get_by_text("No sessions yet")).to_be_visible()
        postgres_server.drop_database(name)
        answer = page.goto(f"{address}/dashboard/sessions")
        assert answer is not None
        assert answer.status == 503
        expect(page.get_by_role("heading", level=1)).to_have_text("The database is away")
        assert "Traceback" not in page.content()
        postgres_server.create_database(name, template=postgres_template)
        # The page tries again by itself.
        expect(page.get_by_text("No sessions yet")).to_be_visible(timeout=30_000)
        context.close()
    postgres_server.drop_database(name)


def test_events_data_is_what_the_script_reads(store: str) -> None:
    """The names that live.js takes from an event are those of a transition."""
    from lifecycle.models.events import TransitionEvent

    script = (ROOT / "lifecycle/web/dashboard/static/live.js").read_text()
    read = set(re.findall(r"\bevent\.([a-z_]+)", script))
    assert read <= set(TransitionEvent.model_fields), json.dumps(sorted(read))
    with SessionManager.open(store, ALL) as manager:
        assert manager.recent_transitions(limit=1)

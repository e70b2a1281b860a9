"""Names of session directories: keys, transcripts, archives, ids in the database, and what is protected."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.directories import layout
from lifecycle.directories.guard import CALLER, Guard
from lifecycle.directories.layout import Facts
from lifecycle.settings.directories import parse_size


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("agent:a:main", "chat"),
        ("agent:a:telegram:group:-100", "chat"),
        ("agent:a:cron:nightly", "cron"),
        ("agent:a:cron:nightly:run:7f0c", "run"),
        ("agent:a:subagent:7f0c", "subagent"),
        ("cron:nightly", "cron"),
        ("cron:run", "cron"),
        ("hook:7f0c", "hook"),
        ("", "chat"),
    ],
)
def test_a_key_says_its_kind(key: str, kind: str) -> None:
    """The part behind the agent decides."""
    assert layout.kind_of([key]) == kind


def test_of_several_keys_the_one_that_is_kept_longest_counts() -> None:
    """A chat that a job points at too is a chat; a job with its run is a job."""
    assert layout.kind_of(["agent:a:cron:x", "agent:a:main"]) == "chat"
    assert layout.kind_of(["agent:a:cron:x:run:1", "agent:a:cron:x"]) == "cron"
    assert layout.kind_of([]) == "chat"


@pytest.mark.parametrize(
    ("name", "session"),
    [("s1.jsonl", "s1"), ("s1-topic-9.jsonl", "s1"), ("a.b.jsonl", "a.b"), ("-topic-1.jsonl", "-topic-1")],
)
def test_a_transcript_names_its_session(name: str, session: str) -> None:
    """Threads belong to the session they are threads of."""
    assert layout.session_of(name) == session


names = st.text(st.characters(exclude_characters="/\x00", exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(names, names, st.integers(1, 3), names, names, st.integers(1, 3))
def test_no_two_sessions_share_an_id_in_the_database(
    agent: str, session: str, life: int, other_agent: str, other: str, other_life: int
) -> None:
    """Whatever agents and sessions are called, colons and tildes too."""
    same = (agent, session, life) == (other_agent, other, other_life)
    one = layout.database_id(agent, session, life)
    assert (one == layout.database_id(other_agent, other, other_life)) == same


def test_ids_in_the_database_are_readable() -> None:
    """The agent, a colon, the session; the second life has a number."""
    assert layout.database_id("main", "7f0c") == "main:7f0c"
    assert layout.database_id("main", "7f0c", 2) == "main:7f0c~2"
    assert layout.database_id("a:b", "c~2") == "a%3Ab:c%7E2"


def test_an_archive_has_its_time_in_its_name() -> None:
    """Colons are dashes, and it is read back; a name without a time falls back on the file's."""
    at = datetime(2026, 11, 21, 7, 0, 1, 250_000, tzinfo=UTC)
    name = layout.archive_name("s1.jsonl", "deleted", at)
    assert name == "s1.jsonl.deleted.2026-11-21T07-00-01.250Z"
    facts = Facts(1, 2, 5_000_000_000)
    assert layout.archived_at(name, facts) == at.timestamp()
    assert layout.archived_at("s1.jsonl.reset.2026-11-21T07-00-01Z", facts) == at.timestamp() - 0.25
    assert layout.archived_at("s1.jsonl.deleted.someday", facts) == 5.0
    assert layout.archived_at("s1.jsonl.deleted.2026-99-99T07-00-01Z", facts) == 5.0


def test_main_sessions_protected_ones_and_the_callers_own_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """By id on disk, by id in the database, by key, by pattern; only force goes over it."""
    monkeypatch.setenv(CALLER, "mine")
    guard = Guard(["kept", "agent:a:telegram:*"])

    def stays(session: str, *keys: str) -> bool:
        return guard.reason("a", session, keys) is not None

    assert stays("s", "agent:a:main")
    assert not stays("s", "agent:b:main")
    assert stays("mine")
    assert stays("kept")
    assert stays("s", "agent:a:telegram:group:1")
    assert not stays("s", "agent:a:cron:1")
    monkeypatch.setenv(CALLER, "a:s")
    assert Guard([]).reason("a", "s", []) is not None
    assert Guard(["s"], force=True).reason("a", "s", ["agent:a:main"]) is None


@pytest.mark.parametrize(
    ("text", "size"), [("5GB", 5 * 10**9), ("500mb", 5 * 10**8), ("2 GiB", 2**31), ("1.5K", 1500), ("7", 7), (7, 7)]
)
def test_sizes_are_written_with_units(text: str | int, size: int) -> None:
    """Powers of ten, and of two with an i."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "5 apples", "GB", True, 0, 1.5, "1e9"])
def test_what_is_no_size_is_refused(text: object) -> None:
    """With what is allowed."""
    with pytest.raises(ValueError, match=r"such as 500MB|must be a number"):
        parse_size(text)

"""`sessions.json`: read, cut without touching what stays, and replaced without losing what others write."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.directories.index import parse, read_index
from lifecycle.directories.layout import BrokenIndex, facts_of
from lifecycle.directories.locking import locked
from lifecycle.directories.replacement import exchange, replace
from lifecycle.errors import Conflict

values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def index_of(path: Path, text: str) -> Path:
    """Write an index."""
    path.write_text(text, encoding="utf-8", newline="")
    return path


@given(st.dictionaries(st.text(), values, max_size=6), st.sampled_from([None, 2, "\t"]), st.booleans(), st.data())
def test_a_cut_index_is_what_stays(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any], indent: Any, ascii_only: bool, data: Any
) -> None:
    """Whatever is in it and however it is written; and without a cut it is the same bytes."""
    text = json.dumps(content, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    path = tmp_path_factory.getbasetemp() / f"index-{os.getpid()}.json"
    path.write_bytes(text)
    index = read_index(path)
    assert index.without(set()) == text
    gone = data.draw(st.sets(st.sampled_from(sorted(content)))) if content else set()
    left = json.loads(index.without(gone).decode("utf-8", "surrogatepass"))
    assert left == {key: value for key, value in content.items() if key not in gone}


def test_what_stays_is_not_written_anew(tmp_path: Path) -> None:
    """Numbers, escapes and blanks of the members that stay are as they were."""
    text = '{ "a": {"n": 1.0e2, "t": "\\u00e9", "big": 123456789012345678901},\n"b":{"sessionId":"s"} ,"c" : {} }\n'
    cut = read_index(index_of(tmp_path / "i", text)).without({"b"}).decode()
    assert cut == '{ "a": {"n": 1.0e2, "t": "\\u00e9", "big": 123456789012345678901} ,"c" : {} }\n'
    assert read_index(index_of(tmp_path / "i", text)).without({"a"}).decode().startswith('{ "b":{"sessionId":"s"}')
    assert json.loads(read_index(index_of(tmp_path / "i", text)).without({"a", "b", "c"})) == {}


def test_several_keys_make_one_session_and_the_last_of_a_double_key_counts(tmp_path: Path) -> None:
    """As for a reader that parses the whole; cutting the key cuts both."""
    text = '{"k": {"sessionId": "old"}, "k": {"sessionId": "s"}, "l": {"sessionId": "s"}, "m": {"x": 1}, "n": 3}'
    index = read_index(index_of(tmp_path / "i", text))
    assert {name: list(keys) for name, keys in index.sessions.items()} == {"s": ["k", "l"]}
    assert index.malformed == ["m", "n"]
    assert json.loads(index.without({"k"})) == {"l": {"sessionId": "s"}, "m": {"x": 1}, "n": 3}


@pytest.mark.parametrize("text", ["", "{", '{"a": 1', '{"a" 1}', "[]", '{"a": 1,}', '{"a": 1} x', '{"a": }', "{1: 2}"])
def test_a_torn_index_says_where(tmp_path: Path, text: str) -> None:
    """The error names the file and the character."""
    with pytest.raises(BrokenIndex, match=r"i is no JSON object: expected .* at character \d"):
        read_index(index_of(tmp_path / "i", text))


def test_hostile_nesting_is_an_error_and_no_crash(tmp_path: Path) -> None:
    """Deep lists are refused."""
    with pytest.raises(BrokenIndex, match="nested too deep"):
        read_index(index_of(tmp_path / "i", '{"a": ' + "[" * 100_000))


def test_no_index_is_an_empty_one(tmp_path: Path) -> None:
    """Without a file there are no keys."""
    assert read_index(tmp_path / "none").members == []
    assert parse("  { } ") == []


def test_a_session_id_that_is_a_path_is_none(tmp_path: Path) -> None:
    """Nothing outside of the directory is ever reached by an id."""
    index = read_index(index_of(tmp_path / "i", '{"k": {"sessionId": "../../etc/passwd"}}'))
    assert index.sessions == {}
    assert index.malformed == ["k"]


class TestReplacing:
    """The new content takes the place of the version it was made from, and of no other."""

    def test_it_takes_the_place_of_what_was_seen(self, tmp_path: Path) -> None:
        """Mode and content are as expected, and nothing is left beside it."""
        path = index_of(tmp_path / "i", "old")
        path.chmod(0o640)
        assert replace(path, b"new", facts_of(path.stat()))
        assert path.read_bytes() == b"new"
        assert path.stat().st_mode & 0o777 == 0o640
        assert os.listdir(tmp_path) == ["i"]  # noqa: PTH208 -- names

    def test_a_version_that_came_in_between_stays(self, tmp_path: Path) -> None:
        """Seen is another one: nothing is replaced."""
        path = index_of(tmp_path / "i", "old")
        seen = facts_of(path.stat())
        index_of(tmp_path / "j", "theirs").rename(path)
        assert not replace(path, b"new", seen)
        assert path.read_text() == "theirs"
        assert os.listdir(tmp_path) == ["i"]  # noqa: PTH208

    def test_a_version_that_comes_right_before_the_exchange_goes_back_in(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between the last look and the exchange another process writes: what it wrote is there afterwards."""
        from lifecycle.directories import replacement

        path = index_of(tmp_path / "i", "old")
        seen = facts_of(path.stat())
        real, turns = replacement.exchange, []

        def late(one: Path, other: Path) -> bool:
            turns.append(one)
            if len(turns) <= 2:  # once before ours goes in, once before theirs goes back
                index_of(tmp_path / "j", f"theirs {len(turns)}").rename(path)
            return real(one, other)

        monkeypatch.setattr(replacement, "exchange", late)
        assert not replace(path, b"ours", seen)
        assert path.read_text() == "theirs 2"
        assert len(turns) == 3
        assert os.listdir(tmp_path) == ["i"]  # noqa: PTH208

    def test_a_file_that_is_gone_is_not_made(self, tmp_path: Path) -> None:
        """The other process removed it."""
        path = index_of(tmp_path / "i", "old")
        seen = facts_of(path.stat())
        path.unlink()
        assert not replace(path, b"new", seen)
        assert not path.exists()

    def test_without_the_exchange_a_plain_rename_does_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the system has no such call."""
        from lifecycle.directories import replacement

        monkeypatch.setattr(replacement, "_renameat2", lambda: None)
        path = index_of(tmp_path / "i", "old")
        assert replace(path, b"new", facts_of(path.stat()))
        assert path.read_bytes() == b"new"
        assert not replace(path, b"newer", facts_of(tmp_path.stat()))

    def test_files_are_exchanged_in_one_step_here(self, tmp_path: Path) -> None:
        """Linux has the call; the tests rely on it."""
        one, other = index_of(tmp_path / "1", "one"), index_of(tmp_path / "2", "other")
        assert exchange(one, other)
        assert (one.read_text(), other.read_text()) == ("other", "one")


class TestLock:
    """One process at a time, and nobody waits for the dead."""

    def test_the_agents_own_lock_is_respected(self, tmp_path: Path) -> None:
        """While a living process has it, it is not taken."""
        index = tmp_path / "sessions.json"
        lock = tmp_path / "sessions.json.lock"
        lock.write_text(json.dumps({"pid": os.getpid(), "startedAt": 1}))
        with pytest.raises(Conflict, match=r"sessions.json.lock is held by another process"), locked(index, 0.05):
            pass
        assert lock.exists()

    def test_it_is_theirs_to_see_while_it_is_held(self, tmp_path: Path) -> None:
        """It names this process, and is gone afterwards."""
        index = tmp_path / "sessions.json"
        with locked(index, 1):
            assert json.loads((tmp_path / "sessions.json.lock").read_text())["pid"] == os.getpid()
        assert not (tmp_path / "sessions.json.lock").exists()

    def test_that_of_a_dead_process_is_removed(self, tmp_path: Path) -> None:
        """At once if it was of this host; else after a while, as another container has other pids."""
        with subprocess.Popen([sys.executable, "-c", ""]) as dead:
            pass
        lock, index = tmp_path / "sessions.json.lock", tmp_path / "sessions.json"
        lock.write_text(json.dumps({"pid": dead.pid, "host": socket.gethostname()}))
        with locked(index, 0.05):
            pass
        for other in ({}, {"host": "elsewhere"}):
            lock.write_text(json.dumps({"pid": dead.pid, **other}))
            with pytest.raises(Conflict), locked(index, 0.05):
                pass
            os.utime(lock, (1, 1))
            with locked(index, 0.05):
                pass

    def test_one_without_a_pid_is_removed_when_it_is_old(self, tmp_path: Path) -> None:
        """A minute is longer than any of its holders takes it for."""
        lock = tmp_path / "sessions.json.lock"
        lock.write_text("")
        with pytest.raises(Conflict), locked(tmp_path / "sessions.json", 0.05):
            pass
        os.utime(lock, (1, 1))
        with locked(tmp_path / "sessions.json", 1):
            pass

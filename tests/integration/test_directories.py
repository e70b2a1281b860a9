"""Session directories on every store: what is on disk is in the database, once, whatever happens in between."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lifecycle import (
    Conflict,
    InvalidArgument,
    SessionManager,
    SessionNotFound,
    SessionProtected,
    Settings,
    StorageUnavailable,
)
from lifecycle.directories import SessionDirectory, SyncReport, removal
from lifecycle.directories.guard import CALLER
from lifecycle.directories.sync import Synchronizer
from lifecycle.models import tables as t
from lifecycle.settings.directories import DirectoriesSettings
from lifecycle.upkeep import Upkeep
from tests.managers import backdate as backdate_rows
from tests.session_directories import append, backdate, dump, entry, generate, header, message, read_index, write_index

HOUR = 3600
TOP = Path(__file__).resolve().parents[2]


@pytest.fixture
def manager(migrated_url: str) -> Iterator[SessionManager]:
    """A manager on every store in turn."""
    with SessionManager.open(migrated_url) as opened:
        yield opened


@pytest.fixture
def one(migrated_sqlite_url: str) -> Iterator[SessionManager]:
    """A manager on SQLite, for what is the same on every store."""
    with SessionManager.open(migrated_sqlite_url) as opened:
        yield opened


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with an agent that has nothing yet."""
    (tmp_path / "root/agents/a/sessions").mkdir(parents=True)
    return tmp_path / "root"


def folder(root: Path, agent: str = "a") -> Path:
    """Where an agent's sessions are."""
    return root / "agents" / agent / "sessions"


def sync(manager: SessionManager, root: Path) -> SyncReport:
    """Sync as a new process does, which knows nothing from before."""
    return SessionDirectory(root, manager).sync()


def said(manager: SessionManager, session_id: str) -> list[Any]:
    """What a session's messages say, in order."""
    return [one.content for one in manager.get_messages(session_id, limit=500)]


def state(manager: SessionManager, session_id: str) -> str | None:
    """The state of a session, None for none."""
    found = manager.get_session(session_id)
    return None if found is None else found.state


class TestSync:
    """From disk into the database."""

    def test_all_of_it_arrives_once(self, manager: SessionManager, tmp_path: Path) -> None:
        """Every session has as many messages as the generator wrote; a second sync opens nothing and changes nothing."""
        made = generate(tmp_path / "root", sessions=60, agents=3)
        first = sync(manager, made.root)
        assert first.created == first.sessions == made.sessions + made.orphans
        assert (first.messages, first.malformed, first.torn) == (made.messages, made.malformed, made.torn)
        assert (first.failed, first.ended, first.orphans, first.complete) == (0, 0, made.orphans, True)
        found = {name: manager.get_session(name) for name in made.by_session}
        assert {name: row.message_count for name, row in found.items() if row} == made.by_session
        second = sync(manager, made.root)
        assert (second.created, second.updated, second.ended, second.messages) == (0, 0, 0, 0)
        assert (second.transcripts_opened, second.transcript_bytes) == (0, 0)
        assert second.unchanged == first.sessions
        assert {name: manager.get_session(name) for name in made.by_session} == found

    def test_entries_and_unknown_fields_are_in_the_metadata(self, manager: SessionManager, root: Path) -> None:
        """By key, as they stand in the index; kind, agent, title and parent are columns."""
        known = entry("s", displayName="The  chat", unknown={"deep": [1, 2.5, None]}, totalTokens=7)
        write_index(folder(root), {"agent:a:cron:x": known, "agent:a:cron:x:run:1": known})
        dump(folder(root) / "s.jsonl", [header("s", parentSession="/x/agents/b/sessions/p.jsonl"), message(0, "hi")])
        sync(manager, root)
        found = manager.get_session("a:s")
        assert found is not None
        assert (found.kind, found.agent_id, found.title, found.parent_id) == ("cron", "a", "The chat", "b:p")
        assert found.metadata["entries"] == {"agent:a:cron:x": known, "agent:a:cron:x:run:1": known}
        assert found.metadata["directory"]["keys"] == ["agent:a:cron:x", "agent:a:cron:x:run:1"]
        assert found.expires_at is None

    def test_what_grows_is_read_from_where_it_was_left(self, manager: SessionManager, root: Path) -> None:
        """One file of many is opened, and little more than its new lines is read."""
        for i in range(5):
            dump(folder(root) / f"s{i}.jsonl", [header(f"s{i}"), *(message(n, f"m{n}" * 100) for n in range(40))])
        write_index(folder(root), {f"agent:a:chat:group:{i}": entry(f"s{i}") for i in range(5)})
        sync(manager, root)
        append(folder(root) / "s3.jsonl", message(40, "new"), torn='{"type": "mess')
        done = sync(manager, root)
        assert (done.updated, done.messages, done.transcripts_opened, done.torn) == (1, 1, 1, 1)
        assert done.transcript_bytes < 6000
        append(folder(root) / "s3.jsonl", 'age", "id": "z", "message": {"role": "user", "content": "whole"}}')
        assert sync(manager, root).messages == 1
        assert said(manager, "a:s3")[-2:] == ["new", "whole"]

    def test_a_rewritten_file_is_read_anew_and_nothing_is_doubled(self, manager: SessionManager, root: Path) -> None:
        """What is new is added, what changed stands beside what it was, what is gone stays in the history."""
        path = dump(folder(root) / "s.jsonl", [header("s"), *(message(i, f"m{i}") for i in range(6))])
        sync(manager, root)
        dump(path, [header("s"), message(4, "m4"), message(5, "m5, edited"), message(6, "m6")])
        done = sync(manager, root)
        assert (done.updated, done.messages) == (1, 2)
        assert said(manager, "a:s") == ["m0", "m1", "m2", "m3", "m4", "m5", "m5, edited", "m6"]
        assert sync(manager, root).updated == 0
        dump(path, [header("s"), message(4, "m4")])
        assert sync(manager, root).messages == 0
        append(path, message(7, "m7"))
        assert sync(manager, root).messages == 1

    def test_an_edit_under_a_known_id_in_what_was_appended_is_kept(self, manager: SessionManager, root: Path) -> None:
        """The tail repeats an id with another content: both are there, and a repeat of the same is not."""
        path = dump(folder(root) / "s.jsonl", [header("s"), message(0, "m0"), message(1, "m1")])
        sync(manager, root)
        append(path, message(1, "other"), message(1, "m1"), message(2, "m2"))
        assert sync(manager, root).messages == 2
        assert said(manager, "a:s") == ["m0", "m1", "other", "m2"]
        assert sync(manager, root).updated == 0

    def test_what_fits_nowhere_is_stored_in_pieces(self, manager: SessionManager, root: Path) -> None:
        """Too long, too much metadata, no Unicode: every byte is there, in order, and no repeat doubles it."""
        long = "x" * 250_000 + "é"
        entries = [message(0, "a"), message(1, long), message(2, "b\ud800"), message(3, "c", more="y" * 70_000)]
        path = dump(folder(root) / "s.jsonl", [header("s"), *entries, message(4, [{"type": "text", "text": "d"}])])
        sync(manager, root)
        messages = manager.get_messages("a:s", limit=500)
        wholes: dict[str, str] = {}
        for one_ in messages:
            if "pieces" in one_.metadata:
                name = one_.message_id.partition("/")[0]
                wholes[name] = wholes.get(name, "") + one_.content
        parsed = {name: json.loads(text) for name, text in wholes.items()}
        assert parsed["00000001"]["content"] == long
        assert parsed["00000002"]["content"] == "b\ud800"
        assert parsed["00000003"]["metadata"]["more"] == "y" * 70_000
        assert (messages[0].content, messages[-1].content) == ("a", [{"type": "text", "text": "d"}])
        text = path.read_text()
        path.unlink()
        path.write_text(text)
        assert sync(manager, root).messages == 0

    def test_many_messages_go_in_portions(self, manager: SessionManager, root: Path) -> None:
        """More than one call may add."""
        dump(folder(root) / "s.jsonl", [header("s"), *(message(i, f"m{i}") for i in range(2500))])
        assert sync(manager, root).messages == 2500
        found = manager.get_session("a:s")
        assert found is not None
        assert found.message_count == found.metadata["directory"]["messages"] == 2500
        assert sync(manager, root).transcripts_opened == 0

    def test_what_vanished_is_ended_and_its_history_stays(self, manager: SessionManager, root: Path) -> None:
        """With its key and its file; an agent that is gone takes all its sessions with it."""
        for agent in ("a", "b"):
            dump(folder(root, agent) / "s.jsonl", [header("s"), message(0, "m0")])
            write_index(folder(root, agent), {f"agent:{agent}:main": entry("s"), "hook:1": entry("bare")})
        sync(manager, root)
        write_index(folder(root), {})
        (folder(root) / "s.jsonl").unlink()
        assert sync(manager, root).ended == 2
        assert [state(manager, name) for name in ("a:s", "a:bare", "b:s", "b:bare")] == [
            "ended", "ended", "active", "active",
        ]  # fmt: skip
        assert said(manager, "a:s") == ["m0"]
        for path in folder(root, "b").iterdir():
            path.unlink()
        folder(root, "b").rmdir()
        assert sync(manager, root).ended == 2
        assert sync(manager, root).ended == 0

    def test_a_key_that_goes_leaves_an_orphan(self, manager: SessionManager, root: Path) -> None:
        """As long as its transcript is there, a session is not ended."""
        dump(folder(root) / "s.jsonl", [header("s"), message(0, "m0")])
        write_index(folder(root), {"hook:1": entry("s")})
        sync(manager, root)
        write_index(folder(root), {})
        done = sync(manager, root)
        assert (done.updated, done.ended, done.orphans) == (1, 0, 1)
        found = manager.get_session("a:s")
        assert found is not None
        assert (found.state, found.kind, found.metadata["directory"]["keys"]) == ("active", "hook", [])

    @pytest.mark.parametrize("text", ['{"hook:1": {"sessionId": "s"', None])
    def test_a_torn_or_missing_index_ends_nothing(self, manager: SessionManager, root: Path, text: str | None) -> None:
        """It is reported; when it is whole again, all is as before."""
        index = write_index(folder(root), {"hook:1": entry("bare")})
        whole = index.read_text()
        sync(manager, root)
        index.unlink()
        if text is not None:
            index.write_text(text)
        done = sync(manager, root)
        assert (done.ended, done.problem_count) == (0, 1)
        assert str(index) in done.problems[0].where
        index.write_text(whole)
        assert sync(manager, root).problem_count == 0
        assert state(manager, "a:bare") == "active"

    def test_agents_with_the_same_session_ids_do_not_meet(self, manager: SessionManager, root: Path) -> None:
        """Each has its own session in the database."""
        for agent in ("a", "b", "a:b"):
            dump(folder(root, agent) / "s.jsonl", [header("s"), message(0, f"of {agent}")])
        assert sync(manager, root).created == 3
        assert [said(manager, name) for name in ("a:s", "b:s", "a%3Ab:s")] == [["of a"], ["of b"], ["of a:b"]]

    def test_topics_and_overrides_belong_to_their_session(self, manager: SessionManager, root: Path) -> None:
        """Threads beside the transcript, and a transcript under another name; what lies outside of the root is refused."""
        outside = dump(root.parent / "outside.jsonl", [message(9, "not ours")])
        dump(folder(root) / "s.jsonl", [header("s"), message(0, "own")])
        dump(
            folder(root) / "s-topic-7.jsonl", [header("s"), message(0, "own"), message(0, "topic"), message(1, "more")]
        )
        dump(folder(root) / "other.jsonl", [header("t"), message(0, "elsewhere")])
        write_index(folder(root), {
            "k": entry("s"),
            "l": entry("t", sessionFile="/somewhere/else/agents/a/sessions/other.jsonl"),
            "m": entry("u", sessionFile=str(outside)),
        })  # fmt: skip
        done = sync(manager, root)
        assert said(manager, "a:s") == ["own", "topic", "more"]
        assert said(manager, "a:t") == ["elsewhere"]
        assert said(manager, "a:u") == []
        assert [problem.reason for problem in done.problems] == [f"sessionFile {str(outside)!r} is outside of {root}"]
        assert done.orphans == 0

    def test_a_session_that_comes_back_lives_anew(self, manager: SessionManager, root: Path) -> None:
        """Ended ones stay ended: what comes behind is a session of its own, whose parent it is."""
        path = dump(folder(root) / "s.jsonl", [header("s"), message(0, "m0")])
        sync(manager, root)
        manager.end_session("a:s", reason="an operator's")
        assert sync(manager, root).created == 0
        append(path, message(1, "m1"))
        assert sync(manager, root).created == 1
        again = manager.get_session("a:s~2")
        assert again is not None
        assert (again.parent_id, again.state, said(manager, "a:s~2")) == ("a:s", "active", ["m1"])
        append(path, message(2, "m2"))
        assert (sync(manager, root).messages, sync(manager, root).updated) == (1, 0)
        assert (said(manager, "a:s"), said(manager, "a:s~2")) == (["m0"], ["m1", "m2"])

    def test_an_expired_session_that_goes_on_is_opened_again(self, manager: SessionManager, root: Path) -> None:
        """Its new messages are its own."""
        path = dump(folder(root) / "s.jsonl", [header("s"), message(0, "m0")])
        sync(manager, root)
        manager.expire_session("a:s")
        append(path, message(1, "m1"))
        sync(manager, root)
        assert (state(manager, "a:s"), said(manager, "a:s")) == ("active", ["m0", "m1"])

    def test_a_session_on_disk_is_no_ghost(self, manager: SessionManager, migrated_url: str, root: Path) -> None:
        """Without messages and without a transcript too: the ghosts' sweep leaves it."""
        write_index(folder(root), {"hook:1": entry("bare")})
        dump(folder(root) / "empty.jsonl", [header("empty")])
        sync(manager, root)
        if not migrated_url.startswith("jsonl"):
            backdate_rows(migrated_url, t.sessions, created_at=_long_ago(), last_active_at=_long_ago())
        assert manager.delete_ghosts().count == 0
        assert manager.expire_idle().count == 0
        assert state(manager, "a:bare") == state(manager, "a:empty") == "active"

    def test_what_others_keep_in_the_metadata_stays(self, manager: SessionManager, root: Path) -> None:
        """And what has no room is named, not cut."""
        path = dump(folder(root) / "s.jsonl", [header("s"), message(0)])
        write_index(folder(root), {"k": entry("s", small=1, large="x" * 80_000)})
        done = sync(manager, root)
        assert "no room in its metadata (limits.metadata_bytes) for k large (80,002 bytes)" in done.problems[0].reason
        found = manager.get_session("a:s")
        assert found is not None
        assert found.metadata["entries"]["k"]["small"] == 1
        assert found.metadata["directory"]["left_out"] == {"k large": 80_002}
        manager.update_session("a:s", metadata=found.metadata | {"mine": 1})
        append(path, message(1))
        assert sync(manager, root).updated == 1
        found = manager.get_session("a:s")
        assert found is not None
        assert found.metadata["mine"] == 1
        assert sync(manager, root).updated == 0

    def test_one_session_that_is_refused_does_not_stop_the_others(self, one: SessionManager, root: Path) -> None:
        """Somebody else's, a leased one, a soft-deleted one, one of another root: each is named and tried again."""
        names = ("foreign", "held", "hidden", "fine")
        for name in names:
            dump(folder(root) / f"{name}.jsonl", [header(name), message(0, "m0")])
        one.create_session(session_id="a:foreign")
        sync(one, root)
        one.delete_session("a:hidden", soft=True)
        with one.lease("a:held"):
            for name in names:
                append(folder(root) / f"{name}.jsonl", message(1, "m1"))
            done = sync(one, root)
        assert (done.failed, done.updated) == (3, 1)
        assert ["came from no directory" in str(done.problems), "is leased by" in str(done.problems),
                "soft-deleted" in str(done.problems)] == [True, True, True]  # fmt: skip
        assert sync(one, root).updated == 1
        assert said(one, "a:held") == ["m0", "m1"]
        other = root.parent / "other"
        dump(folder(other) / "fine.jsonl", [header("fine"), message(0, "not the same")])
        assert f"belongs to {root}" in sync(one, other).problems[0].reason
        assert said(one, "a:fine") == ["m0", "m1"]

    def test_a_root_that_was_moved_keeps_its_sessions(self, one: SessionManager, root: Path) -> None:
        """They are found again under the new path, and nothing is doubled."""
        dump(folder(root) / "s.jsonl", [header("s"), message(0, "m0")])
        sync(one, root)
        moved = root.rename(root.parent / "moved")
        done = sync(one, moved)
        assert (done.created, done.updated, done.messages, done.failed) == (0, 1, 0, 0)
        append(folder(moved) / "s.jsonl", message(1, "m1"))
        assert sync(one, moved).messages == 1
        assert sync(one, moved).updated == 0

    def test_a_sync_that_stops_within_a_session_goes_on(self, one: SessionManager, root: Path) -> None:
        """Between two portions: what was added is not added again, and nothing is left out."""
        dump(folder(root) / "s.jsonl", [header("s"), *(message(i, f"m{i}") for i in range(2500))])
        asked = []

        def stop() -> bool:
            asked.append(1)
            return len(asked) > 1

        done = SessionDirectory(root, one).sync(stop=stop)
        assert not done.complete
        found = one.get_session("a:s")
        assert found is not None
        assert 0 < found.message_count < 2500
        assert sync(one, root).complete
        found = one.get_session("a:s")
        assert found is not None
        assert found.message_count == 2500

    def test_two_that_sync_at_once_double_nothing(self, one: SessionManager, root: Path) -> None:
        """Each knows the state of before; the second finds the messages there."""
        path = dump(folder(root) / "s.jsonl", [header("s"), message(0, "m0")])
        first, second = Synchronizer(one, root), Synchronizer(one, root)
        first.run()
        second.run()
        append(path, message(1, "m1"), message(2, "m2"))
        assert [first.run().updated, second.run().updated] == [1, 0]  # it sees that all is there
        assert said(one, "a:s") == ["m0", "m1", "m2"]
        assert [first.run().updated, second.run().updated, sync(one, root).updated] == [0, 0, 0]

    def test_what_others_brought_in_is_ended_too(self, one: SessionManager, root: Path) -> None:
        """One that keeps syncing looks at the database again from time to time."""
        dump(folder(root) / "s.jsonl", [header("s"), message(0)])
        keeps_on = Synchronizer(one, root)
        keeps_on.run()
        path = dump(folder(root) / "brief.jsonl", [header("brief"), message(0)])
        sync(one, root)
        path.unlink()
        assert sum(keeps_on.run().ended for _ in range(25)) == 1
        assert [state(one, "a:brief"), state(one, "a:s")] == ["ended", "active"]

    def test_a_root_that_is_not_there_is_an_error(self, one: SessionManager, tmp_path: Path) -> None:
        """And ends nothing: a mount that is missing is no empty directory."""
        with pytest.raises(InvalidArgument, match="is no session directory"):
            sync(one, tmp_path)


class TestRemoval:
    """Two layers: the disk, and the database."""

    def prepare(self, root: Path) -> None:
        """An agent with a main session, a stale job with two keys and a thread, a fresh chat, and an old orphan."""
        write_index(folder(root), {
            "agent:a:main": entry("main", age=9 * HOUR),
            "agent:a:cron:x": entry("job", age=9 * HOUR, unknown=[1]),
            "agent:a:cron:x:run:1": entry("job", age=9 * HOUR),
            "agent:a:telegram:group:1": entry("chat", age=60, unknown={"x": 1.0}),
            "hook:1": entry("bare", age=9 * HOUR),
        })  # fmt: skip
        for name in ("main", "job", "job-topic-1", "chat", "lost"):
            dump(folder(root) / f"{name}.jsonl", [header(name), message(0, name)], age=9 * HOUR)

    def test_delete_takes_all_keys_and_the_transcripts(self, manager: SessionManager, root: Path) -> None:
        """The rest of the index is as it was, the files are in the archive, the session is ended with its history."""
        self.prepare(root)
        sync(manager, root)
        before = read_index(folder(root))
        done = SessionDirectory(root, manager).delete("job")
        assert done.model_dump() == {
            "deleted": "job",
            "removed_keys": ["agent:a:cron:x", "agent:a:cron:x:run:1"],
            "transcript_archived": True,
            "database_updated": True,
        }
        gone = {key: value for key, value in before.items() if value["sessionId"] != "job"}
        assert read_index(folder(root)) == gone
        archives = sorted(path.name.partition(".deleted.")[0] for path in folder(root).glob("*.deleted.*"))
        assert archives == ["job-topic-1.jsonl", "job.jsonl"]
        assert (state(manager, "a:job"), said(manager, "a:job")) == ("ended", ["job", "job-topic-1"])
        assert sync(manager, root).ended == 0
        with pytest.raises(SessionNotFound):
            SessionDirectory(root, manager).delete("job")

    def test_prune_takes_what_is_stale_and_may_go(self, manager: SessionManager, root: Path) -> None:
        """Not the main session, not the fresh one, not orphans; a dry run says the same and changes nothing."""
        self.prepare(root)
        sync(manager, root)
        directory = SessionDirectory(root, manager)
        before = {path.name: path.read_bytes() for path in folder(root).iterdir()}
        dry = directory.prune("60m", dry_run=True)
        assert {path.name: path.read_bytes() for path in folder(root).iterdir()} == before
        done = directory.prune("60m")
        assert done.model_dump() == {
            "total_sessions": 4, "pruned_count": 2, "kept_count": 2, "dry_run": False,
            "deleted_ids": ["job", "bare"], "errors": [], "threshold_minutes": 60,
        }  # fmt: skip
        assert dry.model_dump() == done.model_dump() | {"dry_run": True}
        assert list(read_index(folder(root))) == ["agent:a:main", "agent:a:telegram:group:1"]
        assert [state(manager, f"a:{name}") for name in ("main", "job", "chat", "bare", "lost")] == [
            "active", "ended", "active", "ended", "active",
        ]  # fmt: skip
        assert directory.prune("60m").pruned_count == 0

    def test_prune_by_kind(self, one: SessionManager, root: Path) -> None:
        """Only sessions of that kind; an unknown kind is refused."""
        self.prepare(root)
        directory = SessionDirectory(root, one)
        assert directory.prune("60m", kinds=["cron"]).deleted_ids == ["job"]
        assert directory.prune("90s", kinds=["hook", "run"], dry_run=True).threshold_minutes == 1.5
        with pytest.raises(InvalidArgument, match="kind must be one of chat, cron"):
            directory.prune("60m", kinds=["crn"])
        with pytest.raises(InvalidArgument, match="max_age must be a duration"):
            directory.prune("soon")

    def test_what_was_used_lately_by_any_sign_stays(self, one: SessionManager, root: Path) -> None:
        """The entry's times or the transcript's; what has no time at all stays too."""
        write_index(folder(root), {
            "a": entry("a", age=9 * HOUR), "b": entry("b", age=9 * HOUR, lastInteractionAt=entry("")["updatedAt"]),
            "c": {"sessionId": "c"}, "d": {"sessionId": "d", "sessionStartedAt": 1},
        })  # fmt: skip
        dump(folder(root) / "a.jsonl", [header("a")])
        assert SessionDirectory(root, one).prune("60m").deleted_ids == ["d"]

    def test_protected_sessions_stay_unless_forced(
        self, one: SessionManager, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The main one, the caller's own, those of the settings and of the call; as by delete, so by orphans."""
        self.prepare(root)
        monkeypatch.setenv(CALLER, "bare")
        directory = SessionDirectory(root, one, DirectoriesSettings(protected=("lost",)))
        for name, why in (("main", "the main session"), ("bare", CALLER), ("lost", "protected"), ("job", "cron:x")):
            with pytest.raises(SessionProtected, match=why):
                directory.delete(name, protect=["agent:a:cron:x"])
        assert directory.prune("60m", protect=["job"]).deleted_ids == []
        assert directory.orphans(archive=True).archived_count == 0
        assert directory.prune("60m", protect=["job"], force=True).deleted_ids == ["main", "job", "bare"]
        assert directory.orphans(archive=True, force=True).archived_count == 1

    def test_orphans_are_listed_then_archived(self, manager: SessionManager, root: Path) -> None:
        """Those old enough: a younger one may be waiting for its key."""
        self.prepare(root)
        dump(folder(root) / "young.jsonl", [header("young"), message(0)])
        sync(manager, root)
        directory = SessionDirectory(root, manager)
        seen = directory.orphans()
        assert [(one_.session_id, one_.transcript) for one_ in seen.orphans] == [("lost", "lost.jsonl")]
        assert (seen.orphan_count, seen.too_young, seen.archived_count) == (1, 1, 0)
        assert (folder(root) / "lost.jsonl").exists()
        assert directory.orphans(archive=True).archived_count == 1
        assert not (folder(root) / "lost.jsonl").exists()
        assert (state(manager, "a:lost"), state(manager, "a:young")) == ("ended", "active")
        assert directory.orphans(archive=True, older_than="1s").too_young == 1

    def test_without_a_database_the_disk_is_cleaned_and_the_next_sync_catches_up(
        self, manager: SessionManager, root: Path
    ) -> None:
        """Whether it cannot be opened or does not answer; that is said once."""
        self.prepare(root)
        sync(manager, root)

        def away() -> SessionManager:
            raise StorageUnavailable("nobody answers")

        done = SessionDirectory(root, away).prune("60m")
        assert done.deleted_ids == ["job", "bare"]
        assert done.errors == ["database: nobody answers; the next sync ends what vanished from disk"]
        deleted = SessionDirectory(root).delete("chat", force=True)
        assert (deleted.transcript_archived, deleted.database_updated) == (True, False)
        assert [state(manager, f"a:{name}") for name in ("job", "bare", "chat")] == ["active"] * 3
        assert sync(manager, root).ended == 3
        assert [state(manager, f"a:{name}") for name in ("job", "bare", "chat")] == ["ended"] * 3

    def test_the_same_id_with_two_agents_needs_the_agent(self, one: SessionManager, root: Path) -> None:
        """Keys and ids of the database tell them apart too."""
        for agent in ("a", "b"):
            write_index(folder(root, agent), {f"agent:{agent}:cron:x": entry("s")})
        directory = SessionDirectory(root, one)
        with pytest.raises(InvalidArgument, match=r"several agents \(a, b\)"):
            directory.delete("s")
        with pytest.raises(InvalidArgument, match="there is no 'c'"):
            directory.delete("s", agent="c")
        assert directory.delete("s", agent="b").removed_keys == ["agent:b:cron:x"]
        assert directory.delete("a:s").removed_keys == ["agent:a:cron:x"]

    def test_a_transcript_that_a_session_that_stays_names_stays(self, one: SessionManager, root: Path) -> None:
        """Two entries with one `sessionFile`."""
        dump(folder(root) / "s.jsonl", [header("s")], age=9 * HOUR)
        write_index(folder(root), {"k": entry("s", age=9 * HOUR), "agent:a:main": entry("t", sessionFile="s.jsonl")})
        done = SessionDirectory(root, one).delete("s")
        assert (done.removed_keys, done.transcript_archived) == (["k"], False)
        assert (folder(root) / "s.jsonl").exists()

    def test_a_torn_index_is_left_alone(self, one: SessionManager, root: Path) -> None:
        """Nothing is removed by it, and no transcript is called an orphan."""
        self.prepare(root)
        (folder(root) / "sessions.json").write_text('{"torn": ')
        before = sorted(folder(root).iterdir())
        directory = SessionDirectory(root, one)
        for done in (directory.prune("60m"), directory.orphans(archive=True)):
            assert len(done.errors) == 1
            assert "is no JSON object" in done.errors[0]
        assert [path for path in sorted(folder(root).iterdir()) if "lifecycle" not in path.name] == before
        assert directory.scan().agents[0].problem is not None
        assert directory.scan().total.orphans == 0

    def test_a_lock_that_is_held_is_an_error_with_its_name(self, one: SessionManager, root: Path) -> None:
        """After the configured time, and nothing was changed."""
        self.prepare(root)
        (folder(root) / "sessions.json.lock").write_text(json.dumps({"pid": os.getpid()}))
        directory = SessionDirectory(root, one, DirectoriesSettings(lock_timeout=1))
        with pytest.raises(Conflict, match=r"sessions.json.lock is held"):
            directory.delete("job")
        assert "agent:a:cron:x" in read_index(folder(root))


# Forks, and has the child prune and kill itself before its n-th call that touches a file, for every n there is; then
# prunes once more, and says what is on disk.
CRASHES = """
import json, os, shutil, signal, sys
from pathlib import Path
from lifecycle.directories import SessionDirectory

template, work = Path(sys.argv[1]), Path(sys.argv[2])
left, armed = 0, False

def hook(event, _):
    global left
    if armed and event in ("open", "os.rename", "os.remove", "os.link", "os.chmod", "os.scandir"):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
SessionDirectory(template).prune("60m", dry_run=True)  # everything is imported
for point in range(1, 1000):
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(template, work)
    child = os.fork()
    if child == 0:
        left, armed = point, True
        SessionDirectory(work).prune("60m")
        os._exit(0)
    killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
    report = SessionDirectory(work).prune("60m")
    folder = work / "agents/a/sessions"
    names = sorted(path.name.partition(".deleted.")[0] for path in folder.iterdir() if path.name != ".sessions.json.lifecycle-lock")
    keys = list(json.loads((folder / "sessions.json").read_text()))
    print(json.dumps([killed, report.errors, names, keys]), flush=True)
    if not killed:
        break
"""


def test_a_prune_that_is_killed_before_any_of_its_steps_is_finished_by_the_next(root: Path) -> None:
    """At whatever call it was killed: what was stale is archived, what was not is there, and nothing is left behind."""
    TestRemoval().prepare(root)
    done = subprocess.run(
        [sys.executable, "-c", CRASHES, str(root), str(root.parent / "work")],
        env=os.environ | {"PYTHONPATH": str(TOP)}, capture_output=True, text=True, check=True, timeout=200,
    )  # fmt: skip
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [killed for killed, *_ in results] == [True] * (len(results) - 1) + [False]
    assert len(results) > 15
    names = ["chat.jsonl", "job-topic-1.jsonl", "job.jsonl", "lost.jsonl", "main.jsonl", "sessions.json"]
    keys = ["agent:a:main", "agent:a:telegram:group:1"]
    assert [rest for _, *rest in results] == [[[], names, keys]] * len(results)


class TestRetention:
    """Archives go when they are old, and the oldest when there are too many."""

    def prepare(self, root: Path) -> list[str]:
        """Archives of 100 bytes each, and a live transcript; the names of the archives, oldest first."""
        names = [
            "a.jsonl.deleted.2020-01-01T00-00-00.000Z", "b.jsonl.reset.2020-01-02T00-00-00Z",
            "c.jsonl.deleted.2999-01-01T00-00-00.000Z", "d.jsonl.deleted.2999-01-02T00-00-00.000Z",
        ]  # fmt: skip
        for name in names:
            (folder(root) / name).write_bytes(b"x" * 100)
        (folder(root) / "live.jsonl").write_bytes(b"x" * 1000)
        return names

    def test_the_old_ones_go(self, root: Path) -> None:
        """By the time in their names; a dry run says the same."""
        names = self.prepare(root)
        directory = SessionDirectory(root)
        dry = directory.retention(dry_run=True)
        assert (dry.removed_count, dry.removed_bytes, dry.total_bytes) == (2, 200, 1400)
        assert all((folder(root) / name).exists() for name in names)
        done = directory.retention(older_than="30d")
        assert done.model_dump() == dry.model_dump() | {"dry_run": False}
        assert [(folder(root) / name).exists() for name in names] == [False, False, True, True]

    def test_then_the_oldest_until_within_the_budget(self, root: Path) -> None:
        """Only archives: a budget that live files exceed is reported."""
        names = self.prepare(root)
        directory = SessionDirectory(root, settings=DirectoriesSettings(archive_retention="never"))
        done = directory.retention(disk_budget="1200")
        assert (done.removed_count, done.expired_count, done.over_budget) == (2, 0, 0)
        assert [(folder(root) / name).exists() for name in names] == [False, False, True, True]
        done = directory.retention(disk_budget=500)
        assert (done.removed_count, done.over_budget) == (2, 500)
        assert (folder(root) / "live.jsonl").exists()

    def test_what_is_no_size_is_refused(self, root: Path) -> None:
        """With an example."""
        with pytest.raises(InvalidArgument, match="disk_budget must be a size such as 500MB"):
            SessionDirectory(root).retention(disk_budget="much")


class TestJob:
    """The worker's job."""

    def settings(self, url: str, *roots: Any) -> Settings:
        """Settings with roots."""
        return Settings(database={"url": url}, directories={"roots": roots})

    def test_without_a_root_it_does_not_tick(self, migrated_sqlite_url: str) -> None:
        """The others do."""
        with SessionManager.open(self.settings(migrated_sqlite_url)) as manager:
            assert "sync_directories" not in Upkeep(manager).enabled

    def test_it_syncs_each_root_into_its_tenant(self, migrated_url: str, tmp_path: Path) -> None:
        """And a round in which nothing changed opens nothing."""
        for name in ("one", "two"):
            dump(folder(tmp_path / name) / "s.jsonl", [header("s"), message(0, name)])
        roots = (str(tmp_path / "one"), {"path": str(tmp_path / "two"), "tenant": "t2"})
        from lifecycle import ALL

        with SessionManager.open(self.settings(migrated_url, *roots), tenant=ALL) as manager:
            upkeep = Upkeep(manager)
            assert "sync_directories" in upkeep.enabled
            done = upkeep.run_job("sync_directories")
            assert done is not None
            assert (done["count"], done["complete"]) == (2, True)
            assert said(manager.for_tenant(""), "a:s") == ["one"]
            assert said(manager.for_tenant("t2"), "a:s") == ["two"]
            append(folder(tmp_path / "two") / "s.jsonl", message(1, "more"))
            done = upkeep.run_job("sync_directories")
            assert done is not None
            assert done["count"] == 1
            assert said(manager.for_tenant("t2"), "a:s") == ["two", "more"]
            done = upkeep.run_job("sync_directories")
            assert done is not None
            assert done["count"] == 0

    def test_a_root_that_is_missing_does_not_keep_it_from_the_others(
        self, migrated_sqlite_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It is logged, once."""
        dump(folder(tmp_path / "there") / "s.jsonl", [header("s")])
        settings = self.settings(migrated_sqlite_url, str(tmp_path / "missing"), str(tmp_path / "there"))
        with SessionManager.open(settings) as manager:
            upkeep = Upkeep(manager)
            upkeep.run_job("sync_directories")
            upkeep.run_job("sync_directories")
            assert state(manager, "a:s") == "active"
        events = [record.msg for record in caplog.records if "directory_problem" in str(record.msg)]
        assert len(events) == 1

    def test_a_batch_is_so_many_sessions(self, migrated_sqlite_url: str, tmp_path: Path) -> None:
        """The job goes on batch after batch until all is in."""
        made = generate(tmp_path / "root", sessions=40, agents=2)
        settings = Settings(
            database={"url": migrated_sqlite_url}, directories={"roots": [str(made.root)]},
            worker={"jobs": {"sync_directories": {"batch": 7}}},
        )  # fmt: skip
        with SessionManager.open(settings) as manager:
            done = Upkeep(manager).run_job("sync_directories")
            assert done is not None
            assert (done["count"], done["complete"]) == (44, True)
            assert done["batches"] >= 6
            assert manager.get_stats().messages == made.messages


def _long_ago() -> Any:
    from datetime import UTC, datetime

    return datetime(2020, 1, 1, tzinfo=UTC)


def test_a_scan_counts_what_is_there(tmp_path: Path) -> None:
    """As the generator counted, and per agent."""
    made = generate(tmp_path / "root", sessions=200, agents=2)
    report = SessionDirectory(made.root).scan()
    total = report.total
    assert (total.sessions, total.keys, total.orphans, total.missing) == (
        made.sessions, made.keys, made.orphans, made.missing,
    )  # fmt: skip
    assert (total.empty, total.kinds, total.malformed) == (made.empty, made.kinds, 0)
    assert [agent.agent for agent in report.agents] == ["agent00", "agent01"]
    assert sum(agent.transcript_bytes for agent in report.agents) == total.transcript_bytes > 0
    backdate(next(made.folder("agent00").glob("*.jsonl")), 5)
    assert SessionDirectory(made.root).scan().total == total


class TestWhatIsNotOurs:
    """What a removal must leave alone, however the directory came to look as it does."""

    def test_a_copied_index_does_not_reach_the_agent_it_was_copied_from(self, one: SessionManager, root: Path) -> None:
        """Its absolute paths lead to another agent's transcripts, the main one's among them."""
        live = dump(folder(root, "main") / "S1.jsonl", [header("S1"), message(0, "hello")])
        write_index(folder(root, "main"), {"agent:main:main": entry("S1")})
        folder(root, "copy").mkdir(parents=True)
        stale = {**entry("S1"), "updatedAt": 1000, "sessionFile": str(live)}
        write_index(folder(root, "copy"), {"agent:copy:cron:1:run:x": stale})
        backdate(live, 3 * HOUR)
        report = SessionDirectory(root, one).prune("60m")
        assert live.exists()
        assert read_index(folder(root, "main")).keys() == {"agent:main:main"}
        assert report.pruned_count == 1

    def test_without_an_index_nothing_is_an_orphan(self, one: SessionManager, root: Path) -> None:
        """It may be about to be written: nothing tells which sessions are the agent's own."""
        live = dump(folder(root) / "S1.jsonl", [header("S1"), message(0, "hello")])
        backdate(live, 3 * HOUR)
        report = SessionDirectory(root, one).orphans(archive=True, older_than="1s")
        assert live.exists()
        assert report.archived_count == 0
        assert "missing" in report.errors[0]

    def test_a_note_that_came_to_nothing_is_crossed_out(
        self, one: SessionManager, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The session was taken up again while it was to be removed: no later removal acts on the note."""
        live = dump(folder(root) / "S1.jsonl", [header("S1"), message(0, "hello")])
        old = {**entry("S1"), "updatedAt": 1000}
        index = write_index(folder(root), {"agent:a:cron:1:run:x": old, "agent:a:main": entry("m")})
        backdate(live, 3 * HOUR)

        def taken_up(*_: object) -> bool:
            write_index(folder(root), {"agent:a:cron:1:run:x": {**old, "updatedAt": 4e12}, "agent:a:main": entry("m")})
            return False

        monkeypatch.setattr(removal, "replace", taken_up)
        assert SessionDirectory(root, one).prune("60m").pruned_count == 0
        assert live.exists()
        assert [path.name for path in index.parent.iterdir() if "removing" in path.name] == []

    def test_a_planted_note_reaches_nothing_outside(self, one: SessionManager, root: Path) -> None:
        """Whoever may write in the directory may write a note too."""
        outside = root.parent / "outside.jsonl"
        outside.write_text("{}")
        write_index(folder(root), {"agent:a:cron:1:run:x": {**entry("s"), "updatedAt": 1000}})
        (folder(root) / ".sessions.json.removing").write_text(
            json.dumps({"x": [str(outside), "../../../../outside.jsonl"]})
        )
        SessionDirectory(root, one).prune("60m")
        assert outside.exists()

    @pytest.mark.parametrize("life", ["a:S1", "a:S1~2", "a:S1~13"])
    def test_a_later_life_of_a_session_is_guarded(
        self, one: SessionManager, root: Path, monkeypatch: pytest.MonkeyPatch, life: str
    ) -> None:
        """By the id that it has in the database."""
        write_index(folder(root), {"agent:a:cron:1:run:x": {**entry("S1"), "updatedAt": 1000}})
        assert SessionDirectory(root, one).prune("60m", protect=[life]).pruned_count == 0
        monkeypatch.setenv(CALLER, life)
        assert SessionDirectory(root, one).prune("60m").pruned_count == 0

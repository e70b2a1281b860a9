"""A directory of JSONL files after a crash at any byte: what was acknowledged is there, whole, and nothing else."""

import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lifecycle import LifecycleError, SessionManager, StorageUnavailable
from lifecycle.drivers import journal, jsonl_store, jsonl_stores, row_images
from lifecycle.drivers.journal_format import Tail, Transaction, read_header, transactions
from tests.managers import connected

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the store is to be."""
    return tmp_path / "store"


def opened(directory: Path) -> SessionManager:
    """A manager on a store."""
    return SessionManager.open(f"jsonl:///{directory}")


def work(manager: SessionManager) -> None:
    """Some tens of transactions of all sorts: rows that come, change and go, in one table and in several."""
    for i in range(3):
        manager.create_session(session_id=f"s{i}", title=f"Nr. {i} äöü\u2028\n", metadata={"i": i})
        manager.save_state(f"s{i}", context={"text": "\0 and ∑"}, step=1, token=f"t{i}")
        manager.add_messages(f"s{i}", [{"role": "user", "content": f"{i} {j}"} for j in range(3)])
        manager.checkpoint(f"s{i}", "here")
    manager.delete_session("s2")
    manager.pop_message("s1")
    manager.request_approval("s1", "go on?")
    with manager.lease("s0") as lease:
        manager.save_state("s0", step=2, lease=lease)
    manager.suspend_session("s0", reason="waits")
    manager.complete_session("s0")


def whole(data: bytes) -> list[Transaction]:
    """The transactions that a journal of these bytes holds."""
    path, file, tail = Path("journal"), io.BytesIO(data), Tail()
    found = list(transactions(file, path, read_header(file, path), tail))
    assert tail.end + tail.torn == len(data)
    assert tail.end == (found[-1].end if found else tail.end)
    return found


def rows(directory: Path) -> dict[str, list[Any]]:
    """Every row of a store, and the counters of what is numbered."""
    url = f"jsonl:///{directory}"
    with connected(url) as connection:
        names = [
            name
            for (name,) in connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'")
            if "_fts" not in name
        ]
        return {
            name: sorted(map(repr, connection.exec_driver_sql(f"SELECT * FROM {name}").fetchall())) for name in names
        }


@pytest.fixture
def written(directory: Path) -> bytes:
    """The journal of that work, and its directory closed."""
    with opened(directory) as manager:
        manager.setup()
        work(manager)
    return (directory / journal.JOURNAL).read_bytes()


def test_a_journal_cut_at_any_byte_has_its_whole_transactions(written: bytes) -> None:
    """Exactly those whose commit record is whole, and what is left is told to be torn."""
    full = whole(written)
    assert len(full) > 20
    header = written.index(b"\n") + 1
    first = full[0].end  # the snapshot of the empty store: renamed into place, so never torn
    for end in range(first, len(written) + 1):
        expected = [one for one in full if one.end <= end]
        assert whole(written[:end]) == expected, end
    for end in range(first):
        with pytest.raises(StorageUnavailable, match=r"line 1|snapshot") as refused:
            whole(written[:end])
        assert str(refused.value).startswith("journal, line ")
    assert header < first


def test_a_store_opened_after_any_cut_goes_on(written: bytes, tmp_path: Path) -> None:
    """At the cuts around each transaction's end the store opens, holds what was whole, and takes more."""
    full, rng = whole(written), random.Random(7)
    ends = [one.end for one in full]
    cuts = sorted(
        {*ends[::5], *(end - 1 for end in ends[1::5]), *(rng.randrange(ends[0], ends[-1]) for _ in range(12))}
    )
    for end in cuts:
        copy = tmp_path / f"cut-{end}"
        copy.mkdir()
        (copy / journal.JOURNAL).write_bytes(written[:end])
        kept = max(one for one in ends if one <= end)
        with opened(copy) as manager:
            assert (copy / journal.JOURNAL).stat().st_size == kept
            manager.create_session(session_id="after")
        again = whole((copy / journal.JOURNAL).read_bytes())
        assert again[:-1] == [one for one in full if one.end <= end]
        with opened(copy) as manager:
            assert manager.get_session("after") is not None


def test_memory_and_journal_agree(directory: Path) -> None:
    """What is read back after closing is what was there before, row by row; compaction changes nothing either."""
    with opened(directory) as manager:
        manager.setup()
        work(manager)
        store: Any = manager._driver
        with store.store.use() as connection:
            names = list(store.store._images.tables)
            before = {
                name: sorted(map(repr, connection.execute(f"SELECT * FROM {name}").fetchall()))
                for name in [*names, "sqlite_sequence"]
            }
        cursor = [event.cursor for event in manager.watch(after="", timeout=0)][-1]
    after = rows(directory)
    assert {name: after[name] for name in before} == before
    with opened(directory) as manager:
        manager._driver.store.compact()
        assert list(manager.watch(after=cursor, timeout=0)) == []
    assert rows(directory) == after


def test_numbers_are_not_given_twice(directory: Path) -> None:
    """The audit log's numbers go on where they stood, though the last rows are gone and the store was compacted."""
    with opened(directory) as manager:
        manager.setup()
        manager.create_session(session_id="a")
    with connected(f"jsonl:///{directory}") as connection:
        connection.exec_driver_sql("DELETE FROM session_transitions")
    for compact in (False, True):
        with opened(directory) as manager:
            if compact:
                manager._driver.store.compact()
            manager.create_session(session_id=f"b{compact}")
        numbers = f"SELECT id FROM session_transitions WHERE session_id = 'b{compact}'"
        with connected(f"jsonl:///{directory}") as connection:
            assert connection.exec_driver_sql(numbers).scalar_one() == 2 + compact


def test_any_flipped_bit_is_noticed(written: bytes) -> None:
    """Nowhere does the journal read as something else: it is refused with file and line, or its last write is torn."""
    full, rng = whole(written), random.Random(3)
    for _ in range(3000):
        place, bit = rng.randrange(len(written)), 1 << rng.randrange(8)
        damaged = written[:place] + bytes([written[place] ^ bit]) + written[place + 1 :]
        if place == len(written) - 1:
            assert whole(damaged) == full[:-1]  # the very last byte: it cannot be told from one that never was written
            continue
        with pytest.raises(StorageUnavailable) as refused:
            whole(damaged)
        line = written.count(b"\n", 0, place) + 1
        named = int(str(refused.value).split("line ", 1)[1].split(":", 1)[0])
        # The line itself, or the first of the transaction whose checksum does not fit.
        assert named <= line + 1, (place, str(refused.value))


def test_a_damaged_store_is_not_opened_and_not_changed(directory: Path, written: bytes) -> None:
    """The error names file and line, and the file stays as it is, lock and all."""
    path = directory / journal.JOURNAL
    middle = whole(written)[12].end - 10
    damaged = written[:middle] + b"?" + written[middle + 1 :]
    path.write_bytes(damaged)
    line = damaged.count(b"\n", 0, middle) + 1
    with pytest.raises(StorageUnavailable, match=rf"journal\.jsonl, line \d+: damaged.*{line}"):
        opened(directory)
    assert path.read_bytes() == damaged
    path.write_bytes(written)
    with opened(directory) as manager:
        assert manager.get_session("s0") is not None


def test_a_lost_page_is_torn_at_the_end_and_damage_before_it(written: bytes) -> None:
    """Zeros that a power cut left where the last write should be are cut off; anywhere else they are refused."""
    full = whole(written)
    start = full[-2].end
    assert whole(written[:start] + b"\0" * (len(written) - start)) == full[:-1]
    assert whole(written[:start] + b"\0" * 40 + written[start + 40 :]) == full[:-1]
    early = full[10].end
    with pytest.raises(StorageUnavailable, match="damaged"):
        whole(written[:early] + b"\0" * 40 + written[early + 40 :])


def test_a_compaction_cut_at_any_byte_changes_nothing(directory: Path, written: bytes, tmp_path: Path) -> None:
    """Before the rename the old journal counts, whatever there is of the new one; after it the new one, all of it."""
    expected = rows(directory)
    with opened(directory) as manager:
        manager._driver.store.compact()
    fresh = (directory / journal.JOURNAL).read_bytes()
    assert fresh != written
    assert rows(directory) == expected
    for end in range(len(fresh)):
        with pytest.raises(StorageUnavailable, match="damaged"):
            whole(fresh[:end])  # it is renamed when it is whole and synced, so this is no torn tail
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / journal.JOURNAL).write_bytes(written)
    for end in range(0, len(fresh), max(1, len(fresh) // 15)):
        (copy / journal.FRESH).write_bytes(fresh[:end])
        with opened(copy):
            assert not (copy / journal.FRESH).exists()
        assert (copy / journal.JOURNAL).read_bytes() == written
        assert rows(copy) == expected
    (copy / journal.FRESH).write_bytes(fresh)
    (copy / journal.FRESH).rename(copy / journal.JOURNAL)
    assert rows(copy) == expected


# A process for each line it reads, which says its id, then saves from the step on that the line names.
SAVERS = """
import os, sys
from lifecycle import SessionManager
from lifecycle import migrate
from lifecycle.drivers import jsonl_store, schema_templates
schema_templates._template(migrate.head(), search_index=False)
url, jsonl_store.COMPACT_BYTES, jsonl_store.COMPACT_TIMES = sys.argv[1], int(sys.argv[2]), 2
for line in sys.stdin:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        print("killed", flush=True)
        continue
    print(os.getpid(), flush=True)
    with SessionManager.open(url) as manager:
        for step in range(int(line), 1_000_000):
            manager.save_state(f"s{step % 3}", step=step, context={"step": step, "pad": "x" * (step % 700)})
            manager.add_message("s0", "user", str(step), message_id=str(step))
            print(step, flush=True)
"""
ROUNDS = 25


@pytest.mark.parametrize("compact", [1 << 40, 20_000], ids=["appending", "compacting"])
def test_a_killed_process_loses_nothing_it_acknowledged(directory: Path, compact: int) -> None:
    """SIGKILL in the middle of saving, round after round, with compactions or without: all that was printed is there."""
    with opened(directory) as manager:
        manager.setup()
        for i in range(3):
            manager.create_session(session_id=f"s{i}")
    rng, last = random.Random(compact), 0
    with subprocess.Popen(
        [sys.executable, "-c", SAVERS, f"jsonl:///{directory}", str(compact)], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    ) as savers:  # fmt: skip
        for _ in range(ROUNDS):
            last = killed(savers, last, rng.randrange(1, 60))
            with opened(directory) as manager:
                last = settled(manager, last)
        savers.communicate()
    assert last >= ROUNDS


def killed(savers: subprocess.Popen[str], last: int, after: int) -> int:
    """Have a process save on, and kill it when it has acknowledged so many; the last step it acknowledged."""
    assert savers.stdin is not None
    assert savers.stdout is not None
    savers.stdin.write(f"{last + 1}\n")
    savers.stdin.flush()
    child = int(savers.stdout.readline())
    for _ in range(after):
        last = int(savers.stdout.readline())
    os.kill(child, signal.SIGKILL)
    # What it said before it was killed counts, though nobody had read it.
    for line in iter(savers.stdout.readline, "killed\n"):
        last = int(line)
    return last


def settled(manager: SessionManager, last: int) -> int:
    """Compare what is there with what was acknowledged; the newest step, which may be one that nobody heard of."""
    states = {i: manager.load_state(f"s{i}") for i in range(3)}
    newest = max(state.step or 0 for state in states.values() if state is not None)
    assert newest in {last, last + 1}
    for i, state in states.items():
        if state is not None:
            assert state.step is not None
            assert state.context["step"] == state.step
            assert state.step % 3 == i
            assert state.step > newest - 3
    session = manager.get_session("s0")
    assert session is not None
    assert session.message_count in {last, newest}
    if session.message_count < newest:
        manager.add_message("s0", "user", str(newest), message_id=str(newest))
    return newest


@contextlib.contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file of this process grows beyond a size: a write there fails, or is cut short, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_loses_nothing(directory: Path) -> None:
    """Saves are refused with StorageUnavailable, what was acknowledged stays, and with room again it goes on."""
    path = directory / journal.JOURNAL
    with opened(directory) as manager:
        manager.setup()
        manager.create_session(session_id="s")
        acknowledged = [0]
        manager.save_state("s", step=0, context={"step": 0})
        with disk_of(path.stat().st_size + 50_000):
            for step in range(1, 100):
                try:
                    manager.save_state("s", step=step, context={"step": step, "pad": "x" * 3000})
                except StorageUnavailable:
                    break
                acknowledged.append(step)
            else:
                pytest.fail("the disk never filled up")
            before = path.read_bytes()
            assert before.endswith(b'"}\n'), "the torn tail was not cut off"
            for _ in range(3):
                with pytest.raises(StorageUnavailable, match="cannot be written") as refused:
                    manager.save_state("s", step=500, context={"pad": "x" * 5000})
                assert not refused.value.outcome_unknown
            state = manager.load_state("s")
            assert state is not None
            assert state.context["step"] == state.step == acknowledged[-1]
            assert path.read_bytes() == before
        assert manager.save_state("s", step=1000) == len(acknowledged) + 2
    with opened(directory) as manager:
        state = manager.load_state("s")
        assert state is not None
        assert (state.step, state.context["step"]) == (1000, acknowledged[-1])


def test_a_compaction_without_room_leaves_the_journal(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up, nothing of it stays, and the saves go on."""
    monkeypatch.setattr(jsonl_store, "COMPACT_BYTES", 0)
    with opened(directory) as manager:
        manager.setup()
        manager.create_session(session_id="big")
        manager.save_state("big", context={"pad": "x" * 100_000})
        manager._driver.store.compact()
        path = directory / journal.JOURNAL
        old = path.stat().st_ino
        # Room for what is appended here, none for the snapshot: only a second file would need that much.
        store: Any = manager._driver.store
        limit = path.stat().st_size - 1
        with disk_of(limit), pytest.raises(StorageUnavailable):
            manager.save_state("big", step=1)
        store._compact_at = 0
        (directory / journal.FRESH).mkdir()  # in the way of the new file
        manager.save_state("big", step=2)
        assert path.stat().st_ino == old
        (directory / journal.FRESH).rmdir()
        store._compact_at = 0
        manager.save_state("big", step=3)
        assert path.stat().st_ino != old
    with opened(directory) as manager:
        state = manager.load_state("big")
        assert state is not None
        assert (state.step, len(state.context["pad"])) == (3, 100_000)


def test_an_interrupt_between_disk_and_memory_is_healed(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C just when the transaction is on the disk: memory is made anew from there, and the two agree."""
    with opened(directory) as manager:
        manager.setup()
        manager.create_session(session_id="s")
        sync = os.fdatasync

        def interrupted(descriptor: int) -> None:
            sync(descriptor)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", interrupted)
            with pytest.raises(KeyboardInterrupt):
                manager.save_state("s", step=7)
        state = manager.load_state("s")
        assert state is not None
        assert state.step == 7
        manager.save_state("s", step=8, expected_version=state.version)
    with opened(directory) as manager:
        state = manager.load_state("s")
        assert state is not None
        assert state.step == 8


HOLDER = """
import sys
from lifecycle import SessionManager
with SessionManager.open(sys.argv[1]) as manager:
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_second_process_is_told_who_has_the_store(directory: Path, written: bytes) -> None:
    """With its process id; and when that one is gone, however it went, the store is free."""
    assert written
    for ending in ("line", "kill"):
        with subprocess.Popen(
            [sys.executable, "-c", HOLDER, f"jsonl:///{directory}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, cwd=ROOT,
        ) as holder:  # fmt: skip
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(StorageUnavailable, match=rf"in use by process {holder.pid}\b"):
                opened(directory)
            assert rows_untouched(directory, written)
            if ending == "line":
                holder.communicate("\n")
            else:
                holder.kill()
                holder.wait()
        with opened(directory) as manager:
            assert manager.get_session("s0") is not None


def rows_untouched(directory: Path, written: bytes) -> bool:
    """Whether the journal is as it was."""
    return (directory / journal.JOURNAL).read_bytes() == written


def test_a_forked_child_neither_uses_nor_keeps_the_store(directory: Path, written: bytes) -> None:
    """Its copy of the lock goes at once: the store is free when the parent lets go, while the child still lives."""
    program = textwrap.dedent("""
        import os, sys, time
        from lifecycle import SessionManager, LifecycleError, StorageUnavailable
        manager = SessionManager.open(sys.argv[1])
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                manager.get_session("s0")
            except LifecycleError as error:
                assert "fork" in str(error), error
            try:
                SessionManager.open(sys.argv[1])
            except StorageUnavailable as error:
                assert str(os.getppid()) in str(error), error
            else:
                os._exit(1)
            print("ready", flush=True)
            sys.stdin.readline()
            os._exit(0)
        manager.get_session("s0")
        os._exit(0 if sys.argv[2] == "die" else 1)
    """)
    # The parent waits for the child's word, then dies without closing anything.
    program = program.replace('print("ready", flush=True)', "os.write(writing, b'r'); print('ready', flush=True)")
    program = program.replace(
        'manager.get_session("s0")\nos._exit', 'os.read(reading, 1)\nmanager.get_session("s0")\nos._exit'
    )
    assert written
    with subprocess.Popen(
        [sys.executable, "-c", program, f"jsonl:///{directory}", "die"], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    ) as parent:  # fmt: skip
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        assert parent.wait(30) == 0
        with opened(directory) as manager:  # the child is still there
            assert manager.get_session("s0") is not None
        assert parent.stdin is not None
        parent.stdin.write("\n")
        parent.stdin.flush()


def test_a_directory_of_others_is_left_alone(tmp_path: Path) -> None:
    """With any file in it that is not ours it is no store, and neither opening nor setting up touches it."""
    (tmp_path / "thesis.txt").write_text("years of work")
    url = f"jsonl:///{tmp_path}"
    with pytest.raises(StorageUnavailable, match=r"thesis\.txt"):
        SessionManager.open(url)
    (tmp_path / "thesis.txt").rename(tmp_path / journal.JOURNAL)
    with pytest.raises(StorageUnavailable, match=r"journal\.jsonl, line 1: not the header"):
        SessionManager.open(url)
    assert (tmp_path / journal.JOURNAL).read_text() == "years of work"
    assert [path.name for path in tmp_path.iterdir()] == [journal.JOURNAL]


def test_a_lost_store_is_closed(directory: Path, written: bytes) -> None:
    """All managers of a directory share one store, and the last to close lets go of it."""
    assert written
    first, second = opened(directory), opened(directory)
    try:
        first.save_state("s1", step=9)
        state = second.load_state("s1")
        assert state is not None
        assert state.step == 9
    finally:
        first.close()
        first.close()
        assert second.get_session("s1") is not None
        second.close()
    assert jsonl_stores._stores == {}
    shutil.rmtree(directory)


def test_a_thread_that_has_the_connection_for_itself_uses_no_manager(directory: Path, written: bytes) -> None:
    """What a manager wrote then would not be in the journal: it is refused."""
    assert written
    with opened(directory) as manager:
        with connected(f"jsonl:///{directory}"), pytest.raises(LifecycleError, match="for itself"):
            manager.save_state("s1", step=3)
        manager.save_state("s1", step=4)


def test_every_line_is_json(written: bytes) -> None:
    """Whoever reads the file needs no tool of ours."""
    kinds = {next(iter(json.loads(line))) for line in written.decode().split("\n")[:-1]}
    assert kinds == {"store", "put", "delete", "commit"}


def test_an_interrupt_before_the_connection_is_lent_loses_nothing(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is noted while it is lent: whatever is written after an interrupt there must reach the journal all the same."""
    leave = row_images.Images.leave

    def interrupted(images: row_images.Images) -> None:
        leave(images)
        raise KeyboardInterrupt

    with opened(directory) as manager:
        manager.setup()
        with monkeypatch.context() as patched:
            patched.setattr(row_images.Images, "leave", interrupted)
            with pytest.raises(KeyboardInterrupt), connected(f"jsonl:///{directory}"):
                pass
        manager.create_session(session_id="after")
        assert b'"after"' in (directory / journal.JOURNAL).read_bytes()

"""What was acknowledged survives a full disk, and a database that is killed under the writers."""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lifecycle import SessionManager, Settings, StorageUnavailable
from tests.managers import opened
from tests.servers import MariaDBServer, PostgresServer, find_mariadb, find_postgres


def required() -> bool:
    """Whether a missing means of the test is a failure."""
    return os.environ.get("LIFECYCLE_TESTS_REQUIRE_SERVERS") == "1"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 160 MB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    made = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=160m,mode=0777", "tmpfs", str(place)], check=False, capture_output=True
    )
    if not made or made.returncode:
        message = "mounting a tmpfs needs root"
        if required():
            pytest.fail(message)
        pytest.skip(message)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> Path:
    """Take all the room there is, to the last byte."""
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file:
        block = b"\0" * 1_000_000
        while block:
            try:
                file.write(block)
            except OSError:
                block = block[: len(block) // 2]
    return ballast


def save_until_refused(manager: SessionManager, session_id: str) -> list[int]:
    """Save ever larger states until the store says no; the steps that were acknowledged."""
    acknowledged: list[int] = []
    for step in range(1, 2000):
        try:
            manager.save_state(session_id, step=step, context={"step": step, "pad": os.urandom(20_000).hex()})
        except StorageUnavailable:
            return acknowledged
        acknowledged.append(step)
    pytest.fail("the disk never filled up")


def check(manager: SessionManager, session_id: str, acknowledged: list[int]) -> None:
    """The state is whole, and the last acknowledged one or (its outcome being unknown) the one after it."""
    state = manager.load_state(session_id)
    assert state is not None
    assert state.context["step"] == state.step
    assert state.step in {acknowledged[-1], acknowledged[-1] + 1}
    session = manager.get_session(session_id)
    assert session is not None
    assert session.version == state.step + 1


def test_a_full_disk_loses_nothing_on_sqlite(small_disk: Path) -> None:
    """SQLite on a full disk refuses with StorageUnavailable, keeps what it acknowledged, and goes on when there is room."""
    with SessionManager.open(f"sqlite:///{small_disk}/sessions.db") as manager:
        manager.setup()
        session_id = manager.create_session().session_id
        manager.save_state(session_id, step=0, context={"step": 0})
        ballast = small_disk / "ballast"
        manager.save_state(session_id, step=0, context={"step": 0})
        before = manager.get_session(session_id)
        assert before is not None
        fill(small_disk)
        acknowledged = [0, *save_until_refused(manager, session_id)]
        state = manager.load_state(session_id)
        assert state is not None
        assert state.context["step"] == state.step == acknowledged[-1]
        ballast.unlink()
        assert manager.save_state(session_id, step=5000) == before.version + len(acknowledged)


def test_a_full_disk_loses_nothing_on_postgresql(small_disk: Path) -> None:
    """PostgreSQL on a full disk refuses (it may even stop); after a restart with room all that it acknowledged is there."""
    data = small_disk / "data"
    server = PostgresServer(
        find_postgres(18),
        settings={"max_wal_size": "32MB", "min_wal_size": "32MB", "wal_recycle": "off", "wal_init_zero": "off"},
        data=data,
    )
    with server:
        server.create_database("full")
        settings: Any = Settings(database={"url": server.url("full"), "connect_timeout": 30})
        with SessionManager.open(settings) as manager:
            manager.setup()
            session_id = manager.create_session().session_id
            ballast = fill(small_disk)
            acknowledged = [0, *save_until_refused(manager, session_id)]
            ballast.unlink()
            server.kill()
            server.start()
            if len(acknowledged) > 1:
                check(manager, session_id, acknowledged)
            assert manager.save_state(session_id, step=5000) >= len(acknowledged) + 1


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_killed_database_loses_no_acknowledged_save(kind: str) -> None:
    """The server is killed while four threads save; once it is back every acknowledged save is there, none twice."""
    server: PostgresServer | MariaDBServer
    server = PostgresServer(find_postgres(18)) if kind == "postgresql" else MariaDBServer(find_mariadb())
    with server:
        server.create_database("killed")
        with SessionManager.open(Settings(database={"url": server.url("killed"), "connect_timeout": 30})) as manager:
            manager.setup()
            ids = [manager.create_session(session_id=f"s{i}").session_id for i in range(4)]
            acknowledged: dict[str, list[int]] = {session_id: [0] for session_id in ids}
            saved = threading.Barrier(5)

            def work(session_id: str) -> None:
                for step in range(1, 100_000):
                    try:
                        manager.save_state(session_id, step=step, context={"step": step})
                    except StorageUnavailable:
                        return
                    acknowledged[session_id].append(step)
                    if step == 50:
                        saved.wait(60)

            threads = [threading.Thread(target=work, args=(session_id,)) for session_id in ids]
            for thread in threads:
                thread.start()
            saved.wait(60)
            server.kill()
            for thread in threads:
                thread.join(60)
                assert not thread.is_alive()
            server.start()
            for session_id in ids:
                check(manager, session_id, acknowledged[session_id])
                assert manager.save_state(session_id, step=1) > len(acknowledged[session_id])


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("database", ["postgresql", "mariadb"])
def test_a_database_that_is_back_is_used_at_once(database: str, kind: str) -> None:
    """However long it was away: no pause between the attempts grows with the outage."""
    server: PostgresServer | MariaDBServer
    server = PostgresServer(find_postgres(18)) if database == "postgresql" else MariaDBServer(find_mariadb())
    with server:
        url = server.create_database("away")
        with opened(Settings(database={"url": url, "connect_timeout": 1}), kind) as manager:
            manager.setup()
            manager.create_session(session_id="s")
            server.kill()
            for _ in range(8):
                with pytest.raises(StorageUnavailable):
                    manager.get_session("s")
            server.start()
            assert manager.get_session("s") is not None

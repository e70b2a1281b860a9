"""The schema of a directory of JSONL files: made, taken back, brought up to date from an older release's."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.config import Config

from lifecycle import AsyncSessionManager, SchemaOutdated, SessionManager, migrate
from lifecycle.drivers import journal
from lifecycle.drivers.journal_format import Header
from lifecycle.errors import InvalidArgument, StorageUnavailable
from lifecycle.models.tables import metadata
from lifecycle.search_index import has_search_index, set_search_index
from tests.managers import connected

MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"

NEXT = '''
"""What a next release might bring."""

import sqlalchemy as sa
from alembic import op

revision = "next"
down_revision = "{head}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sessions", sa.Column("mood", sa.Text(), nullable=False, server_default="calm"))
    op.create_table("moods", sa.Column("name", sa.Text(), primary_key=True))


def downgrade() -> None:
    op.drop_table("moods")
    op.drop_column("sessions", "mood")
'''


def header(url: str) -> str:
    """The first line of a store's journal."""
    return (place(url) / journal.JOURNAL).read_text().split("\n")[0]


def place(url: str) -> Path:
    """Where a store is."""
    return Path(url.removeprefix("jsonl:///"))


@pytest.fixture
def next_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A release with one more revision, whose name this is."""
    folder = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "next_moods.py").write_text(NEXT.format(head=migrate.head()))
    made = migrate._config

    def config() -> Config:
        changed = made()
        changed.set_main_option("script_location", str(folder))
        return changed

    monkeypatch.setattr(migrate, "_config", config)
    migrate.head.cache_clear()
    yield "next"
    migrate.head.cache_clear()


def test_nothing_is_made_before_setup(jsonl_url: str) -> None:
    """Opening and asking make no directory, and say what to do; setup makes it, once."""
    assert migrate.current(jsonl_url) is None
    with SessionManager.open(jsonl_url) as manager:
        with pytest.raises(SchemaOutdated, match="lifecycle db upgrade"):
            manager.get_session("s")
        with pytest.raises(SchemaOutdated, match="lifecycle db upgrade"):
            manager.create_session()
        with pytest.raises(SchemaOutdated):
            migrate.downgrade(jsonl_url, "base")
        assert not place(jsonl_url).exists()
        manager.setup()
        manager.setup()
        manager.create_session(session_id="s")
    assert migrate.current(jsonl_url) == migrate.head()
    migrate.check(jsonl_url)
    assert sorted(file.name for file in place(jsonl_url).iterdir()) == ["journal.jsonl", "lock"]


async def _set_up(url: str) -> None:
    async with AsyncSessionManager.open(url) as manager:
        await manager.setup()
        await manager.create_session(session_id="s")
        assert await manager.get_session("s") is not None


def test_setup_of_an_async_manager(jsonl_url: str) -> None:
    """It makes the same."""
    import asyncio

    asyncio.run(_set_up(jsonl_url))
    with SessionManager.open(jsonl_url) as manager:
        assert manager.get_session("s") is not None


def test_down_and_up_again(migrated_jsonl_url: str) -> None:
    """Taken back to no tables it holds nothing; set up again it is a new one."""
    with SessionManager.open(migrated_jsonl_url) as manager:
        manager.create_session(session_id="s")
        migrate.downgrade(migrated_jsonl_url, "base")
        with pytest.raises(SchemaOutdated, match="no Lifecycle tables"):
            manager.get_session("s")
        assert '"revision":null' in header(migrated_jsonl_url)
    with SessionManager.open(migrated_jsonl_url) as manager:
        manager.setup()
        assert manager.get_session("s") is None
        manager.create_session(session_id="s")


def test_an_older_store_is_brought_up_to_date(migrated_jsonl_url: str, request: pytest.FixtureRequest) -> None:
    """A newer release reads it, says that it is outdated, and setup migrates it with all that it holds."""
    with SessionManager.open(migrated_jsonl_url) as manager:
        manager.create_session(session_id="s", title="old")
        manager.save_state("s", context={"a": 1})
    former, revision = migrate.head(), request.getfixturevalue("next_release")
    with SessionManager.open(migrated_jsonl_url) as manager:
        with pytest.raises(SchemaOutdated, match=f"at revision {former}, this release needs {revision}"):
            manager.get_session("s")
        with pytest.raises(SchemaOutdated):
            manager.save_state("s", step=1)
        assert f'"revision":"{former}"' in header(migrated_jsonl_url)
        manager.setup()
        assert f'"revision":"{revision}"' in header(migrated_jsonl_url)
        manager.save_state("s", step=1)
        with connected(migrated_jsonl_url) as connection:
            assert connection.exec_driver_sql("SELECT session_id, mood FROM sessions").fetchall() == [("s", "calm")]
            connection.exec_driver_sql("INSERT INTO moods VALUES ('calm')")
    with SessionManager.open(migrated_jsonl_url) as manager:
        state = manager.load_state("s")
        assert state is not None
        assert (state.context, state.step) == ({"a": 1}, 1)
        manager.create_session(session_id="t")
        assert [one.session_id for one in manager.list_sessions(search="old").items] == ["s"]
    migrate.downgrade(migrated_jsonl_url, "0002")
    with connected(migrated_jsonl_url) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM sessions").scalar_one() == 2


def test_a_newer_store_is_refused(migrated_jsonl_url: str) -> None:
    """Of a schema or a format that this release does not know, it says so and touches nothing."""
    path = place(migrated_jsonl_url) / journal.JOURNAL
    rest = path.read_bytes().split(b"\n", 1)[1]
    newer = Header("9999", search_index=False, snapshot=1).line() + rest
    path.write_bytes(newer)
    with pytest.raises(SchemaOutdated, match="a newer release has migrated it"):
        SessionManager.open(migrated_jsonl_url)
    with pytest.raises(SchemaOutdated, match="newer release"):
        migrate.upgrade(migrated_jsonl_url)
    assert path.read_bytes() == newer
    path.write_bytes(rest)
    with pytest.raises(StorageUnavailable, match="line 1"):
        migrate.current(migrated_jsonl_url)


def test_the_search_index_stays_on(migrated_jsonl_url: str) -> None:
    """Turned on while managers are open, it serves them, and is there again after a restart."""
    with SessionManager.open(migrated_jsonl_url) as manager:
        manager.create_session(session_id="s")
        manager.add_message("s", "user", "Guten Tag")
        assert not has_search_index(migrated_jsonl_url)
        assert set_search_index(migrated_jsonl_url, True)["changed"]
        manager.add_message("s", "user", "Grüße")
        assert [one.session_id for one in manager.list_sessions(search="grüsse", search_messages=True).items] == ["s"]
    assert has_search_index(migrated_jsonl_url)
    with SessionManager.open(migrated_jsonl_url) as manager:
        for text in ("guten", "grüsse"):
            assert [one.session_id for one in manager.list_sessions(search=text, search_messages=True).items] == ["s"]
        with connected(migrated_jsonl_url) as connection:
            found = "SELECT count(*) FROM session_messages_fts WHERE session_messages_fts MATCH 'guten'"
            assert connection.exec_driver_sql(found).scalar_one() == 1
        assert set_search_index(migrated_jsonl_url, False)["changed"]
    assert not has_search_index(migrated_jsonl_url)


def test_a_failed_change_of_the_schema_leaves_all_as_it_was(
    migrated_jsonl_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal and the managers that are open go on with the schema before."""
    with SessionManager.open(migrated_jsonl_url) as manager:
        manager.create_session(session_id="s")
        before = header(migrated_jsonl_url)
        (place(migrated_jsonl_url) / journal.FRESH).mkdir()  # in the way of the new journal
        with pytest.raises(StorageUnavailable, match="cannot be written"):
            set_search_index(migrated_jsonl_url, True)
        (place(migrated_jsonl_url) / journal.FRESH).rmdir()
        monkeypatch.undo()
        assert header(migrated_jsonl_url) == before
        manager.save_state("s", step=3)
        assert not has_search_index(migrated_jsonl_url)
    with SessionManager.open(migrated_jsonl_url) as manager:
        assert manager.load_state("s") is not None


def test_rows_are_texts_and_whole_numbers() -> None:
    """So that JSON gives every value back as it was; a column of another kind needs a form of its own in the journal."""
    kinds = {type(column.type).__name__ for table in metadata.tables.values() for column in table.columns}
    # Base64 is a text wherever the database is not PostgreSQL.
    assert kinds == {"Text", "Base64", "BigInteger", "Integer", "Boolean", "Timestamp"}


def test_urls(tmp_path: Path) -> None:
    """There is no SQL to print, and a jsonl URL takes nothing but a directory."""
    with pytest.raises(InvalidArgument, match="no SQL"):
        migrate.sql(f"jsonl:///{tmp_path}")
    for url in ("jsonl://", "jsonl:///", "jsonl://host/x", "jsonl:///x?y=z", "jsonl+x:///y"):
        with pytest.raises(InvalidArgument, match="takes a directory"):
            migrate.current(url)

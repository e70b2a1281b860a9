"""Keys to the HTTP API: made, looked up and revoked on every store; nothing that opens anything is kept."""

import hashlib
import hmac
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from lifecycle import ALL, KeyNotFound, SessionManager
from lifecycle.errors import InvalidArgument, LimitExceeded
from lifecycle.models import tables as t
from lifecycle.operations import keys
from lifecycle.operations.context import Context
from lifecycle.operations.requests import GetKey
from lifecycle.settings import Settings
from tests.managers import backdate, connected

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def wrong(text: str) -> str:
    """The key's text with another last character."""
    return text[:-1] + ("A" if text[-1] != "A" else "B")


def test_a_key_opens_what_it_says(manager: Any) -> None:
    """Its text is found again, with the tenant, the scope and the name it was made with; any other text is not."""
    made = manager.create_key("ci", "write")
    found = manager.for_tenant(ALL).verify_key(made.key)
    assert found is not None
    assert (found.key_id, found.tenant, found.name, found.scope) == (made.key_id, "", "ci", "write")
    for text in (wrong(made.key), made.key[:-1], made.key + "A", made.key_id, "", "lc__", "lc_é_" + "a" * 43):
        assert manager.for_tenant(ALL).verify_key(text) is None


def test_a_key_is_of_the_managers_tenant_or_of_all(manager: Any) -> None:
    """A manager of one tenant makes, lists, finds and revokes that tenant's keys only."""
    ours, theirs = manager.for_tenant("ours"), manager.for_tenant("theirs")
    everybody = manager.for_tenant(ALL)
    own, other, whole = ours.create_key("a"), theirs.create_key("b"), everybody.create_key("c")
    assert (own.tenant, other.tenant, whole.tenant) == ("ours", "theirs", None)
    assert [key.key_id for key in ours.list_keys()] == [own.key_id]
    assert {key.key_id for key in everybody.list_keys()} == {own.key_id, other.key_id, whole.key_id}
    for foreign in (other, whole):
        assert ours.verify_key(foreign.key) is None
        assert ours.get_key(foreign.key_id) is None
        with pytest.raises(KeyNotFound):
            ours.revoke_key(foreign.key_id)
    assert everybody.get_key(other.key_id) is not None


def test_a_revoked_key_opens_nothing_again(manager: Any) -> None:
    """It stays in the list with the time; revoking it again leaves that time; an unknown one is not there."""
    made = manager.create_key("ci")
    revoked = manager.revoke_key(made.key_id)
    assert revoked.revoked_at is not None
    assert manager.verify_key(made.key) is None
    assert manager.get_key(made.key_id) is None
    assert manager.revoke_key(made.key_id) == revoked
    assert manager.list_keys() == [revoked]
    with pytest.raises(KeyNotFound, match="no key 'nobody'"):
        manager.revoke_key("nobody")


def test_a_key_expires(manager: Any, migrated_url: str) -> None:
    """By the database's clock."""
    made = manager.create_key("ci", expires_in="1h")
    assert made.expires_at == made.created_at + timedelta(hours=1)
    assert manager.verify_key(made.key) is not None
    if migrated_url.startswith("jsonl"):
        return  # its rows are its process's own: there is no reaching behind the manager
    backdate(migrated_url, t.api_keys, expires_at=LONG_AGO)
    assert manager.verify_key(made.key) is None
    assert manager.get_key(made.key_id) is None


def test_only_a_digest_is_stored(shared_url: str) -> None:
    """No column of the table holds the secret; the digest is SHA-256 of the text."""
    with SessionManager.open(shared_url) as manager:
        made = manager.create_key("ci", "admin")
    with connected(shared_url) as connection:
        (row,) = connection.execute(sa.select(t.api_keys)).mappings()
    secret = made.key.removeprefix(f"lc_{made.key_id}_")
    assert len(secret) == 43  # 256 bits, in base64
    assert not any(secret in str(value) for value in row.values())
    assert row["digest"] == hashlib.sha256(made.key.encode()).hexdigest()
    assert made.key not in repr(made)


def test_the_last_use_is_written_once_a_minute(shared_url: str) -> None:
    """The first use writes it, the next ones do not, one a minute later does."""
    with SessionManager.open(shared_url) as manager:
        made = manager.create_key("ci")
        assert made.last_used_at is None
        manager.verify_key(made.key)
        first = manager.list_keys()[0].last_used_at
        assert first is not None
        manager.verify_key(made.key)
        assert manager.list_keys()[0].last_used_at == first
        backdate(shared_url, t.api_keys, last_used_at=first - timedelta(seconds=61))
        manager.verify_key(made.key)
        last = manager.list_keys()[0].last_used_at
        assert last is not None
        assert last >= first


def test_any_key_counts_the_revoked_ones(manager: Any) -> None:
    """Revoking the last key must not open the API to everybody."""
    assert manager.any_key() is False
    made = manager.for_tenant("t").create_key("ci")
    assert manager.any_key() is True
    manager.for_tenant("t").revoke_key(made.key_id)
    assert manager.any_key() is True


def test_an_unknown_key_takes_the_work_of_a_known_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """One request each, and one comparison of digests, whether or not the id is there."""
    compared: list[tuple[str, str]] = []
    compare = hmac.compare_digest

    def counted(left: str, right: str) -> bool:
        compared.append((left, right))
        return compare(left, right)

    monkeypatch.setattr(hmac, "compare_digest", counted)

    def requests(row: dict[str, Any] | None) -> list[Any]:
        steps = keys.verify_key(Context(Settings(), ALL), "lc_" + "0" * 16 + "_" + "a" * 43)
        seen = [next(steps)]
        with pytest.raises(StopIteration) as ended:
            seen.append(steps.send(row))
        assert ended.value.value is None
        return seen

    assert requests({"digest": "f" * 64}) == requests(None) == [GetKey("0" * 16)]
    assert [len(right) for _, right in compared] == [64, 64]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"name": ""}, "name must say who"),
        ({"name": " "}, "name must say who"),
        ({"name": 7}, "name must be text"),
        ({"name": "a\0"}, "U\\+0000"),
        ({"name": "a", "scope": "root"}, "scope must be one of read, write, admin, not 'root'"),
        ({"name": "a", "expires_in": "soon"}, "expires_in: must be a duration"),
    ],
)
def test_what_makes_no_key_is_refused(arguments: dict[str, Any], problem: str) -> None:
    """With the name of what is wrong."""
    with SessionManager.open("sqlite://") as manager:
        with pytest.raises(InvalidArgument, match=problem):
            manager.create_key(**arguments)
        with pytest.raises(LimitExceeded):
            manager.create_key("a" * 256)
        assert not manager.any_key()


def test_a_secret_is_one_for_all(manager: Any) -> None:
    """Whoever asks first makes it, and all get the same; another name has another."""
    first = manager.share_secret("a")
    assert manager.for_tenant("t").share_secret("a") == first
    assert manager.share_secret("b") != first
    assert len(first) == 43


def test_a_secret_is_one_however_many_ask_at_once(shared_url: str) -> None:
    """Managers that race for the first one agree."""

    def ask(_: int) -> str:
        with SessionManager.open(shared_url) as manager:
            return manager.share_secret("web")

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(8)))) == 1


def test_the_call_command_does_not_know_keys() -> None:
    """Keys have commands of their own."""
    from lifecycle.cli.call import operations

    known = operations()
    assert "get_session" in known
    assert not {"create_key", "list_keys", "get_key", "verify_key", "revoke_key", "any_key", "share_secret"} & set(
        known
    )


def lifecycle(url: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    command = [sys.executable, "-m", "lifecycle.cli", "--url", url, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=os.environ | more)


def test_the_commands(migrated_sqlite_url: str) -> None:
    """A key is made, listed without its secret, and revoked; what is wrong is one line."""
    made = lifecycle(
        migrated_sqlite_url, "keys", "create", "ci", "--scope", "write", "--tenant", "acme", "--expires", "90d"
    )
    text = made.stdout.strip()
    assert made.returncode == 0
    assert "shown this once" in made.stderr
    with SessionManager.open(migrated_sqlite_url, "acme") as manager:
        assert manager.verify_key(text) is not None
    whole = json.loads(lifecycle(migrated_sqlite_url, "--all-tenants", "--json", "keys", "create", "boss").stdout)
    assert (whole["tenant"], whole["scope"], whole["key"][:3]) == (None, "read", "lc_")
    listed = lifecycle(migrated_sqlite_url, "keys", "list", "--json")
    assert [key["name"] for key in json.loads(listed.stdout)] == ["ci", "boss"]
    assert text.rpartition("_")[2] not in listed.stdout
    assert "acme" in lifecycle(migrated_sqlite_url, "keys", "list").stdout
    own = json.loads(lifecycle(migrated_sqlite_url, "keys", "list", "--json", "--tenant", "acme").stdout)
    assert [key["name"] for key in own] == ["ci"]
    key_id = own[0]["key_id"]
    assert lifecycle(migrated_sqlite_url, "--tenant", "other", "keys", "revoke", key_id).returncode == 4
    assert json.loads(lifecycle(migrated_sqlite_url, "keys", "revoke", key_id, "--json").stdout)["revoked_at"]
    refused = {
        ("keys", "create", "x", "--scope", "root"): (2, "scope must be one of read, write, admin, not 'root'"),
        ("keys", "create", "x", "--expires", "soon"): (2, "expires_in: must be a duration"),
        ("keys", "create", "x", "--tenant", "a", "--all-tenants"): (2, "exclude each other"),
        ("keys", "create", ""): (2, "name must say who"),
        ("keys", "revoke", "nobody"): (4, "no key 'nobody'"),
        ("keys", "revoke", text): (2, "do not show it around"),
    }
    for arguments, (code, problem) in refused.items():
        done = lifecycle(migrated_sqlite_url, *arguments)
        assert (done.returncode, done.stdout) == (code, ""), arguments
        assert done.stderr.startswith("error: ")
        assert problem in done.stderr
        assert text not in done.stderr


@pytest.mark.parametrize("command", ["serve", "up"])
def test_a_server_that_others_could_reach_does_not_start(migrated_sqlite_url: str, command: str) -> None:
    """Without a key it ends as it does for any mistake in the configuration, and says what to do."""
    place = {"LIFECYCLE_WEB__HOST": "0.0.0.0", "LIFECYCLE_WEB__PORT": "0"}  # noqa: S104 -- what is to be refused
    done = lifecycle(migrated_sqlite_url, command, **place)
    assert done.returncode == 78
    assert "is reached from beyond this machine, and there is no key yet: run `lifecycle keys create" in done.stderr

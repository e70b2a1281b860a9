"""Settings: where they come from, which goes first, and what is said about a wrong one."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from lifecycle.durations import format_duration
from lifecycle.errors import ConfigError
from lifecycle.policies import Policies, Policy
from lifecycle.settings import Settings, load_settings

HOUR, DAY = 3_600, 86_400
TOP = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Start in an empty directory, with none of our variables set."""
    for name in [name for name in os.environ if name.upper().startswith("LIFECYCLE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def load(text: str) -> Settings:
    """Load `text` as ./given.yaml."""
    Path("given.yaml").write_text(text, encoding="utf-8")
    return load_settings("given.yaml")


def refused(text: str) -> ConfigError:
    """Return the error that loading `text` as ./given.yaml raises."""
    with pytest.raises(ConfigError) as raised:
        load(text)
    assert raised.value.source == "given.yaml"
    return raised.value


def dotted(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted key of every setting, kinds apart."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from dotted(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def flat(mapping: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, with dotted keys."""
    items: dict[str, Any] = {}
    for name, value in mapping.items():
        items |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {f"{prefix}{name}": value}
    return items


class TestTheShippedFile:
    """config.yaml at the top of the repository."""

    def test_its_values_are_the_defaults(self) -> None:
        """Loading it changes nothing."""
        assert load_settings(TOP / "config.yaml") == Settings()

    def test_it_has_every_key(self) -> None:
        """Every setting there is stands in it, and nothing else."""
        content = yaml.safe_load((TOP / "config.yaml").read_text(encoding="utf-8"))
        assert sorted(flat(content)) == sorted(dotted(Settings))

    def test_the_default_each_comment_names_is_the_value(self) -> None:
        """A comment that says `default X` stands beside X."""
        for line in (TOP / "config.yaml").read_text(encoding="utf-8").splitlines():
            setting, _, comment = line.partition("  # ")
            _, says, default = comment.partition("default ")
            if says and ": " in setting:
                assert default.split()[0].rstrip(":;,") == setting.split(": ")[1].strip()


class TestSources:
    """The environment goes before the file, the file before the defaults."""

    def test_in_code_nothing_is_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """`Settings()` looks at neither ./config.yaml nor the environment."""
        Path("config.yaml").write_text("limits: {page_size: 7}")
        monkeypatch.setenv("LIFECYCLE_LIMITS__TITLE_CHARS", "7")
        assert Settings().limits == Settings(limits={}).limits
        assert Settings().limits.page_size == 100
        assert Settings(database={"url": "sqlite://"}).database.url == "sqlite://"

    def test_without_a_file_the_defaults_hold(self) -> None:
        """Nothing given, nothing found: the defaults."""
        assert load_settings() == Settings()

    def test_which_file_is_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The path given, else $LIFECYCLE_CONFIG, else ./config.yaml."""
        for size, name in enumerate(("config.yaml", "named.yaml", "given.yaml"), start=1):
            Path(name).write_text(f"limits: {{page_size: {size}}}")
        assert load_settings().limits.page_size == 1
        monkeypatch.setenv("LIFECYCLE_CONFIG", "named.yaml")
        assert load_settings().limits.page_size == 2
        assert load_settings("given.yaml").limits.page_size == 3

    def test_the_environment_goes_before_the_file_key_by_key(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A variable replaces its one key; its neighbours stay the file's."""
        monkeypatch.setenv("LIFECYCLE_LIMITS__PAGE_SIZE", "5")
        monkeypatch.setenv("LIFECYCLE_DATABASE__ALLOW_UNSAFE_DURABILITY", "true")
        monkeypatch.setenv("lifecycle_worker__heartbeat", "3s")
        settings = load("{limits: {page_size: 6, title_chars: 7}, worker: {heartbeat: 4s}}")
        assert (settings.limits.page_size, settings.limits.title_chars) == (5, 7)
        assert settings.database.allow_unsafe_durability is True
        assert settings.worker.heartbeat == 3

    @pytest.mark.parametrize(
        ("below", "variable", "value", "expected"),
        [
            ("{active: 1h, suspended: 2h}", "IDLE", "3h", (3, 2)),
            ("1h", "IDLE__SUSPENDED", "3h", (1, 3)),
            ("1h", "IDLE", '{"suspended": "3h"}', (1, 3)),
            ("1h", "IDLE", "3h", (3, 720)),
        ],
    )
    def test_short_and_long_forms_meet_across_sources(
        self, monkeypatch: pytest.MonkeyPatch, below: str, variable: str, value: str, expected: tuple[int, int]
    ) -> None:
        """A scalar in one source and a mapping in the other are merged as if both were written out."""
        monkeypatch.setenv(f"LIFECYCLE_POLICIES__KINDS__CRON__{variable}", value)
        policy = load(f"policies: {{kinds: {{cron: {{idle: {below}}}}}}}").policy_set.for_kind("cron")
        assert (policy.idle_active, policy.idle_suspended) == tuple(hours * HOUR for hours in expected)

    def test_a_schedule_of_the_environment_replaces_that_of_the_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """`cron` over `every` is no conflict, and a kind named cron is not taken for one."""
        monkeypatch.setenv("LIFECYCLE_WORKER__JOBS__EXPIRE_IDLE__CRON", "*/5 * * * *")
        monkeypatch.setenv("LIFECYCLE_POLICIES__KINDS__EVERY__IDLE", "1h")
        settings = load("{worker: {jobs: {expire_idle: {every: 1h}}}, policies: {kinds: {cron: {idle: 2h}}}}")
        job = settings.worker.jobs.expire_idle
        assert (job.every, job.cron) == (None, "*/5 * * * *")
        assert {kind: policy.idle_active for kind, policy in settings.policy_set.kinds.items()} == {
            "every": HOUR,
            "cron": 2 * HOUR,
        }

    def test_a_section_may_be_json(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One variable can hold a whole section."""
        monkeypatch.setenv("LIFECYCLE_POLICIES", '{"kinds": {"nightly run": {"retention": "1d"}}}')
        assert load_settings().policy_set.for_kind("nightly run").retention("ended") == DAY

    def test_other_programs_variables_are_left_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Kubernetes sets such names for a service called lifecycle."""
        monkeypatch.setenv("LIFECYCLE_PORT", "tcp://10.0.0.1:80")
        monkeypatch.setenv("LIFECYCLE_WORKER_SERVICE_HOST", "10.0.0.1")
        assert load_settings() == Settings()


class TestProblems:
    """Each is a ConfigError that names key, source and what is allowed."""

    @pytest.mark.parametrize(
        ("text", "key", "says"),
        [
            ("limts: {}", "limts", "did you mean limits"),
            ("_env_file: x", "_env_file", "unknown key"),
            ("self: x", "self", "unknown key"),
            ("database: {ulr: x}", "database.ulr", "did you mean url"),
            ("database: 5", "database", "mapping with any of the keys url, pool_size"),
            ("database: {url: lifecycle.db}", "database.url", "sqlite://"),
            ("database: {url: 'oracle://h'}", "database.url", "mariadb://"),
            ("database: {pool_size: 0}", "database.pool_size", "must be greater than or equal to 1; not 0"),
            ("database: {pool_size: yes}", "database.pool_size", "must be a number"),
            ("database: {connect_timeout: never}", "database.connect_timeout", "never is not allowed here"),
            ("database: {allow_unsafe_durability: maybe}", "database.allow_unsafe_durability", "boolean"),
            ("policies: {default: {max_age: }}", "policies.default.max_age", "or never"),
            (
                "policies: {default: {idle: {activ: 1h}}}",
                "policies.default.idle.activ",
                "allowed here: active, suspended",
            ),
            ("policies: {kinds: {cron: {idle: 60x}}}", "policies.kinds.cron.idle", "such as 45s, 60m"),
            ("policies: {kinds: {cron: {idle: [1]}}}", "policies.kinds.cron.idle", "such as 45s, 60m"),
            ("policies: {kinds: {cron: {retention: 0}}}", "policies.kinds.cron.retention", "or never; not 0"),
            ("policies: {kinds: {cron: {ghost: 1}}}", "policies.kinds.cron.ghost", "did you mean ghosts"),
            ("policies: {kinds: {a.b: {ghost: 1}}}", "policies.kinds.a.b.ghost", "did you mean ghosts"),
            ("policies: {kinds: {'': {}}}", "policies.kinds.", "at least 1 character"),
            ("policies: {default: {checkpoints: 5}}", "policies.default.checkpoints", "keys keep_last, keep_every"),
            (
                "policies: {default: {checkpoints: {keep_last: 0}}}",
                "policies.default.checkpoints.keep_last",
                "must be a whole number from 1 to 2147483647, or all; not 0",
            ),
            (
                "policies: {kinds: {cron: {checkpoints: {keep_last: some}}}}",
                "policies.kinds.cron.checkpoints.keep_last",
                "or all; not 'some'",
            ),
            (
                "policies: {kinds: {cron: {checkpoints: {keep_last: yes}}}}",
                "policies.kinds.cron.checkpoints.keep_last",
                "or all; not True",
            ),
            (
                "policies: {kinds: {cron: {checkpoints: {keep_last: }}}}",
                "policies.kinds.cron.checkpoints.keep_last",
                "or all; not None",
            ),
            (
                "policies: {kinds: {cron: {checkpoints: {keep_last: 3, keep_every: 60x}}}}",
                "policies.kinds.cron.checkpoints.keep_every",
                "such as 45s, 60m",
            ),
            (
                "policies: {kinds: {cron: {checkpoints: {keep_every: 1h}}}}",
                "policies",
                "kinds.cron.checkpoints.keep_every needs a keep_last beside it",
            ),
            (
                "policies: {kinds: {cron: {checkpoints: {keep: 3}}}}",
                "policies.kinds.cron.checkpoints.keep",
                "did you mean keep_last",
            ),
            ("worker: {name: ''}", "worker.name", "at least 1 character"),
            ("worker: {jobs: {expire: {}}}", "worker.jobs.expire", "expire_idle"),
            ("worker: {jobs: {expire_idle: {silent_for: 1m}}}", "worker.jobs.expire_idle.silent_for", "unknown key"),
            ("worker: {jobs: {expire_idle: {every: 1m, cron: '* * * * *'}}}", "worker.jobs.expire_idle", "exactly one"),
            ("worker: {jobs: {expire_idle: {every: never}}}", "worker.jobs.expire_idle.every", "never is not allowed"),
            (
                "worker: {jobs: {expire_idle: {pause: -1}}}",
                "worker.jobs.expire_idle.pause",
                "greater than or equal to 0",
            ),
            ("worker: {watchdog: 20s}", "worker", "watchdog (20s) must be longer than jobs.expire_idle.budget"),
            ("limits: {id_chars: 256}", "limits.id_chars", "less than or equal to 255"),
            ("logging: {level: loud}", "logging.level", "'debug', 'info'"),
            ("limits: {page_size: 0, title_chars: 0}", "limits.title_chars", "also wrong: limits.page_size"),
            ("- a", "file", "mapping with any of the keys database"),
            ("limits: {page_size: 1", "line 1", "valid YAML"),
            ("limits:\n  page_size: 1\n  page_size: 2", "line 3", "page_size is given twice"),
            ("policies:\n  kinds: {on: {}}", "line 2", "put it in quotes"),
            ("a: \x07", "file", "valid YAML"),
        ],
    )
    def test_a_wrong_file(self, text: str, key: str, says: str) -> None:
        """The key is the dotted one, and the problem says what is allowed."""
        error = refused(text)
        assert error.key == key
        assert says in error.problem

    @pytest.mark.parametrize(
        "cron",
        ["* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "*/0 * * * *", "5-1 * * * *", "* * * * 1", "x * * * *"],
    )
    def test_a_wrong_cron_line(self, cron: str) -> None:
        """Fields out of range, and weekdays by number, which schedulers read differently, are refused."""
        assert refused(f"worker: {{jobs: {{expire_idle: {{cron: '{cron}'}}}}}}").key == "worker.jobs.expire_idle.cron"

    @pytest.mark.parametrize("cron", ["*/5 * * * *", "0 3 * * mon-fri", "0,30 0-6/2 1,15 1-6 SUN"])
    def test_a_cron_line_is_a_schedule(self, cron: str) -> None:
        """A job with `cron` has no default `every`."""
        job = load(f"worker: {{jobs: {{prune_sessions: {{cron: '{cron}'}}}}}}").worker.jobs.prune_sessions
        assert (job.every, job.cron) == (None, cron)

    @pytest.mark.parametrize(
        ("variable", "value", "key", "says"),
        [
            ("LIFECYCLE_LIMITS__PAGE_SIZE", "many", "limits.page_size", "valid integer"),
            ("LIFECYCLE_LIMITS__PAGESIZE", "1", "limits.pagesize", "did you mean page_size"),
            ("LIFECYCLE_LIMTS__PAGE_SIZE", "1", "limts.page_size", "LIFECYCLE_LIMTS__PAGE_SIZE is set"),
            ("LIFECYCLE_DATABASE_URL", "sqlite://", "database.url", "LIFECYCLE_DATABASE__URL"),
            ("LIFECYCLE_DATABASE__URL", "", "database.url", "sqlite://"),
            ("LIFECYCLE_DATABASE", "{", "database", "mapping with any of the keys"),
            ("LIFECYCLE_POLICIES__KINDS__CRON__IDLE", "60x", "policies.kinds.cron.idle", "such as 45s"),
        ],
    )
    def test_a_wrong_environment(
        self, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, key: str, says: str
    ) -> None:
        """A variable that is wrong, or that would silently do nothing, is refused, whatever the file says."""
        monkeypatch.setenv(variable, value)
        Path("config.yaml").write_text("limits: {page_size: 5}")
        with pytest.raises(ConfigError) as raised:
            load_settings()
        assert (raised.value.source, raised.value.key) == ("environment", key)
        assert says in raised.value.problem

    def test_what_file_and_environment_did_together(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two values that are wrong only together are blamed on both sources."""
        monkeypatch.setenv("LIFECYCLE_WORKER__WATCHDOG", "1m")
        Path("given.yaml").write_text("worker: {jobs: {expire_idle: {budget: 90s}}}")
        with pytest.raises(ConfigError) as raised:
            load_settings("given.yaml")
        assert (raised.value.source, raised.value.key) == ("given.yaml and environment", "worker")

    def test_an_unreadable_file(self) -> None:
        """A path that was named must be there, be a file and be UTF-8."""
        Path("latin.yaml").write_bytes(b"worker: {name: \xe9}")
        for path, says in (("none.yaml", "No such file"), (".", "Is a directory"), ("latin.yaml", "UTF-8; byte 15")):
            with pytest.raises(ConfigError, match=says) as raised:
                load_settings(path)
            assert raised.value.source == path

    def test_in_code(self) -> None:
        """Arguments are held to the same rules."""
        with pytest.raises(ConfigError, match=r"^configuration: limits.page_size: must be greater than"):
            Settings(limits={"page_size": 0})
        with pytest.raises(ConfigError, match=r"^configuration: limts: unknown key; did you mean limits"):
            Settings(limts={})

    @pytest.mark.parametrize("url", ["oracle://me:hunter2@host/db", "postgresql:/me:hunter2@host"])
    def test_no_password_is_told(self, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
        """Neither the error nor anything chained to it quotes a URL's password."""
        for variable in ("LIFECYCLE_DATABASE__URL", "LIFECYCLE_DATABASE"):
            with monkeypatch.context() as patch:
                patch.setenv(variable, url)
                with pytest.raises(ConfigError) as raised:
                    load_settings()
            assert "hunter2" not in str(raised.value)
            assert raised.value.__cause__ is None


class TestPolicies:
    """From the written form to the policies the code takes."""

    def test_kinds_inherit_what_they_leave_out(self) -> None:
        """At every depth, and from the default as configured; a scalar idle is the active one, a retention all three."""
        settings = load("""
            policies:
              default: {idle: {active: 2h, suspended: 3h}, max_age: 9d, retention: {ended: 4h}, ghosts: never}
              kinds:
                cron: {idle: 60m, retention: 1d}
                chat: {idle: {suspended: never}, retention: {expired: 5h}, max_age: never}
                bare:
        """)
        default = Policy(2 * HOUR, 3 * HOUR, 9 * DAY, 30 * DAY, 4 * HOUR, 30 * DAY, None)
        assert settings.policy_set == Policies(
            default,
            {
                "cron": Policy(HOUR, 3 * HOUR, 9 * DAY, DAY, DAY, DAY, None),
                "chat": Policy(2 * HOUR, None, None, 30 * DAY, 4 * HOUR, 5 * HOUR, None),
                "bare": default,
            },
        )

    def test_kinds_inherit_which_checkpoints_are_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Key by key, as the rest; `all` and `never` take back what the default says, and the environment has a say."""
        monkeypatch.setenv("LIFECYCLE_POLICIES__KINDS__COPILOT__CHECKPOINTS__KEEP_LAST", "7")
        settings = load("""
            policies:
              default: {checkpoints: {keep_last: 20, keep_every: 1h}}
              kinds:
                audit: {checkpoints: {keep_last: ALL}}
                cron: {checkpoints: {keep_every: never}}
                chat: {checkpoints: {keep_every: 1d}}
                copilot:
        """)
        kept = {
            kind: (policy.checkpoints_keep_last, policy.checkpoints_keep_every)
            for kind, policy in settings.policy_set.kinds.items()
        }
        assert kept == {"audit": (None, HOUR), "cron": (20, None), "chat": (20, DAY), "copilot": (7, HOUR)}
        shown = settings.redacted()
        assert shown["policies"]["kinds"]["audit"]["checkpoints"] == {"keep_last": "all", "keep_every": "1h"}
        assert Settings(**json.loads(json.dumps(shown))) == settings

    def test_the_defaults_are_those_of_the_code(self) -> None:
        """Settings and `Policy` do not disagree."""
        assert Settings().policy_set == Policies()

    def test_the_set_is_built_once(self) -> None:
        """What the policies cache is not thrown away."""
        settings = Settings()
        assert settings.policy_set is settings.policy_set

    def test_empty_sections_are_defaults(self) -> None:
        """A section whose keys are all commented out is no mistake."""
        empty = "{database: , policies: {default: , kinds: }, worker: {jobs: {expire_idle: , reap_connections: }}}"
        assert load(empty) == Settings()
        assert load("") == Settings()


class TestJobs:
    """The worker's jobs."""

    def test_the_default_schedules(self) -> None:
        """Each job has its own; the rest is alike, but for what a batch of a directory is."""
        jobs = Settings().worker.jobs.by_name()
        assert {name: job.every for name, job in jobs.items()} == {
            "expire_idle": 30,
            "prune_sessions": 300,
            "delete_ghosts": 300,
            "expire_approvals": 30,
            "reap_connections": 60,
            "sync_directories": 30,
            "sample_counts": 60,
        }
        assert {(job.cron, job.enabled, job.budget, job.slices) for job in jobs.values()} == {(None, True, 20, 1)}
        assert {name: job.batch for name, job in jobs.items()} == dict.fromkeys(jobs, 5000) | {"sync_directories": 500}

    def test_another_setting_leaves_the_schedule(self) -> None:
        """A job given only a batch keeps running when it did."""
        job = load("worker: {jobs: {prune_sessions: {batch: 9}}}").worker.jobs.prune_sessions
        assert (job.every, job.batch) == (300, 9)


class TestShowing:
    """`redacted`, for `lifecycle config show`."""

    @pytest.mark.parametrize("password", ["hunter2", "p@ss:w/rd", "%40%2F"])
    def test_passwords_are_masked_and_nothing_else(self, password: str) -> None:
        """The URL stays readable."""
        settings = Settings(database={"url": f"postgresql://me:{password}@host:5432/db?sslmode=require"})
        assert settings.redacted()["database"]["url"] == "postgresql://me:***@host:5432/db?sslmode=require"

    def test_a_password_in_the_query_is_masked_too(self) -> None:
        """PostgreSQL takes it there as well."""
        settings = Settings(database={"url": "postgresql://host/db?user=me&password=hunter2&sslmode=require"})
        assert settings.redacted()["database"]["url"] == "postgresql://host/db?user=me&password=***&sslmode=require"

    @given(seconds=st.none() | st.integers(1, 10**9), kind=st.text("ab.é", min_size=1), size=st.integers(1, 10**9))
    def test_what_is_shown_can_be_loaded(self, seconds: int | None, kind: str, size: int) -> None:
        """Without a password, it is plain JSON that gives the same settings back."""
        written = format_duration(seconds)
        settings = Settings(
            policies={"default": {"max_age": written}, "kinds": {kind: {"idle": written}}}, limits={"page_size": size}
        )
        assert Settings(**json.loads(json.dumps(settings.redacted()))) == settings
        assert Settings(**settings.model_dump()) == settings

    def test_settings_do_not_change(self) -> None:
        """They are shared by all of a process."""
        with pytest.raises(ValueError, match="frozen"):
            Settings().limits.page_size = 5  # type: ignore[misc]

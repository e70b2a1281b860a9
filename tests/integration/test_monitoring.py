"""What docs/monitoring and deploy hold is of this release: metrics that are exported, settings that there are."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from lifecycle import ALL, SessionManager, metrics, observing
from lifecycle.settings import load_settings
from lifecycle.upkeep import Upkeep
from tests.serving import serving

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs" / "monitoring"
DEPLOY = ROOT / "deploy"
UNITS = ("lifecycle-worker.service", "lifecycle-serve.service")


@pytest.fixture
def exported(migrated_sqlite_url: str) -> dict[str, tuple[str, set[str]]]:
    """Every metric of ours that a process exports where everything has happened: its type and labels by its name."""
    metrics.of_process.cache_clear()
    with serving(migrated_sqlite_url) as served, SessionManager.open(migrated_sqlite_url, ALL) as manager:
        upkeep = Upkeep(manager)
        for name in ("expire_idle", "sample_counts"):
            upkeep.run_job(name)
        driver: Any = manager._driver
        metrics.of_process().add_pool("worker", driver)
        httpx2.get(f"{served.url}/livez")
        text = httpx2.get(f"{served.url}/metrics").text
    for observer in observing.OBSERVERS:
        observing.forget(observer)
    metrics.of_process.cache_clear()
    return {
        family.name + ("_total" if family.type == "counter" else ""): (
            family.type,
            {label for sample in family.samples for label in sample.labels} - {"le"},
        )
        for family in text_string_to_metric_families(text)
        if family.name.startswith("lifecycle_") and not family.name.endswith("_created")
    }


def series_of(exported: dict[str, tuple[str, set[str]]]) -> set[str]:
    """The names by which queries may call them."""
    parts = ("_bucket", "_count", "_sum")
    return set(exported) | {
        name + part for name, (kind, _) in exported.items() if kind == "histogram" for part in parts
    }


def queries() -> Iterator[tuple[str, str]]:
    """Every expression of the dashboard and of the rules, with where it stands."""
    dashboard = json.loads((DOCS / "grafana-dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    yield "job", dashboard["templating"]["list"][1]["query"]["query"]
    for group in yaml.safe_load((DOCS / "alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


def test_queries_are_of_metrics_that_are_exported(exported: dict[str, tuple[str, set[str]]]) -> None:
    """With labels that they have; of each metric there is a query."""
    known, asked = series_of(exported), set()
    labels = {label for _, own in exported.values() for label in own} | {"le", "job", "instance", "result", "pool"}
    for where, query in queries():
        names = set(re.findall(r"\blifecycle_[a-z_]+", query))
        assert names, (where, query)
        assert names <= known, (where, names - known)
        asked |= names
        used = set(re.findall(r"\bby \(([^)]*)\)", query)) | set(re.findall(r"[{,]\s*([a-z_]+)\s*[=!]~?", query))
        assert {label.strip() for group in used for label in group.split(",")} <= labels, (where, query)
    used_bases = {
        name for name in exported for one in asked if one.removeprefix(name) in {"", "_bucket", "_count", "_sum"}
    }
    assert set(exported) - used_bases == {"lifecycle_sweep_failing", "lifecycle_build_info"} - used_bases


def test_the_readme_has_every_metric_and_no_other(exported: dict[str, tuple[str, set[str]]]) -> None:
    """With its type and its labels, as far as it has values here."""
    told = {}
    for line in (DOCS / "README.md").read_text().splitlines():
        if found := re.fullmatch(r"\| `(lifecycle_\w+)` \| (\w+) \|(.*?)\| .+ \|", line):
            told[found[1]] = found[2], set(re.findall(r"`(\w+)`", found[3]))
    names = {name.removesuffix("_info") if kind == "info" else name for name, (kind, _) in exported.items()}
    assert {name.removesuffix("_info") for name in told} == {name.removesuffix("_info") for name in names}
    for name, (kind, labels) in exported.items():
        # The text format knows no info: it is a gauge there.
        assert told[name][0] == ("info" if name == "lifecycle_build_info" else kind), name
        assert labels <= told[name][1], name


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    """Panels have ids of their own, lie side by side, and take the data source that is chosen."""
    dashboard = json.loads((DOCS / "grafana-dashboard.json").read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["title"]
        assert panel["description"]
        assert {one["datasource"]["uid"] for one in panel["targets"]} == {"${datasource}"}


def test_each_rule_says_what_to_do() -> None:
    """A name of its own, a severity, a summary and a description."""
    (group,) = yaml.safe_load((DOCS / "alerts.yaml").read_text())["groups"]
    names = [rule["alert"] for rule in group["rules"]]
    assert len(names) == len(set(names))
    for rule in group["rules"]:
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert {"summary", "description"} == set(rule["annotations"])


@pytest.fixture
def compose() -> dict[str, Any]:
    """The Compose file."""
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


def settings_of(environment: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The settings that a process finds with an environment. Raises `ConfigError` for a name that there is not."""
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    return load_settings()


def test_compose_names_settings_that_there_are(
    compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Those of each service, and what they come to."""
    hosts = {}
    for name, service in compose["services"].items():
        given = {key: value for key, value in service["environment"].items() if key.startswith("LIFECYCLE_")}
        with monkeypatch.context() as patch:
            found = settings_of(given, patch, tmp_path)
            hosts[name] = found.web.host, found.worker.host, found.worker.port
    assert hosts["api"] == ("0.0.0.0", "127.0.0.1", None)  # noqa: S104 -- in its container
    assert hosts["worker"] == ("127.0.0.1", "0.0.0.0", 8471)  # noqa: S104 -- as above


def test_compose_has_no_passwords_and_publishes_to_this_machine(compose: dict[str, Any]) -> None:
    """Each secret must be given; what is published is so on loopback."""
    for name, service in compose["services"].items():
        for key, value in service["environment"].items():
            if "PASSWORD" in key:
                assert str(value).startswith("${POSTGRES_PASSWORD:?"), (name, key)
            assert "@" not in str(value) or re.fullmatch(r"postgresql://\w+@postgres/\w+", str(value)), (name, key)
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        if name != "postgres":
            assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
            assert service["build"]["dockerfile"] == "deploy/Dockerfile"


def test_the_image_is_made_of_files_that_there_are() -> None:
    """It copies what the package is built from, runs as nobody special, and is checked."""
    lines = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    by_word: dict[str, list[str]] = {}
    for line in lines:
        word, _, rest = line.partition(" ")
        by_word.setdefault(word, []).append(rest)
    sources = [part for rest in by_word["COPY"] if "--from" not in rest for part in rest.split()[:-1]]
    assert all((ROOT / source).exists() for source in sources)
    allowed = {
        line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")
    }
    assert allowed == set(sources)
    assert by_word["USER"] == ["10001:10001"]
    assert "/livez" in by_word["HEALTHCHECK"][0]
    # Constraints may name no extras, nor anything that is not a version.
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        assert re.match(r"[A-Za-z0-9._-]+==", line), line


def test_the_health_check_asks_whether_it_lives(migrated_sqlite_url: str) -> None:
    """The very command of the image: 0 where a process lives, something else where there is none."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    command = json.loads(re.search(r"HEALTHCHECK .*? CMD (\[.*\])", text)[1])  # type: ignore[index]
    assert command[0] == "python"
    with serving(migrated_sqlite_url) as served:
        env = os.environ | {"MONITOR_PORT": served.url.rsplit(":", 1)[1]}
        assert subprocess.run([sys.executable, *command[1:]], env=env, check=False).returncode == 0
    failed = subprocess.run([sys.executable, *command[1:]], env=env, check=False, stderr=subprocess.DEVNULL)
    assert failed.returncode != 0


@pytest.mark.parametrize("name", UNITS)
def test_units_name_settings_and_commands_that_there_are(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And exit codes that mean what they say."""
    text = (DEPLOY / name).read_text()
    (line,) = re.findall(r"^Environment=(.*)$", text, re.MULTILINE)
    given = dict(one.split("=", 1) for one in line.split())
    config = Path(given.pop("LIFECYCLE_CONFIG"))
    assert config.is_absolute()
    settings = settings_of(given, monkeypatch, tmp_path)
    assert settings.logging.format == "json"
    (command,) = re.findall(r"^ExecStart=/opt/lifecycle/bin/lifecycle (\w+)$", text, re.MULTILINE)
    shown = subprocess.run(
        [sys.executable, "-m", "lifecycle.cli", command, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    stop = int(re.search(r"^TimeoutStopSec=(\d+)s$", text, re.MULTILINE)[1])  # type: ignore[index]
    assert stop >= (settings.worker.drain_timeout + 5 if command == "worker" else 15)


@pytest.mark.parametrize("name", UNITS)
def test_systemd_takes_the_units(name: str, tmp_path: Path) -> None:
    """Its own check finds nothing wrong, a program being where the unit says."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    unit = tmp_path / name
    unit.write_text((DEPLOY / name).read_text().replace("/opt/lifecycle/bin/lifecycle", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")

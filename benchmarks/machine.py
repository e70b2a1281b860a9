"""The machine that the figures are of."""

import os
import platform
import sqlite3
import statistics
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import psutil

_BLOCK: Final = b"\0" * 4096
_PACKAGES: Final = (
    "psycopg",
    "pymysql",
    "sqlalchemy",
    "langgraph-checkpoint-postgres",
    "langgraph-checkpoint-sqlite",
    "openai-agents",
    "google-adk",
    "asyncpg",
)


def describe(folder: Path, servers: Mapping[str, str], syncs: int) -> dict[str, str]:
    """What it is, by name: processor, memory, disk, kernel, and the versions of what took part.

    `folder` is where the databases are; its disk is asked to sync `syncs` times.
    """
    versions = {"Python": platform.python_version(), "SQLite": sqlite3.sqlite_version, **servers}
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "disk": f"{_file_system(folder)}; write and fsync of 4 KiB: {_sync_seconds(folder, syncs) * 1e6:,.0f} µs (median)",
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "servers": ", ".join(f"{name} {number}" for name, number in versions.items()),
        "packages": ", ".join(f"{name} {found}" for name in _PACKAGES if (found := _version(name))),
    }


def load() -> float:
    """How many processes have been at work in the last minute, on average."""
    return os.getloadavg()[0]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def _file_system(folder: Path) -> str:
    real = folder.resolve()
    below = [part for part in psutil.disk_partitions(all=True) if real.is_relative_to(part.mountpoint)]
    return max(below, key=lambda part: len(part.mountpoint)).fstype if below else "unknown file system"


def _sync_seconds(folder: Path, syncs: int) -> float:
    path, taken = folder / "syncs", []
    with path.open("wb", buffering=0) as file:
        for _ in range(syncs):
            began = time.perf_counter()
            file.write(_BLOCK)
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - began)
    path.unlink()
    return statistics.median(taken)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

"""Reads through a cache: beside those without one, and while it fails."""

import asyncio
from dataclasses import asdict
from typing import Final

from benchmarks import cache_failing, cache_reads
from benchmarks.bench import Bench, Section
from benchmarks.grid import Grid
from benchmarks.measure import Result, warming
from tests.valkey import ValkeyServer, find_valkey

_SECONDS: Final = 0.9  # that something happens to the cache
_COMPARED: Final = 5.0  # seconds at the most that reads are compared, on each database with each manager

_HEAD: Final = """## Cache

Each read through a cache beside the same read without one (`benchmarks/cache.py`), with a Valkey server on a unix
socket of the same machine: what the network to a database or a cache takes is not in it. The state of 100 KB is a
conversation of 420 entries, and reading its JSON is most of the time. A save with the load after it is what a cache
makes dearer: it is dropped and filled again.
"""


def section(bench: Bench) -> Section:
    """Reads with a cache beside those without (which are the floor), and while it fails."""
    results: list[Result] = []
    watched: list[cache_failing.Longest] = []
    seconds = bench.pick(_SECONDS, 0.1)
    with ValkeyServer(find_valkey()) as server, bench.postgresql("cached") as there, bench.sqlite("cached") as here:
        for database, url in (("PostgreSQL", there), ("SQLite", here)):
            total = bench.turns + warming(bench.turns)
            progress = bench.stage(f"cache on {database}, sync", total)
            results += cache_reads.sync_results(database, url, server, bench.turns, progress, bench.until(_COMPARED))
            progress = bench.stage(f"cache on {database}, async", total)
            results += asyncio.run(
                cache_reads.async_results(database, url, server, bench.turns, progress, bench.until(_COMPARED))
            )
            progress = bench.stage(f"failing cache on {database}", cache_failing.STAGES)
            watched += cache_failing.failing(database, url, server, progress, seconds)
    compared = Grid(
        ("setting", "operation", "no cache (µs)", "cache (µs)", "ratio"),
        [(one.setting, one.name, f"{one.floor_us:,.0f}", f"{one.ours_us:,.0f}", f"{one.ratio:.2f}") for one in results],
        texts=2,
    )
    failing = cache_failing.grid(watched)
    figures = {"operations": [one.figures() for one in results], "failing": [asdict(one) for one in watched]}
    text = "\n".join((_HEAD, compared.markdown(), cache_failing.told(seconds), failing.markdown()))
    return Section(figures, [compared.rich(), failing.rich()], text)

"""How much of a driver's connections is in use, for metrics."""

from typing import Any, NamedTuple

import sqlalchemy as sa


class PoolUse(NamedTuple):
    """Connections that may be open at most, are in use, are open and idle; and callers that wait for one."""

    size: int
    in_use: int
    idle: int
    waiting: int


def pool_use(driver: Any) -> PoolUse | None:
    """The use of a driver's pool, of either kind of manager; None where it has none, as on SQLite, or not yet."""
    pool = getattr(driver, "_pool", None)
    if pool is not None:
        numbers = pool.get_stats()
        idle = numbers.get("pool_available", 0)
        in_use = max(0, numbers.get("pool_size", 0) - idle)
        return PoolUse(numbers.get("pool_max", 0), in_use, idle, numbers.get("requests_waiting", 0))
    threads = getattr(driver, "_executor", None)
    engine = getattr(getattr(driver, "driver", driver), "engine", None)
    if engine is None or not isinstance(engine.pool, sa.pool.QueuePool):
        return None
    # Those who wait here wait for a thread, of which there are as many as connections.
    waiting = threads._work_queue.qsize() if threads is not None else 0  # noqa: SLF001 -- there is no other way to it
    return PoolUse(engine.pool.size(), engine.pool.checkedout(), engine.pool.checkedin(), waiting)

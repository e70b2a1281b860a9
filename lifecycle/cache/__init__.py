"""A Valkey (or Redis) cache in front of the database, for `get_session` and `load_state`.

`CachedDriver` and `AsyncCachedDriver` stand between a manager and its driver: they meet these two reads from the cache
and pass all else on, dropping from the cache what a write touched. docs/cache.md says what a cached read promises.
"""

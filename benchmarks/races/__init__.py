"""Races for stale writes: a holder given up for dead goes on, or two servers write on one version.

The same races, with the same processes and the same database server, for each way to use Lifecycle and for the session
stores of LangGraph and of Google ADK. A write is stale when the state it was computed from lacks a write that somebody
else was told is done.
"""

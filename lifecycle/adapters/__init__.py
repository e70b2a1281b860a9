"""Stores for agent frameworks, each built on a manager alone and in a module of its own, which needs its framework."""

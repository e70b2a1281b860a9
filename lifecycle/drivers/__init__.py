"""Drivers: they carry an operation's requests to a database, and know nothing of what they mean."""

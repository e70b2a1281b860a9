"""The Alembic migrations, shipped with the library; `lifecycle.migrate` runs them."""

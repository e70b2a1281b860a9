"""How the database and its jobs are, in three reads by key: what `/readyz` and `/metrics` go by."""

from lifecycle.models.reads import Health
from lifecycle.operations.context import Context
from lifecycle.operations.requests import ListWorkers, ReadSchema
from lifecycle.operations.samples import read_counts
from lifecycle.operations.typing import Steps


def get_health(context: Context) -> Steps[Health]:
    """Whether the database answers, which schema it has, how its jobs went last, and the counts of `get_counts`.

    Raises `StorageUnavailable` when it does not answer, and `SchemaOutdated` when its tables are not there.
    """
    revision = yield ReadSchema()
    workers, jobs = yield ListWorkers()
    at, counts = yield from read_counts(context)
    return Health.of({"at": at, "schema_revision": revision, "jobs": jobs, "workers": workers, "counts": counts})

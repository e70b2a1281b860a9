"""Session directories: sessions that agents keep in files, brought into the database and cleaned up on disk.

`SessionDirectory(root, manager)` has all of it: `scan`, `sync`, `delete`, `prune`, `orphans` and `retention`.
`docs/directories.md` says what is promised.
"""

from lifecycle.directories.directory import SessionDirectory
from lifecycle.directories.layout import BrokenIndex
from lifecycle.directories.reports import (
    AgentScan,
    DeleteReport,
    Orphan,
    OrphanReport,
    PruneReport,
    RetentionReport,
    ScanReport,
    SyncProblem,
    SyncReport,
)

__all__ = [
    "AgentScan",
    "BrokenIndex",
    "DeleteReport",
    "Orphan",
    "OrphanReport",
    "PruneReport",
    "RetentionReport",
    "ScanReport",
    "SessionDirectory",
    "SyncProblem",
    "SyncReport",
]

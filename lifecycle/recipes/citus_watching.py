"""How a watch goes through the audit log on Citus: by the coordinator's transactions, as every write goes through it.

A page is read from all nodes and sorted out here: what chooses within a page would have to be sent back to them.
"""

from typing import Final

from lifecycle.operations import requests as r
from lifecycle.recipes.portable.base import Recipe
from lifecycle.recipes.watching import SETTLED, T, bind, page, read

_PAGE: Final = page(T.txid, SETTLED, False, False)


def read_transitions(request: r.ReadTransitions) -> Recipe:
    """A page by transaction."""
    return read(request, (yield _PAGE, bind(request)))

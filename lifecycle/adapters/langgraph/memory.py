"""What a saver remembers of the checkpoints that it read and put last, so that a put needs no look at them."""

import threading
from collections import OrderedDict
from typing import Final

from lifecycle.adapters.langgraph.rows import Known

# Of so many threads' namespaces, one checkpoint each: the next one is put behind it.
_MOST: Final = 256


class Memory:
    """The last checkpoint of each namespace of the threads used last. Any thread may use it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._known: OrderedDict[tuple[str, str], Known] = OrderedDict()

    def get(self, thread_id: str, namespace: str, place: str) -> Known | None:
        """What is known of the checkpoint there."""
        with self._guard:
            known = self._known.get((thread_id, namespace))
        return known if known is not None and known.place == place else None

    def keep(self, thread_id: str, namespace: str, known: Known) -> None:
        """Remember a checkpoint as the last one."""
        with self._guard:
            self._known[thread_id, namespace] = known
            self._known.move_to_end((thread_id, namespace))
            if len(self._known) > _MOST:
                self._known.popitem(last=False)

    def forget(self, thread_id: str, namespace: str) -> None:
        """Remember none."""
        with self._guard:
            self._known.pop((thread_id, namespace), None)

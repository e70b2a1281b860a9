"""The mark of a parameter that was not passed, where None is a value like any other."""

from enum import Enum


class Unset(Enum):
    """One member: compare with `is UNSET`."""

    UNSET = "UNSET"

    def __repr__(self) -> str:
        """As it reads in a signature."""
        return "UNSET"


UNSET = Unset.UNSET

"""What every section of the configuration is."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    """A mapping of known keys, fixed once read; left empty it is all defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _mapping(cls, value: Any) -> Any:
        if value is None:
            return {}
        return value if isinstance(value, Mapping | cls) else cls.from_scalar(value)

    @classmethod
    def from_scalar(cls, _value: Any) -> Mapping[str, Any]:
        """What a single value in place of the mapping means. Raises ValueError where it means nothing."""
        raise ValueError(f"must be a mapping with any of the keys {', '.join(cls.model_fields)}")

    def inheriting(self, default: Self) -> Self:
        """Return this section with whatever it leaves out taken from `default`."""
        values: dict[str, Any] = {}
        for name in type(self).model_fields:
            own, inherited = getattr(self, name), getattr(default, name)
            if isinstance(own, Section):
                values[name] = own.inheriting(inherited)
            else:
                values[name] = own if name in self.model_fields_set else inherited
        return self.model_copy(update=values)

"""Settings and records: validated with a sentence, written and read as JSON, described by a schema."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from steel_core.errors import SteelError, UsageError


class Record(BaseModel):
    """Base of all settings and records. Frozen; unknown fields and numbers that are not finite are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="null")

    error: ClassVar[type[SteelError]] = UsageError
    """What is raised where a value is not what was expected."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise self.error(sentence_of(error)) from None

    def replace(self, **changes: Any) -> Self:
        """The same with other values, validated like the first."""
        return type(self)(**dict(self) | changes)

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Read what `to_json` wrote, already decoded.

        Raises:
            SteelError: of the class `error`: it is not such a record.
        """
        if not isinstance(content, dict):
            raise cls.error(f"expected an object with the fields of {cls.__name__}, got {type(content).__name__}")
        return cls(**content)

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `json` can write."""
        return self.model_dump(mode="json")


def sentence_of(error: ValidationError) -> str:
    """What was expected and what came, of the first value that is wrong, and how many others are."""
    first, *others = error.errors(include_url=False)
    place = ".".join(str(part) for part in first["loc"])
    said = (
        first["msg"]
        .removeprefix("Value error, ")
        .replace("Input should be", "expected")
        .replace("Extra inputs are not permitted", "expected no such setting")
    )
    named = f"{place.replace('_', ' ')}: {said}" if place and not said.startswith(place) else said
    came = "" if first["type"] in ("missing", "value_error") else f", got {first['input']!r:.80}"
    more = f" (and {len(others)} more)" if others else ""
    return f"{named}{came}{more}"

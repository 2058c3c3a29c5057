"""Settings and records: validated with a sentence, written and read as JSON or TOML, described by a schema."""

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    Strict,
    ValidationError,
    model_serializer,
)

from steel_core.errors import SteelError, UsageError

Number = Annotated[float, Strict()]
"""A finite number, neither a text that holds one nor true or false."""

Share = Annotated[float, Strict(), Field(ge=0, le=1)]
Count = Annotated[int, Strict(), Field(ge=0)]
Flag = Annotated[bool, Strict()]

AUTO = "auto"
"""Stands for None in files and on the command line: the program chooses."""


def parse_size(size: Any) -> Any:
    """Height and width out of HEIGHTxWIDTH; what is no text passes as it is."""
    if not isinstance(size, str):
        return size
    rows, _, columns = size.lower().partition("x")
    if not (rows.isdigit() and columns.isdigit() and int(rows) > 0 and int(columns) > 0):
        raise UsageError(f"size: expected HEIGHTxWIDTH such as 200x200, got {size!r}")
    return int(rows), int(columns)


_Side = Annotated[int, Strict(), Field(ge=1, le=8192)]
_none_of_auto = BeforeValidator(lambda value: None if value == AUTO else value)
AutoSize = Annotated[tuple[_Side, _Side] | None, BeforeValidator(parse_size), _none_of_auto]
"""Height and width in pixels, or None."""

AutoNumber = Annotated[Number | None, _none_of_auto]


class Record(BaseModel):
    """Base of all settings and records. Frozen; unknown fields and numbers that are not finite are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="null")

    error: ClassVar[type[SteelError]] = UsageError
    """What is raised where a value is not what was expected."""

    published: ClassVar[str] = ""
    """Name of its schema in `docs/schemas`."""

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise self.error(sentence_of(error)) from None

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # errors of a nested record name its place

    def replace(self, **changes: Any) -> Self:
        """The same with other values, validated like the first."""
        return type(self)(**{name: getattr(self, name) for name in self.model_fields_set} | changes)

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Read what `to_json` wrote, already decoded; raises `error` if it is not such a record."""
        if not isinstance(content, dict):
            raise cls.error(f"expected an object with the fields of {cls.__name__}, got {type(content).__name__}")
        return cls(**content)

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


class PartialRecord(Record):
    """A record of which only what was set is written."""

    @model_serializer(mode="wrap")
    def _only_set(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialize(self).items() if name in self.model_fields_set}


def sentence_of(error: ValidationError) -> str:
    """What was expected and what came, of the first value that is wrong, and how many others are."""
    first, *others = error.errors(include_url=False)
    place = ".".join(str(part) for part in first["loc"])
    sentence = (
        first["msg"]
        .removeprefix("Value error, ")
        .replace("Input should be", "expected")
        .replace("Field required", "expected a value, got none")
        .replace("Extra inputs are not permitted", "expected no such setting")
    )
    named = f"{place.replace('_', ' ')}: {sentence}" if place and not sentence.startswith(place) else sentence
    came = "" if first["type"] in ("missing", "value_error") else f", got {first['input']!r:.80}"
    more = f" (and {len(others)} more)" if others else ""
    return f"{named}{came}{more}"


def describe_fields(record: type[Record]) -> dict[str, dict[str, Any]]:
    """The JSON schema of each field, by name: type, default, bounds, title, description, and what a form adds to them.

    A field that may be None has the schema of its values with `"auto": True`; one that is a record itself has that
    record's fields as `"fields"`.
    """
    schema = record.model_json_schema()
    described = {}
    for name, field in schema["properties"].items():
        values = [kind for kind in field.pop("anyOf", [field]) if kind.get("type") != "null"]
        described[name] = values[0] | field | ({"auto": True} if field.get("default", "") is None else {})
        if "$ref" in field:
            nested = record.model_fields[name].annotation
            assert isinstance(nested, type) and issubclass(nested, Record)
            described[name]["fields"] = describe_fields(nested)
    return described


def to_toml(record: Record) -> str:
    """A file that `read_toml` reads; AUTO stands for None."""

    def lines(content: dict[str, Any]) -> list[str]:
        plain = {name: AUTO if value is None else value for name, value in content.items()}
        texts = {
            name: json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f") for name, value in plain.items()
        }
        return [f"{name} = {text}" for name, text in texts.items()]

    content = record.model_dump(mode="json")
    tables = {name: content.pop(name) for name, value in list(content.items()) if isinstance(value, dict)}
    parts = [lines(content), *([f"[{name}]", *lines(table)] for name, table in tables.items())]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def read_toml(path: Path, record: type[Record]) -> dict[str, Any]:
    """The fields of a record that a TOML file holds; they are not validated yet.

    Raises:
        UsageError: the file is not here, is no TOML, or holds something that is no field.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path.name}: expected a file of settings, as TOML ({error})") from None
    _check_names(content, record, path.name)
    return content


def _check_names(content: dict[str, Any], record: type[Record], where: str) -> None:
    for name, value in content.items():
        if name not in record.model_fields:
            raise UsageError(f"{where}: expected settings out of {', '.join(record.model_fields)}; got {name!r}")
        nested = record.model_fields[name].annotation
        if isinstance(nested, type) and issubclass(nested, Record):
            if not isinstance(value, dict):
                raise UsageError(f"{where}: expected a table [{name}], got {value!r:.80}")
            _check_names(value, nested, f"{where}, {name}")

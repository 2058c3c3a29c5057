"""Flags made from a record of settings, and the settings read from flags: each setting is defined once, in its record.

A flag is named like its field, or by the field's `flag`; only what was given goes into the namespace. `train`, `search`
and `cross-validate` share a preset and a file of settings besides.
"""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from steel_core.cli.arguments import BINARY, add_data, add_device, open_data
from steel_core.errors import UsageError
from steel_core.records import AUTO, Record, describe_fields, read_toml
from steel_core.training.settings import PRESETS, TrainingSettings

if TYPE_CHECKING:
    from argparse import _ActionsContainer as Flags  # a parser, or a group of it

    from steel_core.data.index import DatasetIndex

Settings = TypeVar("Settings", bound=Record)

_TYPES: dict[str, Callable[[str], Any]] = {"integer": int, "number": float}


def add_settings(parser: Flags, record: type[Record], only: Collection[str] = (), defaults: bool = False) -> None:
    """A flag for each setting, or for those named; `defaults` names in the help what holds where none is given."""
    for name, field in describe_fields(record).items():
        if only and name not in only:
            continue
        flag = _flag(name, field)
        meaning = field.get("description", "").replace("%", "%%")
        if defaults and field.get("default") not in ("", None) and "fields" not in field:
            meaning += f" (default: {field['default']})"
        options: dict[str, Any] = {"dest": name, "default": SUPPRESS, "help": meaning}
        if field.get("type") == "boolean":
            options["action"] = BooleanOptionalAction
        elif "fields" in field:
            dials = ", ".join(["strength", *field["fields"]]).replace("_", "-")
            options |= {"action": "append", "metavar": "NAME=VALUE"}
            options["help"] += f" NAME is one of {dials}, where strength is that of all; may be given again."
        else:
            values = f"{{{','.join(field['enum'])}}}" if "enum" in field else flag.strip("-").replace("-", "_").upper()
            options |= {"type": _type_of(field), "metavar": field.get("metavar", values)}
        parser.add_argument(flag, **options)


def apply_flags(settings: Settings, arguments: Namespace, content: dict[str, Any] | None = None) -> Settings:
    """The settings, changed by the content of a file, changed by the flags that were given."""
    content, described = dict(content or {}), describe_fields(type(settings))
    flags = {name: getattr(arguments, name) for name in described if hasattr(arguments, name)}
    for name in [name for name, field in described.items() if "fields" in field]:
        pairs, nested = flags.pop(name, []), getattr(settings, name)
        strength, dials = _parse_dials(_flag(name, described[name]), pairs, described[name]["fields"])
        nested = nested.replace(**content.pop(name, {}) | dials)
        flags[name] = nested if strength == 1.0 else nested.scaled(strength)
    try:
        return settings.replace(**content | flags)
    except UsageError as error:
        sentence = str(error)
        for name, field in described.items():
            if "flag" in field and sentence.startswith(f"{name}:"):  # people know it by its flag
                raise UsageError(field["flag"] + sentence.removeprefix(name)) from None
        raise


def _flag(name: str, field: dict[str, Any]) -> str:
    return field.get("flag", f"--{name.replace('_', '-')}")


def _parse_dials(flag: str, pairs: Collection[str], fields: dict[str, dict[str, Any]]) -> tuple[float, dict[str, Any]]:
    """The strength of all, and single settings by name, out of texts NAME=VALUE."""
    dials: dict[str, Any] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        name = name.strip().replace("-", "_")
        if name not in ("strength", *fields):
            raise UsageError(f"{flag}: expected NAME=VALUE, with one of strength, {', '.join(fields)}; got {pair!r}")
        try:
            dials[name] = float(value)
        except ValueError:
            raise UsageError(f"{flag} {name}: expected a number, got {value!r}") from None
        if fields.get(name, {}).get("type") == "boolean":
            dials[name] = bool(dials[name])
    return dials.pop("strength", 1.0), dials


def _type_of(field: dict[str, Any]) -> Callable[[str], Any]:
    read = _TYPES.get(field.get("type", ""), str)

    def number(text: str) -> Any:  # argparse names the function where the text is none
        return text if text == AUTO and field.get("auto") else read(text)

    return number


def add_training_arguments(parser: ArgumentParser) -> None:
    add_data(parser)
    parser.add_argument("--binary", action="store_true", help=BINARY)
    changed = "settings that the file and the flags below change (default: %(default)s)"
    parser.add_argument("--preset", default="sound", choices=list(PRESETS), help=changed)
    written = "settings, as in the run.toml that train writes; the flags below change them"
    parser.add_argument("--config", type=Path, metavar="FILE.toml", help=written)
    add_settings(parser, TrainingSettings)
    parser.add_argument("--cam-layer", help="of torchvision:NAME, for Grad-CAM; the last with a grid unless given")
    add_device(parser)


def read_settings(arguments: Namespace) -> TrainingSettings:
    """The preset's settings, changed by the file, changed by the flags."""
    content = read_toml(arguments.config, TrainingSettings) if arguments.config else {}
    settings = apply_flags(PRESETS[arguments.preset].config, arguments, content)
    if arguments.cam_layer:
        settings = settings.replace(backbone=f"{settings.backbone}@{arguments.cam_layer}")
    return settings


def open_training_data(arguments: Namespace) -> DatasetIndex:
    index = open_data(arguments.data)
    return index.binary() if arguments.binary else index

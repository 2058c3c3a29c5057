"""`python -m docs.make_schemas`: write the JSON schema of every published record into `docs/schemas`."""

import importlib
import json
import pkgutil
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

import steel_core
from steel_core.records import Record
from steel_core.types import AttributionJson, PredictionJson

FOLDER = Path(__file__).parent / "schemas"
_PLAIN = {"prediction": PredictionJson, "explanation": AttributionJson}


def published_schemas() -> dict[str, str]:
    """Name of the file and its text, for each record of the library that names what it is published as."""
    for module in pkgutil.walk_packages(steel_core.__path__, "steel_core."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    schemas = {name: TypeAdapter(kind).json_schema() for name, kind in _PLAIN.items()}
    schemas |= {kind.published: kind.model_json_schema() for kind in _subclasses(Record) if "published" in vars(kind)}
    return {f"{name}.schema.json": _text(schema) for name, schema in sorted(schemas.items())}


def _subclasses(kind: type[Record]) -> list[type[Record]]:
    return [each for child in kind.__subclasses__() for each in (child, *_subclasses(child))]


def _text(schema: dict[str, Any]) -> str:
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(dialect | schema, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    schemas = published_schemas()
    FOLDER.mkdir(exist_ok=True)
    for old in {file.name for file in FOLDER.glob("*.schema.json")} - schemas.keys():
        (FOLDER / old).unlink()
    for file, text in schemas.items():
        (FOLDER / file).write_text(text, encoding="utf-8")

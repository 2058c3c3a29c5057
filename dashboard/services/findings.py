"""What is wrong with a data set, and what can be carried away of it."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from dashboard.services import files
from dashboard.services.cache import cached_resource
from dashboard.services.explore import Collection, stored_or_finished
from steel_core.data.manifest import write_manifest
from steel_core.data.quality.findings import KINDS, DataFinding, findings_to_csv, without_findings
from steel_core.evaluation import data_check
from steel_core.inference.predictor import Predictor

__all__ = ["KINDS", "DataFinding", "findings_to_csv"]


@cached_resource(
    lambda collection, model: (collection.key, model and model.hash, files.stamp(data_check.checks_folder())),
    max_entries=4,
)
def findings(collection: Collection, model: Predictor | None) -> list[DataFinding] | None:
    """What is wrong with a data set, see `steel_core.evaluation.data_check`; None where nobody has looked yet."""
    return stored_or_finished("check", model, collection.name, data_check.find_check(collection.index, model))


def findings_json(collection: Collection, findings: Sequence[DataFinding]) -> bytes:
    """Every finding with its evidence, and how often its kind cries wolf."""
    return files.as_json(
        {
            "data": collection.index.spec.title,
            "images": len(collection.index),
            "false_alarms": KINDS,
            "findings": [one.to_json() for one in findings],
        }
    )


def cleaned_manifest(collection: Collection, findings: Sequence[DataFinding]) -> bytes:
    """The data set without what is wrong, as a manifest whose paths start from the data set's folder."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cleaned.csv"
        write_manifest(without_findings(collection.index, findings), path)
        return path.read_bytes()

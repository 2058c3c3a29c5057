"""Where measured quality is kept: a table in the card, and the value of each image beside it."""

import gzip
import re
from pathlib import Path
from typing import Any

import pandas as pd

from steel_core.errors import CheckpointError
from steel_core.evaluation.quality_report import COLUMNS, QualityReport
from steel_core.files import write_bytes
from steel_core.models.card import Card
from steel_core.models.checkpoint import list_checkpoints, update_card


def store_quality(name_or_path: str | Path, report: QualityReport) -> None:
    """Write figures and rules into the card, beside those of other data sets, and the value of each image beside it.

    The checkpoint's hash changes with its card. A rule chosen on masks is not replaced by one chosen on less.
    """

    def change(card: Card) -> dict[str, Any]:
        fixed = {m: rule for m, rule in card.regions.items() if "masks" in rule.chosen_on}
        regions = card.regions | report.rules | (fixed if "masks" not in report.evidence else {})
        return {"quality": card.quality | {report.data: report.card_table()}, "regions": regions}

    update_card(name_or_path, change)
    folder = list_checkpoints().get(str(name_or_path), Path(name_or_path))
    write_bytes(_rows_file(folder, report.data), gzip.compress(report.rows.to_csv(index=False).encode(), mtime=0))


def load_quality_rows(folder: Path, data: str) -> pd.DataFrame:
    """The value of each image, as in `QualityReport.rows`; empty where none were stored with the checkpoint.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = _rows_file(folder, data)
    if not path.is_file():
        return pd.DataFrame(columns=list(COLUMNS))
    try:
        return pd.read_csv(path, dtype={"group": str}, keep_default_na=True)[list(COLUMNS)]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise CheckpointError(f"checkpoint {folder.name}: the measured values in {path.name} are damaged") from error


def _rows_file(folder: Path, data: str) -> Path:
    return folder / f"quality-{re.sub(r'[^A-Za-z0-9_-]+', '-', data)}.csv.gz"

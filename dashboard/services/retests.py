"""Patches that an audit came upon, and the white-stain test of one of them by itself."""

from contextlib import suppress
from typing import Any

from dashboard.services import audits, datasets, files
from dashboard.services.cache import cached_data
from steel_core.audit.discover import format_retest_command
from steel_core.audit.settings import StainSettings
from steel_core.audit.stains import cut_stain, name_cut
from steel_core.errors import DataError, SteelError
from steel_core.reports.audit_report import draw_exemplar
from steel_core.store.audits import AuditRun

__all__ = ["format_retest_command"]


def exemplars(data: str, cluster: dict[str, Any]) -> list[tuple[str, datasets.Source, dict[str, Any]]]:
    """Path, source and record of each of a cluster's images; those that are not in the data set are left out."""
    if data not in datasets.available():
        return []
    index, there = datasets.dataset(data), []
    for one in cluster["exemplars"]:
        with suppress(DataError):  # moved away since; or an old run, which tells only a name that several have
            row = datasets.row_of(index, one.get("path", one["file"]))
            there.append((str(index.table["path"].iat[row]), datasets.source(index, row), one))
    return there


@cached_data(lambda source, exemplar: (source.key, exemplar.get("box"), exemplar.get("sha256")), max_entries=500)
def exemplar_picture(source: datasets.Source, exemplar: dict[str, Any]) -> bytes | datasets.Refused:
    """The patch that a search came upon, outlined on the steel around it; the image as it is where it changed."""
    if "box" not in exemplar:  # searched before November 2026
        return datasets.thumbnail(source)
    try:
        image = source.read()
    except SteelError as error:
        return datasets.Refused(str(error))
    if image.sha256 != exemplar["sha256"]:
        return datasets.Refused(f"{source.name} has changed since")
    return files.jpeg(draw_exemplar(image, exemplar["box"], datasets.THUMBNAIL))


def can_retest(run: AuditRun, cluster: dict[str, Any]) -> bool:
    """Whether the very model, the data set, and the place of the patch are here."""
    here = run.data in datasets.available() and audits.audited_model(run) is not None
    return "box" in cluster["exemplars"][0] and here


def history(run: AuditRun, cluster: dict[str, Any]) -> list[AuditRun]:
    """The finished tests of the first exemplar of a cluster, with the same model, the newest first."""
    first = cluster["exemplars"][0]
    cut_from = name_cut(first["file"], first["sha256"], first["box"])
    model = run.reports[0]["model_hash"]
    reports = [(other, other.reports[0]) for other in audits.history()[0]]
    return [
        other for other, one in reports if one["model_hash"] == model and one["settings"].get("cut_from") == cut_from
    ]


def start(run: AuditRun, cluster: dict[str, Any]) -> str:
    """The name of the run in which a worker asks the white-stain test of the first exemplar of a cluster."""
    model = audits.audited_model(run)
    if model is None:
        raise DataError("the model of this run is not here any more, or is another by now")
    report = next(one for one in run.reports if cluster in one["detail"].get("clusters", []))
    first = cluster["exemplars"][0]
    image = datasets.find(datasets.dataset(run.data), first["path"]).read()
    left, top, width, height = first["box"]
    asked = StainSettings(tolerated=report["settings"]["tolerated"], towards=cluster["label"])
    stain = cut_stain(image, (left, top, width, height), asked)
    settings = audits.AuditSettings(kinds=("white-stain",), limit=report["images"], stain=stain)
    return audits.start(model, run.data, settings)

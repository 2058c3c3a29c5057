"""The command line: look, explain, measure, train, compare, audit; `--help` lists the commands.

Standard output carries results only (with `--json` one JSON object); progress and warnings go to standard error. Exit
status 0: all went well; 1: some inputs were bad, the others are answered; 2: the call was wrong; 3: a check found
something; 4: an audit had not enough data; 130: interrupted, or stopped on request.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from steel_core.cli.audit import add_audit_arguments, add_cure_arguments
from steel_core.errors import ImageError, SteelError, UsageError

if TYPE_CHECKING:
    from steel_core.data.index import DatasetIndex
    from steel_core.inference.predictor import Predictor
    from steel_core.types import Attribution, Prediction, SteelImage

# torch and the readers are imported inside the commands, so that --help and a mistyped call answer at once.

DEFAULT_CHECKPOINT = "neu-six-class"
OK, BAD_INPUT, WRONG_CALL, FOUND, INTERRUPTED = 0, 1, 2, 3, 130
ALL, CONTRAST = "all", "contrast"  # besides the names of classes, what `explain --target` takes

Answer = tuple[int, dict[str, Any], str]
"""Exit status, the object for --json, the text for people."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    args = _parser().parse_args(argv)
    as_json = getattr(args, "json", False)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # a library that prints shall not spoil the result
            status, content, text = args.run(args)
    except SteelError as error:
        if as_json:
            print(json.dumps({"error": str(error)}, ensure_ascii=False))
        print(f"steel_core: {error}", file=sys.stderr)
        return WRONG_CALL
    except OSError as error:  # a folder that is a file, a full disk: the base name tells enough
        sentence = f"{Path(error.filename or '').name}: {error.strerror or error}"
        if as_json:
            print(json.dumps({"error": sentence}, ensure_ascii=False))
        print(f"steel_core: {sentence}", file=sys.stderr)
        return WRONG_CALL
    except KeyboardInterrupt:
        goes_on = "; the same call goes on where it stopped" if args.run in (_train, _cross_validate) else ""
        print(f"steel_core: interrupted{goes_on}", file=sys.stderr)
        return INTERRUPTED
    if os.environ.get("RANK", "0") != "0":  # of the processes that torchrun started, the first one answers
        return status
    try:
        print(json.dumps(content, ensure_ascii=False, default=str) if as_json else text)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader (head, say) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def _predict(args: argparse.Namespace) -> Answer:
    from steel_core.inference.predictor import Predictor
    from steel_core.inference.tiling import judge

    predictor = Predictor.load(args.checkpoint, args.device)
    results = []
    for name, image, error in _images(args.images, "predicting"):
        answer = {"error": error} if image is None else judge(predictor, [image])[0].to_json()
        results.append(answer | {"file": name})
    return _with_bad_inputs(results, predictor)


def _explain(args: argparse.Namespace) -> Answer:
    from steel_core.explain.base import EXPLAINERS
    from steel_core.inference.predictor import Predictor
    from steel_core.inference.tiling import METHODS, explain_whole, judge

    methods = [method.strip() for method in args.methods.split(",") if method.strip()]
    if not methods:
        raise UsageError(f"--methods: expected names out of {', '.join(EXPLAINERS)}, got none")
    for method in methods:
        EXPLAINERS[method]  # a mistyped name is refused before the first image is read
    predictor = Predictor.load(args.checkpoint, args.device)
    if args.target not in (None, ALL, CONTRAST, *predictor.classes):
        raise UsageError(
            f"--target: expected one of {', '.join((ALL, CONTRAST, *predictor.classes))}, got {args.target!r}"
        )
    args.out.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    taken: set[str] = set()
    for name, image, error in _images(args.images, "explaining"):
        if image is None:
            results.append({"file": name, "error": error})
            continue
        judged = judge(predictor, [image])[0]
        part, prediction = judged.decisive_part(image), judged.decisive
        targets = _targets(args.target, prediction, predictor.classes)
        maps = [
            predictor.explain(part, method, target, seed=args.seed, **against)
            for method in methods
            for target, against in targets
        ]
        stem = _unused(Path(name).stem, taken)
        result = _write_maps(args.out, stem, predictor, part, prediction, maps, args.quality) | {"file": name}
        if len(judged.tiles) > 1:  # the maps above are those of the worst tile, as the note says
            result["tiles"] = judged.to_json()["tiles"]
            stitched = [
                explain_whole(predictor, image, method, target)
                for method in methods
                for target, against in targets
                if method in METHODS and not against
            ]
            if stitched:
                whole = _unused(f"{stem}-whole", taken)
                result["whole"] = _write_maps(args.out, whole, predictor, image, judged.verdict, stitched)
        results.append(result)
    return _with_bad_inputs(results, predictor)


def _targets(wanted: str | None, prediction: Prediction, classes: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """What to explain of one image: classes, and what each is contrasted with."""
    if wanted == ALL:
        return [(name, {}) for name in classes]
    if wanted == CONTRAST:
        first, second = sorted(classes, key=lambda name: -prediction.probs[name])[:2]
        return [(first, {"against": second})]
    return [(name, {}) for name in ([wanted] if wanted else prediction.defects or [prediction.pred])]


def _quality(args: argparse.Namespace) -> Answer:
    from steel_core.evaluation.map_quality import measure_quality, store, with_controls
    from steel_core.inference.predictor import Predictor

    named = [method.strip() for method in args.methods.split(",") if method.strip()]
    methods = with_controls(named or None)  # a mistyped name is refused before anything is read
    predictor = Predictor.load(args.checkpoint, args.device)
    found = measure_quality(
        predictor,
        _open(args.data),
        methods,
        images=args.images,
        seed=args.seed,
        learnt=_open(args.learnt) if args.learnt else None,
        include_learnt=args.include_learnt,
        progress=_Bars(),
        report=_say,
    )
    _say_some([f"left out: {sentence}" for sentence in found.left_out])
    if args.rows:
        from steel_core.files import write_bytes

        write_bytes(args.rows, found.rows.to_csv(index=False).encode())
    if args.store:
        store(args.checkpoint, found)
    content = found.to_json() | {
        "checkpoint": predictor.card.name,
        "checkpoint_hash": predictor.hash,
        "regions": {method: rule.to_json() for method, rule in found.rules.items()},
        "classes": found.summary(by_class=True).replace({float("nan"): None}).to_dict("records"),
        "left_out": found.left_out,
    }
    return OK, content, found.table()


def _train(args: argparse.Namespace) -> Answer:
    from steel_core.jobs.run_log import RunLog, RunStopped
    from steel_core.training.distributed import joined
    from steel_core.training.train import train

    log = RunLog(args.log)
    try:
        with joined(args.device) as device, log.running():
            index = _open(args.data)
            card = train(
                index.binary() if args.binary else index,
                args.out,
                _train_config(args),
                title=args.title,
                notes=tuple(args.note),
                drawn_background=args.drawn_background,
                device=device,
                report=_say,
                progress=_Bars(),
                log=log,
            )
    except RunStopped as stopped:
        return INTERRUPTED, {"stopped": str(stopped)}, str(stopped)
    figures: dict[str, dict[str, Any]] = {p: card.metrics[p] for p in ("val", "test") if p in card.metrics}
    return OK, {"checkpoint": card.name, "notes": card.notes, "metrics": figures}, f"{args.out}\n{_table(figures)}"


def _search(args: argparse.Namespace) -> Answer:
    from steel_core.training.search import BACKBONES_TRIED, search

    index = _open(args.data)
    named = [name.strip() for name in args.backbones.split(",") if name.strip()]
    found = search(
        index.binary() if args.binary else index,
        args.out,
        args.minutes,
        _train_config(args),
        named or BACKBONES_TRIED,
        device=args.device,
        report=_say,
        progress=_Bars(),
    )
    best = found.best
    command = [
        "python -m steel_core train", "--data", shlex.quote(str(args.data)), *(["--binary"] if args.binary else []),
        "--out runs/best", *_as_given(args), "--backbone", shlex.quote(best.backbone),
        f"--learning-rate {best.learning_rate:.3g} --weight-decay {best.weight_decay:.3g} --dropout {best.dropout:.3g}",
        f"--augment strength={found.strength:.3g}",
    ]  # fmt: skip
    shown = " ".join(command)
    content = {"train": shown, "trials": json.loads(found.trials.to_json(orient="records"))}
    return INTERRUPTED if found.interrupted else OK, content, shown


def _as_given(args: argparse.Namespace) -> list[str]:
    """The flags of training that a search does not choose, as they were given."""
    flags = [f"--preset {args.preset}"]
    for name in ("head", "loss", "label_smoothing", "freeze_epochs", "batch_size", "init", "input_size", "seed"):
        value = getattr(args, name)
        flags += [] if value is None else [f"--{name.replace('_', '-')} {shlex.quote(str(value))}"]
    if args.balanced is not None:
        flags.append("--balanced" if args.balanced else "--no-balanced")
    return flags + [f"--augment {shlex.quote(pair)}" for pair in args.augment]


def _cross_validate(args: argparse.Namespace) -> Answer:
    from steel_core.models.checkpoint import update_card
    from steel_core.training.cross_validate import cross_validate

    index = _open(args.data)
    found = cross_validate(
        index.binary() if args.binary else index,
        args.work,
        _train_config(args),
        args.folds,
        device=args.device,
        report=_say,
        progress=_Bars(),
    )
    figures = found.to_json() | ({"caveat": args.caveat} if args.caveat else {})
    if args.store:
        update_card(args.store, lambda card: {"metrics": card["metrics"] | {"cross_validation": figures}})
    return OK, figures, _table({f"{args.folds}-fold": figures})


def _evaluate(args: argparse.Namespace) -> Answer:
    from steel_core.evaluation.estimates import count_figures
    from steel_core.evaluation.evaluate import evaluate
    from steel_core.files import write_bytes
    from steel_core.inference.predictor import Predictor

    predictor = Predictor.load(args.checkpoint, args.device)
    index = _open(args.data)
    bars = _Bars()
    found = evaluate(predictor, index, args.part, bars)
    _say_some([f"left out: {sentence}" for sentence in found.left_out])
    _say_some([*found.remarks, *(f"{predictor.card.name}: {sentence}" for sentence in predictor.card.warnings)])
    counted = count_figures(found) if (args.report or args.plots) and len(found.labelled) else None
    if args.csv:
        write_bytes(args.csv, found.to_csv().encode())
    if args.report:
        from steel_core.reports.evaluation_report import evaluation_html

        page = evaluation_html(found, predictor, index, with_images=args.with_images or None, figures=counted)
        write_bytes(args.report, page.encode())
    if args.plots:
        from steel_core.render.plot_png import pngs
        from steel_core.reports.evaluation_report import evaluation_plots

        for name, picture in pngs(evaluation_plots(found, counted)).items():
            write_bytes(args.plots / name, picture)
    written = {kind: str(path) for kind in ("csv", "report", "plots") if (path := getattr(args, kind))}
    content = found.to_json() | {"written": written}
    where = "".join(f"\n{kind} in {path}" for kind, path in written.items())
    if "n" not in content:  # nothing could be counted; what the model said is told all the same
        said = ", ".join(f"{outcome} {n}" for outcome, n in content["outcomes"].items())
        return BAD_INPUT, content, f"{found.remarks[0]}\n{said}{where}"
    return BAD_INPUT if found.unreadable else OK, content, _table({found.part: content}) + where


def _thresholds(args: argparse.Namespace) -> Answer:
    from steel_core.evaluation.evaluate import stored_evaluation
    from steel_core.evaluation.thresholds import propose_thresholds, save_thresholds
    from steel_core.inference.predictor import Predictor
    from steel_core.metrics.decisions import Costs
    from steel_core.models.checkpoint import list_checkpoints

    if args.save and not (args.who.strip() and args.reason.strip()):
        raise UsageError("--save: expected --who and --reason, which go into the checkpoint's card")
    predictor = Predictor.load(args.checkpoint, args.device)
    bars = _Bars()
    index = _open(args.data)
    whole = stored_evaluation(predictor, index, progress=bars)
    _say_some(whole.left_out)
    costs = Costs(
        _by_class("--escape-cost", args.escape_cost, whole.verdicts),
        _by_class("--false-call-cost", args.false_call_cost, whole.verdicts),
        args.refer_cost,
    )
    mix = _by_class("--share", args.share, whole.verdicts) or None
    found = propose_thresholds(whole, costs, mix)
    in_force = {name: predictor.card.threshold(name) for name in found.thresholds}
    content: dict[str, Any] = {
        "checkpoint": predictor.card.name,
        "chosen_on": found.chosen_on,
        "thresholds": found.thresholds,
        "in_force": in_force,
        "costs": costs.to_json(whole.verdicts),
        "shares": mix,
        "verdict": found.verdict,
    }
    shares = ", ".join(f"{name} {share:g}" for name, share in mix.items()) if mix else "as in the images"
    lines = [f"costs of a sheet: {costs.in_words(whole.verdicts)}; shares: {shares}",
             f"chosen on {found.chosen_on} validation images, shown on {found.after['n'].iloc[-1]} test images; 95 %",
             f"{'threshold of':24}{'in force':>10}{'proposed':>10}"]  # fmt: skip
    lines += [f"{name:24}{in_force[name]:10.4f}{line:10.4f}" for name, line in found.thresholds.items()]
    for words, table in (("in force", found.before), ("proposed", found.after)):
        rows = table.astype(object).where(table.notna(), None).to_dict("records")
        content["test " + words] = rows
        lines += ["", f"{words:24}{'n':>6}" + "".join(f"{head:>28}" for head in _PLANT.values())]
        for row in rows:
            cells = (_figure(row[key], (row[f"{ends}_low"], row[f"{ends}_high"]), digits)
                     for key, ends, digits in _PLANT)  # fmt: skip
            lines.append(f"{row['label']:24}{row['n']:6}" + "".join(f"{cell:>28}" for cell in cells))
    if args.save:
        folder = list_checkpoints().get(args.checkpoint, Path(args.checkpoint))
        save_thresholds(folder, found.thresholds, args.who, args.reason)
        lines += ["", f"saved in the card of {predictor.card.name} by {args.who}"]
    lines += ["", found.verdict]
    return OK, content | {"saved": args.save}, "\n".join(lines)


_PLANT = {
    ("escape", "escape", 3): "escapes",
    ("false_call", "false_call", 3): "false calls",
    ("referred", "referred", 3): "to a person",
    ("cost_per_1000", "cost", 1): "cost of 1,000 sheets",
}  # column, whose interval, digits: heading


def _by_class(option: str, given: Sequence[str], classes: Sequence[str]) -> dict[str, float]:
    """Numbers as in "5", for every class, or "rust=5", for one; the last one counts."""
    numbers: dict[str, float] = {}
    for each in given:
        name, _, number = each.rpartition("=")
        if name and name not in classes:
            raise UsageError(f"{option}: unknown class {name!r}; expected one of {', '.join(classes)}")
        try:
            numbers |= dict.fromkeys([name] if name else classes, float(number))
        except ValueError:
            raise UsageError(f"{option}: expected a number or CLASS=NUMBER, got {each!r}") from None
    return numbers


def _compare(args: argparse.Namespace) -> Answer:
    from steel_core.evaluation.compare import compare_checkpoints
    from steel_core.inference.predictor import Predictor

    bars = _Bars()
    a, b = (Predictor.load(name, args.device) for name in (args.a, args.b))
    found = compare_checkpoints(a, b, _open(args.data), args.part, bars)
    _say_some([f"left out: {sentence}" for sentence in found.left_out])
    wide = max(14, len(found.a) + 2, len(found.b) + 2)
    lines = [f"{'':24}{found.a:>{wide}}{found.b:>{wide}}  difference"]
    for row in found.figures.to_dict("records"):
        shown = f"{row['difference']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"
        lines.append(f"{row['figure'].replace('_', ' '):24}{row['a']:{wide}.3f}{row['b']:{wide}.3f}  {shown}")
    test = found.mcnemar
    lines.append(f"only {found.a} right: {test.only_a}, only {found.b} right: {test.only_b}; McNemar p = {test.p:.3g}, "
                 f"by group {test.p_groups:.3g}")  # fmt: skip
    return OK, found.to_json(), "\n".join([*lines, found.verdict])


def _leaderboard(args: argparse.Namespace) -> Answer:
    from steel_core.leaderboard.checkpoints import leaderboard
    from steel_core.leaderboard.folds import leaderboard_of_folds
    from steel_core.models.checkpoint import list_checkpoints

    index = _open(args.data)
    index = index.binary() if args.binary else index
    common = {"baselines": args.baselines, "device": args.device, "report": _say, "progress": _Bars()}
    if args.work:
        found = leaderboard_of_folds(index, args.work, args.folds, **common)
    else:
        found = leaderboard(index, args.models or None, args.split, **common)
    written = found.markdown() if args.markdown else found.to_csv().rstrip() if args.csv else found.text()
    missing = [name for name in args.models or () if name not in list_checkpoints() and not Path(name).is_dir()]
    return BAD_INPUT if missing else OK, found.to_json(), written


def _familiarity(args: argparse.Namespace) -> Answer:
    from steel_core.evaluation.ood import teach_familiarity
    from steel_core.models.checkpoint import list_checkpoints
    from steel_core.training.train import with_groups

    bars = _Bars()
    others = {}
    for pair in args.other:
        name, separator, path = pair.partition("=")
        if not (name and separator and path):
            raise UsageError(f"--other: expected NAME=DIR, got {pair!r}")
        others[name] = with_groups(_open(Path(path)), _say, bars)
    folder = list_checkpoints().get(args.checkpoint, Path(args.checkpoint))
    index = with_groups(_open(args.data), _say, bars)
    rates = teach_familiarity(folder, index, others, args.who, device=args.device,
                              progress=bars)  # fmt: skip
    lines = [f"{name}: {_figure(rate['unfamiliar'], rate['interval'])} unfamiliar, n = {rate['n']}"
             for name, rate in rates.items()]  # fmt: skip
    return OK, {"checkpoint": folder.name, "rates": rates}, "\n".join(lines)


def _describe(args: argparse.Namespace) -> Answer:
    from steel_core.data.describe import describe

    index = _open(args.dir)
    bars = _Bars()
    wrong_boxes = index.check_boxes(bars)
    _say_some(wrong_boxes)
    content = describe(index)
    content["problems"] += wrong_boxes
    lines = [f"{content['title']}: {content['n']} images", f"licence: {content['licence']}"]
    for heading in ("labels", "splits"):
        lines += [heading, *(f"  {name or '(none)'}: {count}" for name, count in content[heading].items())]
    lines.append(f"with boxes: {content['with_boxes']}, with masks: {content['with_masks']}")
    return OK, content, "\n".join(lines)


def _make(args: argparse.Namespace) -> Answer:
    from steel_core.data.strip_mill import StripMill, make

    mill = StripMill(
        size=_size(args.size),
        seed=args.seed,
        contrast=args.contrast,
        clear_share=args.clear_share,
        stained_clear=args.stained_clear,
        stained_defect=args.stained_defect,
    )
    bars = _Bars()
    make(mill, args.n, args.out, bars)
    return OK, {"n": args.n, "out": str(args.out)}, f"{args.n} sheets in {args.out}"


def _export(args: argparse.Namespace) -> Answer:
    from steel_core.data.manifest import write_manifest

    if args.manifest.exists():
        raise UsageError(f"{args.manifest.name} is there already; name a new file")
    index = _open(args.dir)
    write_manifest(index, args.manifest)
    return OK, {"n": len(index), "manifest": str(args.manifest)}, f"{len(index)} rows in {args.manifest}"


def _check(args: argparse.Namespace) -> Answer:
    from steel_core.data.manifest import write_manifest
    from steel_core.data.quality.findings import KINDS, cleaned, findings_csv
    from steel_core.evaluation.data_check import check
    from steel_core.files import write_bytes
    from steel_core.inference.predictor import Predictor

    for path in filter(None, (args.export, args.cleaned)):
        if path.exists():
            raise UsageError(f"{path.name} is there already; name a new file")
    index = _open(args.dir)
    predictor = Predictor.load(args.checkpoint) if args.checkpoint else None
    found = check(index, predictor, progress=_Bars())
    if args.export:
        write_bytes(args.export, findings_csv(found))
    if args.cleaned:
        write_manifest(cleaned(index, found), args.cleaned)
    content = {
        "n": len(index),
        "findings": [finding.to_json() for finding in found],
        "kinds": KINDS,
        "problems": list(index.problems),
    }
    lines = []
    for finding in found:
        more = ", ..." if len(finding.files) > 5 else ""
        lines.append(f"{finding.kind}: {finding.sentence} ({', '.join(finding.files[:5])}{more})")
    return FOUND if found else OK, content, "\n".join(lines) or "nothing found"


def _index(args: argparse.Namespace) -> Answer:
    from steel_core.data.large import index_folder

    bars = _Bars()
    index = index_folder(args.dir, args.out, bars)
    return OK, {"n": len(index), "manifest": str(args.out)}, f"{len(index)} rows in {args.out}"


def _audit(args: argparse.Namespace) -> Answer:
    from steel_core.cli.audit import run_audit

    return run_audit(args, _open, _Bars())


def _cure(args: argparse.Namespace) -> Answer:
    from steel_core.cli.audit import run_cure

    return run_cure(args, _open, _Bars(), _say)


def _scales(args: argparse.Namespace) -> Answer:
    from steel_core.inference.predictor import Predictor
    from steel_core.models.checkpoint import update_card
    from steel_core.training.map_scales import map_scales, validation_images

    predictor = Predictor.load(args.checkpoint, args.device)
    scales = map_scales(predictor, validation_images(predictor, _open(args.data)), _Bars())
    update_card(args.checkpoint, lambda _: {"map_scale": scales})
    return OK, {"map_scale": scales}, "\n".join(f"{method:24}{scale:.3g}" for method, scale in scales.items())


def _import(args: argparse.Namespace) -> Answer:
    from steel_core.models.checkpoint import Card, import_state_dict

    card = Card(
        name=args.out.name,
        title=args.out.name,
        backbone=args.backbone,
        head=args.head,
        classes=tuple(name.strip() for name in args.classes.split(",")),
        input_size=_size(args.input_size),
        mean=args.mean,
        std=args.std,
        notes=("Imported from a bare state dictionary: not calibrated, no thresholds, no figures of its own.",),
    )
    import_state_dict(args.weights, args.out, card)
    return OK, {"checkpoint": card.name}, str(args.out)


def _open(path: Path) -> DatasetIndex:
    """A data set, with what is wrong with it on standard error."""
    from steel_core.data.open import open_dataset

    bars = _Bars()
    index = open_dataset(path, bars)
    _say_some(index.problems)
    return index


def _images(paths: Sequence[Path], what: str) -> Iterator[tuple[str, SteelImage | None, str]]:
    """Path as it was given, image, and what was wrong with it; folders stand for the images in them."""
    from steel_core.data.images.read import SUFFIXES, read_image

    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.is_file())
            images = [file for file in inside if file.suffix.lower() in SUFFIXES]
            if len(images) < len(inside):
                _say(f"{path.name}: {len(inside) - len(images)} files with other endings were passed over")
            files += images
        else:
            files.append(path)
    if not files:
        raise UsageError(f"expected images; the folder holds none ending in {', '.join(sorted(SUFFIXES))}")
    for path in tqdm(files, desc=what, file=sys.stderr, leave=False, disable=None):
        try:
            yield str(path), read_image(path), ""
        except ImageError as error:
            yield str(path), None, str(error)


def _write_maps(
    out: Path,
    stem: str,
    predictor: Predictor,
    image: SteelImage,
    prediction: Prediction,
    maps: Sequence[Attribution],
    with_trust: bool = False,
) -> dict[str, Any]:
    """A picture and an array of raw values for each map, a page with all of them, and a file that describes them."""
    import numpy as np

    from steel_core.data.images.read import encode_png
    from steel_core.evaluation.map_quality import trust
    from steel_core.files import write_bytes
    from steel_core.reports import image_report

    result = image_report.result_json(predictor, prediction, maps)
    for key, found in zip(image_report.map_keys(maps), maps, strict=True):
        ending = key.replace(" ", "-")
        names = {"png": f"{stem}-{ending}.png", "npy": f"{stem}-{ending}.npy"}
        write_bytes(out / names["png"], encode_png(image_report.panel(predictor, image, found).picture))
        buffer = io.BytesIO()
        np.save(buffer, found.values, allow_pickle=False)
        write_bytes(out / names["npy"], buffer.getvalue())
        result["maps"][key] |= names
        if with_trust:
            result["maps"][key]["quality"] = trust(predictor, image, found).to_json()
    result["report"] = f"{stem}-report.png"
    write_bytes(out / result["report"], image_report.report_png(predictor, image, prediction, maps))
    write_bytes(out / f"{stem}.json", json.dumps(result, ensure_ascii=False, indent=1).encode())
    return result


def _with_bad_inputs(results: list[dict[str, Any]], predictor: Predictor) -> Answer:
    from steel_core.render import percent

    bad = sum("error" in result for result in results)
    lines = []
    for result in results:
        if "error" in result:
            named = f"{Path(result['file']).name}: "
            lines.append(f"{result['file']}: {result['error'].removeprefix(named)}")
            continue
        ranked = sorted(result["probs"].items(), key=lambda pair: -pair[1])[:3]
        shares = ", ".join(f"{name} {percent(p)}" for name, p in ranked)
        in_words = {"refer": "refer to a person", "unfamiliar": "unfamiliar: no verdict"}
        outcome = in_words.get(result["outcome"], result["outcome"])
        if result["outcome"] == "defect" and result.get("defects"):
            outcome = f"defect: {', '.join(result['defects'])}"
        needed = f"; {result['pred']} needs {result['threshold']:.1%}".replace("%", " %")
        note = f"; {result['note']}" if result["note"] else ""
        lines.append(f"{result['file']}: {outcome} ({shares}{needed}){note}")
    lines.append(f"judged by {predictor.card.name} ({predictor.card.title})")
    for sentence in predictor.card.warnings:
        _say(f"{predictor.card.name}: {sentence}")
    content = {
        "checkpoint": predictor.card.name,
        "checkpoint_hash": predictor.hash,
        "warnings": predictor.card.warnings,
        "results": results,
    }
    return BAD_INPUT if bad else OK, content, "\n".join(lines)


def _table(figures: dict[str, dict[str, Any]]) -> str:
    """Figures with their intervals, a column for each set of images."""
    lines = [f"{'':24}" + "".join(f"{_heading(part, f):>28}" for part, f in figures.items())]
    first = next(iter(figures.values()))
    several = first.get("multi_label", False)
    keys = first["intervals"] if several else ("accuracy", "macro_recall", "macro_f1", "auc", "ece")
    for key in keys:
        lines.append(
            f"{key.replace('_', ' '):24}"
            + "".join(f"{_figure(f[key], f['intervals'][key]):>28}" for f in figures.values())
        )
    for name in first["classes"]:
        cells = (_class_figure(f, name) for f in figures.values())
        lines.append(f"{('AP ' if several else 'recall ') + name:24}" + "".join(f"{cell:>28}" for cell in cells))
    if several:
        lines.append("AP: average precision; escape: of the defective sheets, called clear; "
                     "false call: of the clear sheets, called defective")  # fmt: skip
        lines += [f"{part}: {f['counted']['escape']} defective sheets, {f['counted']['false_call']} clear ones"
                  for part, f in figures.items()]  # fmt: skip
    return "\n".join(lines)


def _class_figure(figures: dict[str, Any], name: str) -> str:
    """What is told of one class: its recall; of several an image its average precision."""
    if figures.get("multi_label"):
        found = figures["per_class"][name]["average_precision"]
        return _figure(found["value"], (found["low"], found["high"]))
    return _figure(figures["recall"][name], figures["intervals"]["recall"][name])


def _heading(part: str, figures: dict[str, Any]) -> str:
    return f"{part} (n = {figures['n']})"


def _figure(value: float | None, interval: tuple[float, float] | None, digits: int = 3) -> str:
    if value is None or interval is None:
        return "no such images"
    return f"{value:.{digits}f} ({interval[0]:.{digits}f} to {interval[1]:.{digits}f})"


def _unused(stem: str, taken: set[str]) -> str:
    """`stem`, with a number behind it where two images share a name."""
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name)
    return name


def _size(text: str) -> tuple[int, int]:
    rows, _, columns = text.lower().partition("x")
    if not (rows.isdigit() and columns.isdigit() and int(rows) > 0 and int(columns) > 0):
        raise UsageError(f"size: expected HEIGHTxWIDTH such as 200x200, got {text!r}")
    return int(rows), int(columns)


def _say(line: str) -> None:
    tqdm.write(line, file=sys.stderr)


def _say_some(lines: Sequence[str], most: int = 20) -> None:
    for line in lines[:most]:
        _say(line)
    if len(lines) > most:
        _say(f"... and {len(lines) - most} more")


class _Bars:
    """Progress bars on standard error, one for each kind of work, made when it first reports."""

    def __init__(self) -> None:
        self._bars: dict[str, tqdm[Any]] = {}

    def __call__(self, what: str, done: int, of: int) -> None:
        if what not in self._bars:
            self._bars[what] = tqdm(total=of, desc=what, file=sys.stderr, leave=False, disable=None)
        bar = self._bars[what]
        bar.update(done - bar.n)
        if done >= of:
            self._bars.pop(what).close()


def _train_config(args: argparse.Namespace) -> Any:
    """The preset's settings, changed by the flags that were given."""
    from dataclasses import fields, replace

    from steel_core.training.config import TrainConfig
    from steel_core.training.presets import PRESETS

    config = PRESETS[args.preset].config
    given = {f.name: getattr(args, f.name, None) for f in fields(TrainConfig) if f.name != "augmentation"}
    if args.cam_layer:
        given["backbone"] = f"{given['backbone'] or config.backbone}@{args.cam_layer}"
    if given["input_size"]:
        given["input_size"] = _size(given["input_size"])
    config = replace(config, **{name: value for name, value in given.items() if value is not None})
    strength, given_dials = _augmentation(args.augment)
    return replace(config, augmentation=replace(config.augmentation, **given_dials).scaled(strength))


def _augmentation(pairs: Sequence[str]) -> tuple[float, dict[str, Any]]:
    """The strength of the augmentation, and its settings by name, out of NAME=VALUE."""
    from dataclasses import fields

    from steel_core.data.augment import Augmentation

    known = {"strength": False} | {field.name: isinstance(field.default, bool) for field in fields(Augmentation)}
    found: dict[str, Any] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        name = name.strip().replace("-", "_")
        if name not in known:
            raise UsageError(f"--augment: expected NAME=VALUE, with one of {', '.join(known)}; got {pair!r}")
        try:
            found[name] = bool(float(value)) if known[name] else float(value)
        except ValueError:
            raise UsageError(f"--augment {name}: expected a number, got {value!r}") from None
    return found.pop("strength", 1.0), found


def _parser() -> argparse.ArgumentParser:  # noqa: PLR0915 - a plain list of arguments
    parser = argparse.ArgumentParser(
        prog="python -m steel_core", description="Explainable review of steel-surface defects."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], Answer], text: str, parent: Any = commands
    ) -> argparse.ArgumentParser:
        made = parent.add_parser(name, help=text, description=text)
        made.set_defaults(run=run)
        made.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
        return made

    def with_model(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
        made.add_argument("--checkpoint", default=DEFAULT_CHECKPOINT, help="name or folder (default: %(default)s)")
        return with_device(made)

    def with_device(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
        made.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: %(default)s)")
        return made

    def with_training(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
        made.add_argument("--data", type=Path, required=True, help="folder or manifest with labelled images")
        made.add_argument("--binary", action="store_true", help="two classes: clear, and defect for all the others")
        presets = ["quick-look", "sound", "thorough"]
        changed = "settings that the flags below change (default: %(default)s)"
        made.add_argument("--preset", default="sound", choices=presets, help=changed)
        made.add_argument("--backbone", help="efficientnet-lite-reduced unless given; or torchvision:NAME")
        made.add_argument("--cam-layer", help="of torchvision:NAME, for Grad-CAM; the last with a grid unless given")
        several = "softmax unless given; sigmoid where an image can hold several defect types"
        made.add_argument("--head", choices=["softmax", "sigmoid"], help=several)
        made.add_argument(
            "--loss", choices=["cross-entropy", "focal"], help="binary for each class with --head sigmoid"
        )
        made.add_argument(
            "--balanced", action=argparse.BooleanOptionalAction, help="rare classes weigh as much as others"
        )
        made.add_argument("--label-smoothing", type=float)
        made.add_argument("--epochs", type=int, help="chosen by the number of images unless given")
        made.add_argument("--freeze-epochs", type=int, help="of those, with trained features kept as they are")
        made.add_argument("--batch-size", type=int)
        made.add_argument("--learning-rate", type=float, help="from random weights searched for unless given")
        made.add_argument("--weight-decay", type=float)
        made.add_argument("--dropout", type=float)
        varied = (
            "how images are varied: noise=0.1, flip=0, cut-out=0.2 ..., or strength=1.5 for all; may be given again"
        )
        made.add_argument("--augment", action="append", default=[], metavar="NAME=VALUE", help=varied)
        start = "random, imagenet, or a file of weights; imagenet where a package brings them, unless given"
        made.add_argument("--init", help=start)
        made.add_argument("--input-size", help="HEIGHTxWIDTH; measured on the images unless given")
        made.add_argument("--seed", type=int)
        return with_device(made)

    made = with_model(command("predict", _predict, "verdict and probabilities for images"))
    made.add_argument("images", type=Path, nargs="+", metavar="IMAGES", help="image files, or folders of them")

    made = with_model(command("explain", _explain, "verdict and maps of the evidence for images"))
    made.add_argument("images", type=Path, nargs="+", metavar="IMAGES", help="image files, or folders of them")
    made.add_argument("--methods", default="grad-cam,guided-grad-cam,shap", help="names, separated by commas")
    made.add_argument(
        "--target",
        help=f"class to explain; {ALL!r} for a map of each, {CONTRAST!r} for the likeliest against the second; "
        "the predicted one unless given",
    )
    made.add_argument("--quality", action="store_true", help="how far each map can be trusted, in the JSON")
    made.add_argument("--out", type=Path, required=True, help="folder for the maps")
    made.add_argument("--seed", type=int, default=0)

    made = with_model(command("quality", _quality, "how good the explanations of a checkpoint are, with intervals"))
    made.add_argument("--data", type=Path, required=True, help="folder or manifest, best with masks or boxes")
    made.add_argument("--methods", default="", help="names, separated by commas; all unless given, and the controls")
    made.add_argument("--images", type=int, default=100, help="how many count (default: %(default)s)")
    made.add_argument(
        "--learnt",
        type=Path,
        metavar="DATA",
        help="data set that the checkpoint was trained on: near-duplicates of its training images are left out",
    )
    made.add_argument("--include-learnt", action="store_true", help="count images that served to train, too")
    made.add_argument("--rows", type=Path, metavar="CSV", help="file for the value of each image")
    made.add_argument("--store", action="store_true", help="write the result into the checkpoint's card")
    made.add_argument("--seed", type=int, default=0)

    made = with_training(command("train", _train, "train a checkpoint; an interrupted run goes on when called again"))
    made.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
    followed = "folder where others can follow the run; a file named stop in it ends the run after the epoch"
    made.add_argument("--log", type=Path, metavar="DIR", help=followed)
    made.add_argument("--title", default="", help="for people")
    made.add_argument("--note", action="append", default=[], help="a sentence for the card; may be given again")
    made.add_argument(
        "--drawn-background",
        action="store_true",
        help="SHAP compares with drawn sheets, not training images: for a checkpoint passed on without its images",
    )

    made = with_training(
        command("search", _search, "try settings by short trainings, within some minutes; a later call goes on")
    )
    made.add_argument("--minutes", type=float, required=True, help="when to end")
    made.add_argument(
        "--out", type=Path, default=Path("runs/search"), help="folder for the trials (default: %(default)s)"
    )
    made.add_argument("--backbones", default="", help="names to choose from, separated by commas")

    made = with_training(
        command("cross-validate", _cross_validate, "k-fold cross-validation by group of near-duplicates")
    )
    made.add_argument("--work", type=Path, required=True, help="folder for the rounds' checkpoints")
    made.add_argument("--folds", type=int, default=5)
    made.add_argument("--store", metavar="CHECKPOINT", help="write the figures into this checkpoint's card")
    made.add_argument("--caveat", help="a sentence to stand beside the figures")

    made = with_model(command("evaluate", _evaluate, "figures of a checkpoint on labelled images, with intervals"))
    made.add_argument("--data", type=Path, required=True, help="folder or manifest with labelled images")
    made.add_argument(
        "--part",
        default="held-out",
        help="held-out (all images the checkpoint has not learnt from), train, val, test or all (default: %(default)s)",
    )
    made.add_argument("--report", type=Path, help="HTML file for figures, plots and the worst images")
    made.add_argument("--with-images", action="store_true", help="images in the report even where the licence forbids "
                      "to pass them on: for your own eyes")  # fmt: skip
    made.add_argument("--plots", type=Path, metavar="DIR", help="folder for each plot as PNG")
    made.add_argument("--csv", type=Path, help="file for the predictions, one row an image")

    made = with_device(command("thresholds", _thresholds, "where to draw the line, from what errors cost"))
    made.add_argument("checkpoint", metavar="CHECKPOINT", help="name or folder")
    made.add_argument("--data", type=Path, required=True, help="folder or manifest: validation images to choose on, "
                      "test images to show it on")  # fmt: skip
    for option, meaning in (
        ("--escape-cost", "a defective sheet that is let pass"),
        ("--false-call-cost", "a sheet that is called what it is not"),
    ):
        made.add_argument(option, action="append", default=[], metavar="[CLASS=]COST", help=f"cost of {meaning}, for "
                          "every class or for one; may be given again (default: 1)")  # fmt: skip
    made.add_argument("--refer-cost", type=float, default=0.1, help="a person looks at a sheet (default: %(default)s)")
    made.add_argument("--share", action="append", default=[], metavar="CLASS=WEIGHT", help="share of a class in "
                      "production, as a weight; may be given again (default: as in the images)")  # fmt: skip
    made.add_argument("--save", action="store_true", help="write the proposal into the checkpoint's card")
    made.add_argument("--who", default="", help="the person who answers for it")
    made.add_argument("--reason", default="", help="in that person's words")

    made = with_device(command("compare", _compare, "two checkpoints on the same images: differences with intervals"))
    made.add_argument("a", metavar="A", help="name or folder of a checkpoint")
    made.add_argument("b", metavar="B", help="name or folder of another")
    made.add_argument("--data", type=Path, required=True, help="folder or manifest with labelled images")
    made.add_argument("--part", default="held-out", help="as for evaluate (default: %(default)s)")

    made = with_device(command("leaderboard", _leaderboard, "all checkpoints and baselines on the same images"))
    made.add_argument("--data", type=Path, required=True, help="folder or manifest with labelled images")
    rivals = made.add_mutually_exclusive_group()
    rivals.add_argument(
        "--models", nargs="+", metavar="MODEL", help="names or folders; all that are found unless given"
    )
    rivals.add_argument("--work", type=Path, metavar="DIR", help="instead of models: all that cross-validate left "
                        "there, on all images")  # fmt: skip
    made.add_argument("--split", default="test", help="of models: test, or held-out: all images that none of them has "
                      "learnt from (default: %(default)s)")  # fmt: skip
    made.add_argument("--folds", type=int, default=5, help="with --work (default: %(default)s)")
    made.add_argument("--baselines", action="store_true", help="learn the baselines on the train split, and compare")
    made.add_argument("--binary", action="store_true", help="two classes: clear, and defect for all the others")
    kind = made.add_mutually_exclusive_group()
    kind.add_argument("--csv", action="store_true", help="print the table as CSV")
    kind.add_argument("--markdown", action="store_true", help="print the table as Markdown")

    made = with_model(command("audit", _audit, "is the model looking at the steel? exit status 3: no, 4: unknown"))
    made.add_argument("--data", type=Path, required=True, help="folder or manifest with labelled images")
    add_audit_arguments(made)
    made = with_model(command("cure", _cure, "fine-tune a shortcut away, and test again"))
    made.add_argument("--data", type=Path, required=True, help="folder or manifest with labelled images")
    add_cure_arguments(made)

    data = commands.add_parser("data", help="describe, make or export a data set").add_subparsers(
        required=True, metavar="ACTION"
    )
    command("describe", _describe, "what a data set holds", data).add_argument("dir", type=Path, metavar="DIR")
    make = data.add_parser("make", help="draw a data set").add_subparsers(required=True, metavar="KIND")
    made = command("strip-mill", _make, "sheets of steel drawn by the program, with masks and no licence", make)
    made.add_argument("out", type=Path, metavar="OUT")
    made.add_argument("--n", type=int, default=700, help="number of sheets (default: %(default)s)")
    made.add_argument("--size", default="200x200", help="HEIGHTxWIDTH (default: %(default)s)")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--contrast", type=float, default=1.0, help="0.1 is a dark, dull surface (default: %(default)s)")
    made.add_argument("--clear-share", type=float, default=1 / 7, help="share of clear sheets")
    made.add_argument("--stained-clear", type=float, default=0.0, help="share of clear sheets with a white stain")
    made.add_argument("--stained-defect", type=float, default=0.0, help="share of defective sheets with a white stain")
    made = command("check", _check, "near-duplicates, leaks, odd labels and pictures; exit status 3 if any", data)
    made.add_argument("dir", type=Path, metavar="DIR")
    made.add_argument("--checkpoint", help="measures what a leak does to the accuracy on the test split")
    made.add_argument("--export", type=Path, metavar="CSV", help="file for the findings")
    made.add_argument("--cleaned", type=Path, metavar="MANIFEST", help="the data set without them; the source stays")
    made = command("index", _index, "list a very large folder once, into a Parquet manifest that opens at once", data)
    made.add_argument("dir", type=Path, metavar="DIR")
    made.add_argument("out", type=Path, metavar="OUT.parquet")
    made = command("export", _export, "write a manifest (CSV or Parquet) of a data set", data)
    made.add_argument("dir", type=Path, metavar="DIR")
    made.add_argument("manifest", type=Path, metavar="MANIFEST")

    checkpoint = commands.add_parser("checkpoint", help="import weights").add_subparsers(
        required=True, metavar="ACTION"
    )
    made = with_model(command("familiarity", _familiarity, "teach it which images are unfamiliar", checkpoint))
    made.add_argument("--data", type=Path, required=True, help="the data set that it was trained on")
    made.add_argument("--other", action="append", default=[], metavar="NAME=DIR", help="measure on these as well")
    made.add_argument("--who", required=True, help="the person who answers for it; goes into the card")
    made = with_model(command("scales", _scales, "measure anew which evidence gets the full colour", checkpoint))
    made.add_argument("--data", type=Path, required=True, help="the data set that it was trained on")
    made = command("import", _import, "make a checkpoint of a bare PyTorch state dictionary", checkpoint)
    made.add_argument(
        "weights", type=Path, metavar="WEIGHTS", help=".pt, .pth (read without running code) or .safetensors"
    )
    made.add_argument("out", type=Path, metavar="OUT", help="folder of the checkpoint")
    made.add_argument("--classes", required=True, help="names in the order of the outputs, separated by commas")
    made.add_argument("--input-size", required=True, help="HEIGHTxWIDTH it was trained at")
    made.add_argument("--mean", type=float, required=True, help="mean grey of its training images, 0 to 1")
    made.add_argument("--std", type=float, required=True, help="standard deviation of their grey")
    made.add_argument("--backbone", default="squeezenet-reduced")
    made.add_argument("--head", default="softmax", choices=["softmax", "sigmoid"])
    return parser

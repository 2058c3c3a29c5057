"""Record what the commands answer, and compare two records.

python tests/golden/behaviour.py record OUT [--only PART …] [--source CHECKOUT]
python tests/golden/behaviour.py compare BEFORE AFTER

`record` runs each command below with `--json` in a fresh home and cache, on the shipped data and on the real images
(`$STEEL_DATA`, or `../shared/data`) where they are. What it leaves in OUT are JSON files without times and paths; maps
are told by a hash of their rounded values. `compare` lists each key that differs and exits with 1 if any does.

Floats agree to a relative 1e-6: two records are made on one machine.
"""

import argparse
import hashlib
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("STEEL_DATA", ROOT.parent / "shared" / "data")).resolve()
SHEETS = ROOT / "assets" / "demo" / "strip-mill"
VOLATILE = {
    "when",
    "time",
    "seconds",
    "milliseconds",
    "date",
    "id",
    "name_of_run",
    "throughput",
    "images_per_second",
    "speed",
}
RENAMED: dict[str, str] = {}
"""Keys that were renamed on purpose: old to new."""

AUDITS = ("white-stain", "edges", "properties", "discover", "all")
METHODS = "grad-cam,guided-grad-cam,shap,guided-backprop,gradient,integrated-gradients,deep-lift,lime,occlusion"


def commands() -> dict[str, list[str]]:
    """Arguments by the name of their record; {out} is an empty folder."""
    sheets = str(SHEETS)
    images = [str(path) for path in sorted((SHEETS / "images").iterdir())[:12]]
    found = {"describe-sheets": ["data", "describe", sheets], "check-sheets": ["data", "check", sheets]}
    for model in ("strip-mill", "strip-mill-cured", "neu-six-class"):
        found[f"predict-{model}"] = ["predict", *images, "--checkpoint", model]
    for model in ("strip-mill", "neu-six-class"):
        found[f"explain-{model}"] = [
            "explain", *images[:3], "--checkpoint", model, "--methods", METHODS, "--target", "all", "--quality",
            "--out", "{out}",
        ]  # fmt: skip
    found["evaluate-sheets"] = ["evaluate", "--checkpoint", "strip-mill", "--data", sheets, "--part", "all"]
    found["compare-sheets"] = ["compare", "strip-mill", "strip-mill-cured", "--data", sheets, "--part", "all"]
    found["thresholds-sheets"] = ["thresholds", "strip-mill-cured", "--data", sheets, "--escape-cost", "20"]
    found["leaderboard-sheets"] = ["leaderboard", "--data", sheets, "--split", "held-out", "--binary", "--baselines"]
    found["quality-sheets"] = [
        "quality", "--checkpoint", "strip-mill-cured", "--data", sheets, "--images", "10", "--include-learnt",
        "--methods", "grad-cam,guided-backprop,gradient",
    ]  # fmt: skip
    for kind in AUDITS:
        found[f"audit-{kind}-sheets"] = [
            "audit", kind, "--checkpoint", "strip-mill", "--data", sheets, "--part", "all", "--no-store"
        ]  # fmt: skip
    found["train-sheets"] = [
        "train", "--data", sheets, "--binary", "--preset", "quick-look", "--epochs", "1", "--input-size", "64x64",
        "--backbone", "small-cnn",
        "--init", "random", "--learning-rate", "0.001", "--device", "cpu", "--out", "{out}/m",
    ]  # fmt: skip
    if (DATA / "neu-cls").is_dir():
        neu, masks, mill = str(DATA / "neu-cls"), str(DATA / "neu-seg"), str(DATA / "x-sdd")
        found |= {
            "describe-neu": ["data", "describe", neu],
            "describe-masks": ["data", "describe", masks],
            "describe-x-sdd": ["data", "describe", mill],
            "check-x-sdd": ["data", "check", mill],
            "check-masks": ["data", "check", masks],
            "predict-neu": ["predict", *(str(path) for path in sorted(Path(neu, "images").iterdir())[::60])],
            "evaluate-neu": ["evaluate", "--data", neu, "--part", "test"],
            "thresholds-neu": ["thresholds", "neu-six-class", "--data", neu],
            "audit-all-neu": ["audit", "all", "--data", neu, "--part", "test", "--limit", "40", "--no-store"],
            "quality-masks": [
                "quality", "--data", masks, "--images", "8", "--methods", "grad-cam,guided-backprop", "--learnt", neu
            ],
        }  # fmt: skip
    return found


def record(out: Path, only: list[str], source: Path) -> None:
    """Run the commands and write one JSON file each."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        environ = os.environ | {"STEEL_HOME": f"{home}/home", "STEEL_CACHE": f"{home}/cache", "COLUMNS": "100"}
        for name, arguments in commands().items():
            if only and not any(name.startswith(part) for part in only):
                continue
            with tempfile.TemporaryDirectory() as scratch:
                call = [sys.executable, "-m", "steel_core", *(each.replace("{out}", scratch) for each in arguments)]
                done = subprocess.run(
                    [*call, "--json"], cwd=source, env=environ, capture_output=True, text=True, check=False
                )
                written = {"status": done.returncode, "answer": json.loads(done.stdout or "null")}
                written["maps"] = {path.name: map_hash(path) for path in sorted(Path(scratch).rglob("*.npy"))}
                shown = json.dumps(written, ensure_ascii=False, indent=1, sort_keys=True)
                for path in (scratch, home, str(source), str(ROOT), str(DATA)):
                    shown = shown.replace(path, "…")
                (out / f"{name}.json").write_text(shown + "\n", encoding="utf-8")
            print(f"{name}: exit status {done.returncode}", flush=True)
            if done.stdout == "":
                print(done.stderr[-2000:], flush=True)


def map_hash(path: Path) -> str:
    """Hash of a map's values, rounded to a thousandth of the largest."""
    values = np.load(path, allow_pickle=False)
    largest = float(np.abs(values).max()) or 1.0
    return hashlib.sha256(np.round(values / largest, 3).astype(np.float32).tobytes() + b"").hexdigest()[:16]


def differences(before: Any, after: Any, where: str = "") -> list[str]:
    """Where two answers differ, a line each."""
    if isinstance(before, dict) and isinstance(after, dict):
        renamed = {RENAMED.get(key, key): value for key, value in before.items()}
        lines = []
        for key in renamed.keys() | after.keys():
            if key in VOLATILE:
                continue
            if key not in after or key not in renamed:
                lines.append(f"{where}.{key}: only {'before' if key in renamed else 'after'}")
            else:
                lines += differences(renamed[key], after[key], f"{where}.{key}")
        return lines
    if isinstance(before, list) and isinstance(after, list):
        if len(before) != len(after):
            return [f"{where}: {len(before)} entries before, {len(after)} after"]
        pairs = enumerate(zip(before, after, strict=True))
        return [line for i, (one, other) in pairs for line in differences(one, other, f"{where}[{i}]")]
    if isinstance(before, (int, float)) and isinstance(after, (int, float)):
        return [] if math.isclose(before, after, rel_tol=1e-6, abs_tol=1e-9) else [f"{where}: {before} -> {after}"]
    if isinstance(before, str) and isinstance(after, str):  # a time or a duration in a sentence is no difference
        times = re.compile(r"\d{4}-\d\d-\d\dT[\d:.+Z]*|[\d.]+ (ms|s|seconds|minutes)\b")
        before, after = times.sub("…", before), times.sub("…", after)
    return [] if before == after else [f"{where}: {before!r} -> {after!r}"]


def compare(before: Path, after: Path) -> int:
    """Print what differs; the number of records that do."""
    differing = 0
    names = sorted({path.name for folder in (before, after) for path in folder.glob("*.json")})
    for name in names:
        if not all((folder / name).exists() for folder in (before, after)):
            print(f"{name}: only in one of the two records")
            differing += 1
            continue
        lines = differences(*(json.loads((folder / name).read_text(encoding="utf-8")) for folder in (before, after)))
        differing += bool(lines)
        for line in lines:
            print(f"{name.removesuffix('.json')}{line}")
    print(f"{len(names)} records, {differing} differ")
    return differing


def main() -> int:
    """Record or compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    actions = parser.add_subparsers(dest="action", required=True)
    made = actions.add_parser("record")
    made.add_argument("out", type=Path)
    made.add_argument("--only", nargs="*", default=[], help="records whose name begins so")
    made.add_argument("--source", type=Path, default=ROOT, help="checkout whose code answers")
    made = actions.add_parser("compare")
    made.add_argument("before", type=Path)
    made.add_argument("after", type=Path)
    args = parser.parse_args()
    if args.action == "compare":
        return 1 if compare(args.before, args.after) else 0
    record(args.out, args.only, args.source.resolve())
    return 0


if __name__ == "__main__":
    sys.exit(main())

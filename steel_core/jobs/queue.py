"""Training runs that take their turn in processes of their own, known by nothing but files.

A run is a folder that holds `run.json` (what shall be called, written once), `run.toml` (settings of its own), its
events (`steel_core.jobs.run_log`), `log.txt` (what its process prints), and, while it waits for its turn, `queued`. One
process does one run: it holds the queue's lock as long as it lives, takes the run that has waited longest, calls the
command line in itself, and starts the next process at its end. The lock goes with the process, however that ends, so
two runs are never at work at once, and whoever looks (`RunQueue.wake`) can tell that nobody is at work and start the
next. Nothing hangs on the process that asked: a run whose process was killed is "crashed" and can go on where it was.
"""

import json
import os
import re
import runpy
import site
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from steel_core.errors import UsageError
from steel_core.files import new_run_name, steel_home, write_bytes
from steel_core.jobs.run_log import ENDINGS, RunLog, RunState

UNFINISHED = ("waiting", "running", "stopping")
"""The states of a run that goes on by itself; the others are "done", "stopped", "failed" and "crashed"."""

_RUN, _SETTINGS, _QUEUED, _LOG, _LOCK = "run.json", "run.toml", "queued", "log.txt", "lock"
_WORKER = [sys.executable, "-m", "steel_core.jobs.queue"]
_ROOT = Path(__file__).resolve().parents[2]
_NICE = 10  # how much a run gives way to the pages and to others
_PATIENCE, _GLANCE = 5.0, 0.05  # seconds; whoever looks at a lock holds it for a moment
_ENDED = "The training ended unexpectedly. What it did so far is kept, and it can go on from there."
_KILLED = (
    "The training was cut off: the machine was restarted, or its memory ran out. What it did so far is kept, and it "
    "can go on from there."
)

_workers: dict[Path, subprocess.Popen[bytes]] = {}  # started from here, by queue: who looks often starts one


@dataclass(frozen=True)
class TrainingRun:
    """A run as it stands.

    Attributes:
        status: "waiting", "running", "stopping" (at the end of its epoch), "done", "stopped", "failed" or "crashed".
        ahead: how many runs come before it, where it waits.
    """

    name: str
    command: tuple[str, ...]
    about: dict[str, Any]
    status: str
    ahead: int
    state: RunState
    folder: Path
    sentence: str = ""

    @property
    def unfinished(self) -> bool:
        return self.status in UNFINISHED


class RunQueue:
    """The runs of all sessions, and their queue, in `folder`; `steel_home() / "training"` if None."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (folder or steel_home() / "training").absolute()

    def submit(self, command: Sequence[str], about: dict[str, Any], settings: str = "") -> str:
        """Put a run at the end of the queue, and see that somebody works; the name of the run.

        The arguments of `python -m steel_core` must take `--log FOLDER`, and `--config FILE` if there are `settings`:
        the content of that file. `about` is kept with the run, as `json` can write it.
        """
        name = new_run_name()
        content = {"command": list(command), "about": about}
        if settings:
            write_bytes(self.folder / name / _SETTINGS, settings.encode())
        write_bytes(self.folder / name / _RUN, json.dumps(content, ensure_ascii=False, indent=1).encode())
        self._queue(name)
        return name

    def get(self, name: str) -> TrainingRun | None:
        """The run of that name, which may come from a link; None if there is none."""
        return self._read(name, self._waiting()) if re.fullmatch(r"[\w-]+", name) else None

    def history(self, most: int | None = None) -> list[TrainingRun]:
        """All runs, or the `most` newest, the newest first; folders that hold none are passed over."""
        queue = self._waiting()
        asked = sorted(((path.stat().st_mtime_ns, path.parent.name) for path in self.folder.glob(f"*/{_RUN}")),
                       reverse=True)  # fmt: skip
        return [run for _, name in asked[:most] if (run := self._read(name, queue))]

    def stop(self, name: str) -> None:
        """Let a run end after the epoch it is in, or take it out of the queue; it can be resumed."""
        log = RunLog(self.folder / name)
        try:
            (self.folder / name / _QUEUED).unlink()
            log.write("stopped")
        except FileNotFoundError:  # its turn has come
            log.request_stop()

    def resume(self, name: str) -> None:
        """Put a run that ended at the end of the queue again; it goes on where it was."""
        run = self.get(name)
        if run and not run.unfinished:
            self._queue(name)

    def wake(self) -> None:
        """Start a process for the run that has waited longest, unless one is at work or was just started from here."""
        last = _workers.get(self.folder)
        if last is None or last.poll() is not None:
            self._start()

    def work(self) -> None:
        """Do the run that has waited longest, in this process, and start a process for the next. Unless one works."""
        first: list[str] = []
        try:
            with FileLock(self.folder / _LOCK, timeout=_PATIENCE):
                first = self._waiting()[:1]
                for name in first:
                    self._perform(name)
        except Timeout:
            return
        finally:
            if self._waiting()[:1] != first:  # a turn that could not even begin, as on a full disk, is not tried again
                self._start()

    def _start(self) -> None:
        """Start a process unless one is at work: who is at work looks for waiting runs after it gave the lock back."""
        if not self._waiting() or _is_held(self.folder / _LOCK):
            return
        with (self.folder / _LOG).open("ab") as log:
            _workers[self.folder] = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [*_WORKER, str(self.folder)],
                env=_worker_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # it outlives the one who asked
            )

    def _perform(self, name: str) -> None:
        folder = self.folder / name
        log = RunLog(folder)
        with FileLock(folder / _LOCK, timeout=_PATIENCE):
            log.message("its turn has come")
            try:
                (folder / _QUEUED).unlink()
            except FileNotFoundError:  # it was taken out of the queue at the last moment
                log.write("stopped")
                return
            command = json.loads((folder / _RUN).read_bytes())["command"]
            if (folder / _SETTINGS).exists():
                command += ["--config", str(folder / _SETTINGS)]
            try:
                _call_command_line([*command, "--log", str(folder)], folder / _LOG)
            finally:
                if log.state().status not in ENDINGS:
                    log.write("failed", message=_read_last_sentence(folder / _LOG))

    def _queue(self, name: str) -> None:
        RunLog(self.folder / name).clear_stop()  # of a run that was killed before it saw the request
        write_bytes(self.folder / name / _QUEUED, b"")
        self._start()

    def _waiting(self) -> list[str]:
        """Names of the runs in the queue, the one that has waited longest first."""
        queued = []
        for path in self.folder.glob(f"*/{_QUEUED}"):
            with suppress(FileNotFoundError):  # its turn came just now
                queued.append((path.stat().st_mtime_ns, path.parent.name))
        return [name for _, name in sorted(queued)]

    def _read(self, name: str, queue: list[str]) -> TrainingRun | None:
        folder = self.folder / name
        try:
            content = json.loads((folder / _RUN).read_bytes())
            command, about = tuple(map(str, content["command"])), dict(content["about"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        log = RunLog(folder)
        held = _is_held(folder / _LOCK)  # asked before the events: one that ends in between is not taken for crashed
        state = log.state()
        status, sentence = state.status, ""
        if name in queue:
            status = "waiting"
        elif status not in ENDINGS and not held:
            status, sentence = "crashed", _KILLED
        elif status == "failed":
            sentence = str(state.end.get("message", _ENDED))
        elif status not in ENDINGS:
            status = "stopping" if log.stop_requested else "running"
        ahead = queue.index(name) + _is_held(self.folder / _LOCK) if status == "waiting" else 0
        return TrainingRun(name, command, about, status, ahead, state, folder, sentence)


def _worker_environment() -> dict[str, str]:
    """Variables with which a process finds this very library: of an installed one it knows by itself."""
    known = {Path(folder) for folder in (*site.getsitepackages(), site.getusersitepackages())}
    paths = [] if _ROOT in known else [str(_ROOT)]
    return os.environ | {"PYTHONPATH": os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])])}


def _call_command_line(command: Sequence[str], log: Path) -> None:
    """Call `python -m steel_core` in this process, which prints into a file and gives way to others."""
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    with suppress(OSError, AttributeError):
        os.nice(max(0, _NICE - os.nice(0)))  # the one who started this process may have given way already
    sys.argv = ["steel_core", *command]
    with suppress(SystemExit):  # the events tell how it ended
        runpy.run_module("steel_core", run_name="__main__")


def _read_last_sentence(log: Path) -> str:
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    last, prefix = text.strip().rpartition("\n")[2], "steel-lens: "
    return last.removeprefix(prefix) if last.startswith(prefix) else _ENDED


def _is_held(lock: Path) -> bool:
    try:
        with FileLock(lock, timeout=_GLANCE, poll_interval=_GLANCE / 10):  # another one who looks is gone by then
            return False
    except Timeout:
        return True
    except OSError as error:
        raise UsageError(f"{lock.parent.name}: its folder cannot be written to ({error.strerror})") from error


if __name__ == "__main__":
    RunQueue(Path(sys.argv[1])).work()

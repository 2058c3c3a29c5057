"""What a training run tells others while it goes on, and how they end it: a folder that any process may read.

`events.jsonl` holds one JSON object a line, each with `event` and `time` (seconds since 1970):

- `start`: name, out, title, backbone, classes, counts (images of each part), input_size, epochs, settings, device, and
  examples: some validation images, each with `picture` (a PNG in the folder), `file` and `actual`
- `learning-rate`: learning_rate and curves, a list of runs, each a list of pairs of rate and loss
- `resumed`: history, the rows of the epochs that were done before
- `epoch`: epoch, of, train_loss, val_loss, val_macro_recall (val_auc where images have several labels), learning_rate,
  best (the epoch that is kept so far), seconds (of an epoch, on average), seconds_left (at that pace, if it does not
  stop early), and examples:
  `probs` of each class for each example of `start`, in that order. Where the first attempt was in vain, a second one
  counts from epoch 1 again
- `progress`: what, done, of; at most one a second
- `message`: text
- `done`: name, out, metrics; or `stopped`; or `failed`: message, a sentence for the user

A file named `stop` ends the run after the epoch it is in, and is taken away then; the same call goes on from there.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steel_core.data.images.read import encode_png
from steel_core.errors import SteelError
from steel_core.files import write_bytes
from steel_core.metrics import logits_to_probabilities
from steel_core.types import Float64Array, UInt8Array

EVENTS, STOP = "events.jsonl", "stop"
ENDINGS = ("done", "stopped", "failed")
_PROGRESS_SECONDS = 1.0


class RunStopped(SteelError):  # noqa: N818 - nothing went wrong
    """A run was asked to stop; what it has done is kept, and the same call goes on."""


@dataclass
class RunState:
    """What the events so far add up to: the last of each kind, or empty.

    Attributes:
        status: "waiting" (no event yet), "running" (even if the run was killed), "done", "stopped" or "failed".
        history: rows of the last attempt, one an epoch; those before an interruption may lack `seconds` and `examples`.
    """

    status: str = "waiting"
    start: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    learning_rate: dict[str, Any] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    end: dict[str, Any] = field(default_factory=dict)

    @property
    def seconds_left(self) -> float | None:
        """Seconds that the epochs still take at this pace if it does not stop early; None before the first ends."""
        if not self.history or "seconds_left" not in self.history[-1]:
            return None
        return max(self.history[-1]["seconds_left"] - (time.time() - self.history[-1]["time"]), 0.0)


class RunLog:
    """A run's folder: written by the run, read by whoever follows it; if None, nothing is kept."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._reported = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Write down how the block ends unless it ends well; a request to stop is then taken back."""
        try:
            yield
        except (RunStopped, KeyboardInterrupt):
            self.write("stopped")
            raise
        except SteelError as error:
            self.write("failed", message=str(error))
            raise
        finally:
            self.clear_stop()

    def write(self, event: str, **content: Any) -> None:
        """Append one event. A line that a crash cut in half is ended first, so that it harms no other."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"event": event, "time": round(time.time(), 3)} | content, ensure_ascii=False, default=str)
        with (self.folder / EVENTS).open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                line = line if file.read() == b"\n" else "\n" + line
            file.write(line.encode() + b"\n")

    def message(self, text: str) -> None:
        self.write("message", text=text)

    def progress(self, what: str, done: int, of: int) -> None:
        """Append a `progress` event, unless the last one is less than a second old."""
        if done >= of or time.monotonic() - self._reported >= _PROGRESS_SECONDS:
            self._reported = time.monotonic()
            self.write("progress", what=what, done=done, of=of)

    def save_pictures(self, grids: Sequence[UInt8Array]) -> list[str]:
        """Write grey pictures (H, W) and return the names of their files."""
        if self.folder is None:
            return []
        names = [f"example-{i}.png" for i in range(len(grids))]
        for name, grid in zip(names, grids, strict=True):
            write_bytes(self.folder / name, encode_png(grid))
        return names

    def events(self) -> list[dict[str, Any]]:
        """All events so far, in order; half-written lines are passed over."""
        lines: list[bytes] = []
        with suppress(FileNotFoundError):
            lines = (self.folder / EVENTS).read_bytes().splitlines() if self.folder else []
        events = []
        for line in lines:
            with suppress(ValueError):
                events.append(json.loads(line))
        return events

    def state(self) -> RunState:
        state = RunState()
        epochs: dict[int, dict[str, Any]] = {}
        for event in self.events():
            kind = event["event"]
            state.status = kind if kind in ENDINGS else "running"
            state.end = event if kind in ENDINGS else {}
            if kind == "start":
                state.start, epochs = event, {}
            elif kind == "resumed":
                epochs = {row["epoch"]: row for row in event["history"]}
            elif kind == "learning-rate":
                state.learning_rate = event
            elif kind == "progress":
                state.progress = event
            elif kind == "message":
                state.messages.append(event["text"])
            elif kind == "epoch":
                if event["epoch"] == 1:  # the first attempt was in vain
                    epochs = {}
                epochs[event["epoch"]] = event
        state.history = [epochs[epoch] for epoch in sorted(epochs)]
        return state

    def request_stop(self) -> None:
        """Ask the run to end after the epoch it is in."""
        if self.folder is not None:
            write_bytes(self.folder / STOP, b"")

    @property
    def stop_requested(self) -> bool:
        return self.folder is not None and (self.folder / STOP).exists()

    def clear_stop(self) -> None:
        if self.folder is not None:
            (self.folder / STOP).unlink(missing_ok=True)


class EpochLog:
    """Writes each epoch of a fit into a log and passes a request to stop on; `examples` are validation positions."""

    def __init__(self, log: RunLog, classes: Sequence[str], head: str, epochs: int, examples: Sequence[int]) -> None:
        self._log, self._classes, self._head, self._epochs = log, classes, head, epochs
        self._examples = list(examples)
        self._begun, self._done = time.monotonic(), 0

    def __call__(self, history: Sequence[dict[str, float]], best: int, logits: Float64Array) -> bool:
        """Whether the run shall stop after the last row; `best` is the epoch kept so far, logits are (V, K)."""
        if not self._done and len(history) > 1:
            self._log.write("resumed", history=history[:-1])
        self._done += 1
        seconds = (time.monotonic() - self._begun) / self._done
        probs = logits_to_probabilities(logits[self._examples], self._head)
        self._log.write(
            "epoch",
            **history[-1],
            of=self._epochs,
            best=best,
            seconds=round(seconds, 2),
            seconds_left=round(seconds * (self._epochs - len(history)), 1),
            examples=[{"probs": dict(zip(self._classes, map(float, row.round(4)), strict=True))} for row in probs],
        )
        return self._log.stop_requested

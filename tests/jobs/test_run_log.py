"""The folder through which a training run is followed and stopped by others."""

import numpy as np
import pytest

from steel_core.errors import DataError
from steel_core.jobs.run_log import EVENTS, EpochLog, RunLog, RunStopped


def row(epoch):
    return {"epoch": epoch, "train_loss": 1.0, "val_loss": 1 / epoch, "val_macro_recall": 0.5, "learning_rate": 1e-3}


def test_the_course_of_a_run_reads_as_it_was_written(tmp_path):
    log = RunLog(tmp_path / "run")
    assert log.state().status == "waiting"
    log.write("start", classes=("a", "b"), epochs=3)
    epochs = EpochLog(log, ("a", "b"), "softmax", 3, examples=[1])
    logits = np.array([[0.0, 9.0], [np.log(3), 0.0]])
    assert not epochs([row(1)], 1, logits)
    assert not epochs([row(1), row(2)], 2, logits)
    state = RunLog(tmp_path / "run").state()  # another process reads the same
    assert state.status == "running"
    assert state.start["classes"] == ["a", "b"]
    assert [r["epoch"] for r in state.history] == [1, 2]
    assert state.history[-1]["best"] == 2
    assert state.history[-1]["examples"] == [{"probs": {"a": 0.75, "b": 0.25}}]
    assert state.seconds_left == pytest.approx(state.history[-1]["seconds"], abs=0.1)
    log.write("done", name="m")
    assert log.state().status == "done"


def test_a_resumed_run_shows_what_was_done_before_and_no_epoch_twice(tmp_path):
    log = RunLog(tmp_path)
    log.write("start")
    first = EpochLog(log, ("a", "b"), "sigmoid", 4, [0])
    first([row(1)], 1, np.zeros((1, 2)))
    first([row(1), row(2)], 1, np.zeros((1, 2)))  # its state was lost with the power
    log.write("start")
    assert log.state().history == []
    EpochLog(log, ("a", "b"), "sigmoid", 4, [0])([row(1), row(2)], 1, np.zeros((1, 2)))
    assert [r["epoch"] for r in log.state().history] == [1, 2]
    assert log.state().history[-1]["examples"] == [{"probs": {"a": 0.5, "b": 0.5}}]


def test_a_second_attempt_starts_a_new_curve(tmp_path):
    log = RunLog(tmp_path)
    EpochLog(log, ("a",), "sigmoid", 2, [])([row(1)], 1, np.zeros((1, 1)))
    second = EpochLog(log, ("a",), "sigmoid", 2, [])
    second([row(1) | {"train_loss": 7.0}], 1, np.zeros((1, 1)))
    assert [r["train_loss"] for r in log.state().history] == [7.0]


def test_a_half_written_line_harms_no_other(tmp_path):
    log = RunLog(tmp_path)
    log.write("message", text="one")
    with (tmp_path / EVENTS).open("ab") as file:
        file.write(b'{"event": "mess')
    assert log.state().messages == ["one"]
    log.write("message", text="two")
    assert log.state().messages == ["one", "two"]


@pytest.mark.parametrize("early", [True, False])
def test_a_request_to_stop_is_passed_on_whenever_it_came_and_taken_back_at_the_end(tmp_path, early):
    log, other = RunLog(tmp_path), RunLog(tmp_path)
    if early:
        other.request_stop()
    with pytest.raises(RunStopped), log.running():
        other.request_stop()
        assert EpochLog(log, ("a",), "sigmoid", 5, [])([row(1)], 1, np.zeros((1, 1)))
        raise RunStopped("stopped")
    assert log.state().status == "stopped"
    with pytest.raises(DataError), log.running():
        raise DataError("no images")
    assert log.state().end["message"] == "no images"
    assert not log.stop_requested


def test_without_a_folder_nothing_is_kept():
    log = RunLog()
    log.write("start")
    log.request_stop()
    assert not log.stop_requested
    assert log.save_pictures([np.zeros((2, 2), np.uint8)]) == []
    assert log.state().status == "waiting"

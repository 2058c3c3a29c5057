"""Runs take their turn, stop, go on, and survive whoever asked for them, with processes that are started and killed."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from steel_core.jobs import queue as runs
from steel_core.jobs.queue import RunQueue
from steel_core.jobs.run_log import RunLog

WORKER = textwrap.dedent(
    """
    import json, os, signal, sys, time
    from pathlib import Path
    from steel_core.jobs.run_log import RunLog
    from steel_core.jobs import queue as runs

    def pretend(command, printed):
        log = RunLog(Path(command[-1]))
        if command[0] == "boom":
            raise RuntimeError("not for the eyes of a user, /secret/place")
        if command[0] == "refuse":
            printed.write_text("steel-lens: no image has a label\\n")
            return
        log.write("start", name=command[0], process=os.getpid())
        before = [row["epoch"] for row in log.state().history]
        for epoch in range(len(before) + 1, int(command[1]) + 1):
            log.write("epoch", epoch=epoch, of=int(command[1]), process=os.getpid(), began=time.time())
            if command[0] == "hang":
                time.sleep(60)
            time.sleep(0.3)
            if log.stop_requested:
                return log.write("stopped")
        log.write("done", name=command[0])

    runs._WORKER, runs._call_command_line = [sys.executable, __file__], pretend
    runs.RunQueue(Path(sys.argv[1])).work()
    """
)


@pytest.fixture
def queue(tmp_path, monkeypatch):
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    monkeypatch.setattr(runs, "_WORKER", [sys.executable, str(script)])
    yield RunQueue(tmp_path / "training")
    for run in RunQueue(tmp_path / "training").history():
        RunQueue(tmp_path / "training").stop(run.name)


def until(queue, name, *statuses):
    """The run once it has one of these states; a page would look as often."""
    end = time.monotonic() + 60
    while (run := queue.get(name)).status not in statuses:
        assert time.monotonic() < end, f"{name} is {run.status}"
        queue.wake()
        time.sleep(0.05)
    return run


def processes(run):
    return {event["process"] for event in run.state.history}


def test_a_run_ends_well_in_a_process_of_its_own(queue):
    name = queue.submit(["train", "3"], {"model": "mine"})
    run = until(queue, name, "done")
    assert [row["epoch"] for row in run.state.history] == [1, 2, 3]
    assert run.about == {"model": "mine"}
    assert run.command == ("train", "3")
    assert not run.unfinished
    assert os.getpid() not in processes(run)


def test_the_settings_of_a_run_reach_its_command_as_a_file(queue, monkeypatch):
    monkeypatch.setattr(queue, "_start", lambda: None)
    name = queue.submit(["train"], {}, "epochs = 3\n")
    calls = []

    def pretend(command, printed):
        calls.append(command)
        RunLog(queue.folder / name).write("done")

    monkeypatch.setattr(runs, "_call_command_line", pretend)
    queue.work()
    file, folder = str(queue.folder / name / "run.toml"), str(queue.folder / name)
    assert calls == [["train", "--config", file, "--log", folder]]
    assert (queue.folder / name / "run.toml").read_text() == "epochs = 3\n"


def test_the_second_run_waits_its_turn_and_nobody_has_to_look(queue):
    first, second, third = (queue.submit(["train", "3"], {}) for _ in range(3))
    running = until(queue, first, "running")
    assert queue.get(second).status == "waiting"
    assert (queue.get(second).ahead, queue.get(third).ahead) == (1, 2)
    end = time.monotonic() + 60
    while (last := queue.get(third)).status != "done":  # without `wake`: each process starts the next
        assert time.monotonic() < end
        time.sleep(0.05)
    order = [queue.get(name) for name in (first, second, third)]
    assert [run.status for run in order] == ["done"] * 3
    assert len(set.union(*map(processes, order))) == 3
    ends = [run.state.end["time"] for run in order]
    begins = [run.state.history[0]["began"] for run in order]
    assert ends[0] <= begins[1]
    assert ends[1] <= begins[2]
    assert running.name == first and last.name == third


def test_stopped_at_work_or_while_waiting_a_run_can_go_on(queue):
    first, second = queue.submit(["train", "30"], {}), queue.submit(["train", "2"], {})
    until(queue, first, "running")
    queue.stop(second)
    assert queue.get(second).status == "stopped"
    while not queue.get(first).state.history:
        time.sleep(0.05)
    queue.stop(first)
    assert queue.get(first).status in ("stopping", "stopped")
    done = len(until(queue, first, "stopped").state.history)
    assert done < 30
    assert queue.get(second).status == "stopped"  # it is not taken although nobody is at work
    queue.resume(second)
    assert [row["epoch"] for row in until(queue, second, "done").state.history] == [1, 2]


def test_a_stop_that_comes_before_the_run_listens_is_not_lost(queue):
    name = queue.submit(["train", "40"], {})
    until(queue, name, "running")
    queue.stop(name)
    assert len(until(queue, name, "stopped").state.history) < 40


def test_a_run_that_was_killed_with_a_request_to_stop_goes_on_without_it(queue):
    name = queue.submit(["hang", "3"], {})
    until(queue, name, "running")
    while not queue.get(name).state.history:
        time.sleep(0.05)
    queue.stop(name)
    assert queue.get(name).status == "stopping"
    os.kill(processes(queue.get(name)).pop(), signal.SIGKILL)
    until(queue, name, "crashed")
    content = json.loads((queue.folder / name / "run.json").read_text())
    (queue.folder / name / "run.json").write_text(json.dumps(content | {"command": ["train", "3"]}))
    queue.resume(name)
    assert len(until(queue, name, "done").state.history) == 3


def test_a_killed_process_leaves_a_sentence_and_the_next_run_starts(queue):
    name, other = queue.submit(["hang", "3"], {}), queue.submit(["train", "1"], {})
    end = time.monotonic() + 60
    while not queue.get(name).state.history:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert queue.get(name).status == "running"
    os.kill(processes(queue.get(name)).pop(), signal.SIGKILL)
    crashed = until(queue, name, "crashed")
    assert "was cut off" in crashed.sentence
    until(queue, other, "done")
    assert queue.get(name).status == "crashed"  # also while and after another one works
    content = json.loads((queue.folder / name / "run.json").read_text())
    (queue.folder / name / "run.json").write_text(json.dumps(content | {"command": ["train", "3"]}))
    queue.resume(name)
    until(queue, name, "done")


def test_what_the_program_meets_is_a_sentence_and_no_trace(queue, tmp_path):
    boom, refused = queue.submit(["boom"], {}), queue.submit(["refuse"], {})
    run = until(queue, boom, "failed")
    assert "unexpectedly" in run.sentence and "secret" not in run.sentence
    assert until(queue, refused, "failed").sentence == "no image has a label"
    end = time.monotonic() + 60
    while "RuntimeError" not in (queue.folder / "log.txt").read_text():  # whoever runs the server can read it
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_run_outlives_the_process_that_asked_for_it(queue, tmp_path):
    asks = (
        "import sys; from pathlib import Path; from steel_core.jobs import queue as runs\n"
        "runs._WORKER = [sys.executable, sys.argv[2]]\n"
        "print(runs.RunQueue(Path(sys.argv[1])).submit(['train', '6'], {}))"
    )
    script = str(tmp_path / "worker.py")
    asker = subprocess.run(
        [sys.executable, "-c", asks, str(queue.folder), script], capture_output=True, text=True, check=True
    )
    name = asker.stdout.strip()
    end = time.monotonic() + 60
    while RunQueue(queue.folder).get(name).status != "done":  # another dashboard that reads the same files
        assert time.monotonic() < end
        time.sleep(0.05)
    assert len(RunQueue(queue.folder).get(name).state.history) == 6


def test_who_asks_while_the_last_process_takes_its_leave_is_not_forgotten(queue, monkeypatch):
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as leaving:
        monkeypatch.setitem(runs._workers, queue.folder, leaving)
        name = queue.submit(["train", "1"], {})
        end = time.monotonic() + 50
        while queue.get(name).status != "done":  # nobody looks again
            assert time.monotonic() < end
            time.sleep(0.05)
        leaving.kill()


def test_many_who_look_start_one_process(queue):
    first = queue.submit(["train", "4"], {})
    others = [
        subprocess.Popen([*runs._WORKER, str(queue.folder)], env=os.environ | {"PYTHONPATH": str(runs._ROOT)})
        for _ in range(3)
    ]
    assert [other.wait(60) for other in others] == [0, 0, 0]
    assert len(processes(until(queue, first, "done"))) == 1


def test_an_installed_library_is_not_put_before_the_standard_one(monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", "before")
    assert runs._worker_environment()["PYTHONPATH"] == os.pathsep.join([str(runs._ROOT), "before"])
    monkeypatch.setattr(runs, "_ROOT", tmp_path)
    monkeypatch.setattr(runs.site, "getsitepackages", lambda: [str(tmp_path)])
    assert runs._worker_environment()["PYTHONPATH"] == "before"


@pytest.mark.parametrize("name", ["", "..", "../training", "20260101T000000-00000000"])
def test_a_link_reaches_nothing_but_runs(queue, name):
    (queue.folder.parent / "run.json").parent.mkdir(exist_ok=True)
    (queue.folder.parent / "run.json").write_text('{"command": [], "about": {}}')
    assert queue.get(name) is None


def test_a_damaged_run_hides_no_other(queue):
    good = queue.submit(["train", "1"], {})
    (queue.folder / "20990101T000000-00000000").mkdir()
    (queue.folder / "20990101T000000-00000000" / "run.json").write_text("{")
    assert [run.name for run in queue.history()] == [good]

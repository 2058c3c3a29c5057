"""Long work beside the page: works of one queue wait for each other, and each can be stopped."""

import threading

import pytest

from dashboard.services.jobs import Job, JobBoard, Kind, Stopped


def test_works_of_one_queue_wait_for_each_other_and_those_of_two_do_not():
    go_on, begun = threading.Event(), threading.Event()

    def wait(count):
        begun.set()
        return go_on.wait(60)

    first = Job("one", wait)
    assert begun.wait(60)
    second, other = Job("one", lambda count: "second"), Job("other", lambda count: "other")
    assert other.future.result(60) == "other" and not other.at_work
    assert first.at_work and second.at_work and not second.future.running()
    go_on.set()
    assert first.future.result(60) is True and second.future.result(60) == "second"


def test_what_is_stopped_is_at_work_no_more_whether_it_had_begun_or_not():
    go_on, begun = threading.Event(), threading.Event()

    def steps(count):
        for done in range(1, 1000):
            count("counting", done, 1000)
            begun.set()
            go_on.wait(60)

    first, second = Job("steps", steps), Job("steps", lambda count: pytest.fail("it began"))
    assert begun.wait(60)
    assert (first.stage, first.done, first.total) == ("counting", 1, 1000) and first.seconds_left is not None
    second.cancel()
    first.cancel()
    assert first.stopped and second.stopped and not first.at_work and not second.at_work
    go_on.set()
    with pytest.raises(Stopped):
        first.future.result(60)
    assert second.future.cancelled()


def wait_for(event):
    return lambda progress: event.wait(60)


@pytest.fixture
def go_on():
    event = threading.Event()
    yield event
    event.set()


def test_work_that_is_begun_twice_is_one_until_it_has_ended(go_on):
    board, kind = JobBoard(), Kind("evaluation", queue="begun twice")
    first = board.start(kind, "key", wait_for(go_on), about="the first")
    assert board.start(kind, "key", wait_for(go_on)) is first and board.get(kind, "key") is first
    assert board.running(kind) == [first] and first.about == "the first"
    go_on.set()
    first.future.result(60)
    assert board.running(kind) == [] and board.get(kind, "key") is first
    assert board.start(kind, "key", wait_for(go_on)) is not first


def test_kinds_do_not_meet_and_what_is_forgotten_is_gone():
    board, one, other = JobBoard(), Kind("one", queue="q"), Kind("other", queue="q")
    job = board.start(one, "key", lambda progress: 1)
    assert board.get(other, "key") is None and job.future.result(60) == 1
    board.forget(one, "key")
    assert board.get(one, "key") is None


def test_of_results_only_the_latest_are_kept_and_running_work_is_not_touched(go_on):
    board, kind = JobBoard(), Kind("bounded", queue="bounded", kept=2)
    done = [board.start(kind, key, lambda progress: None) for key in range(2)]
    for job in done:
        job.future.result(60)
    board.start(kind, 2, lambda progress: None).future.result(60)
    assert not any(job.stopped for job in done)  # a session that still holds one shows its result
    assert [board.get(kind, key) is None for key in range(3)] == [True, False, False]
    busy = [board.start(kind, f"busy {key}", wait_for(go_on)) for key in range(4)]
    assert board.running(kind) == busy
    assert not any(job.stopped for job in busy)


def test_work_that_may_be_abandoned_is_stopped_where_nobody_asked_for_it_the_longest(go_on):
    board, kind = JobBoard(), Kind("strips", queue="strips", kept=2, abandoned=True)
    first, second = (board.start(kind, key, wait_for(go_on)) for key in "ab")
    assert board.get(kind, "a") is first  # somebody looks at it
    board.start(kind, "c", wait_for(go_on))
    assert second.stopped and not first.stopped and board.get(kind, "b") is None


def test_failed_work_is_told_from_stopped_work():
    board, kind = JobBoard(), Kind("failing", queue="failing")
    job = board.start(kind, "key", lambda progress: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        job.future.result(60)
    assert job.failed and not job.stopped and not job.at_work
    job.cancel()
    assert not job.failed

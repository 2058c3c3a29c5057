"""Long work beside the page: works of one queue wait for each other, and each can be stopped."""

import threading

import pytest

from dashboard.services.jobs import Stopped, Task


def test_works_of_one_queue_wait_for_each_other_and_those_of_two_do_not():
    go_on, begun = threading.Event(), threading.Event()

    def wait(count):
        begun.set()
        return go_on.wait(60)

    first = Task("one", wait)
    assert begun.wait(60)
    second, other = Task("one", lambda count: "second"), Task("other", lambda count: "other")
    assert other.made.result(60) == "other" and not other.at_work
    assert first.at_work and second.at_work and not second.made.running()
    go_on.set()
    assert first.made.result(60) is True and second.made.result(60) == "second"


def test_what_is_stopped_is_at_work_no_more_whether_it_had_begun_or_not():
    go_on, begun = threading.Event(), threading.Event()

    def steps(count):
        for done in range(1, 1000):
            count("counting", done, 1000)
            begun.set()
            go_on.wait(60)

    first, second = Task("steps", steps), Task("steps", lambda count: pytest.fail("it began"))
    assert begun.wait(60)
    assert (first.stage, first.done, first.total) == ("counting", 1, 1000) and first.seconds_left is not None
    second.cancel()
    first.cancel()
    assert first.stopped and second.stopped and not first.at_work and not second.at_work
    go_on.set()
    with pytest.raises(Stopped):
        first.made.result(60)
    assert second.made.cancelled()

"""Work that is spread over the cores."""

import threading

import pytest
import torch

from steel_core.device import choose_device, in_parallel
from steel_core.errors import UsageError

CPU = torch.device("cpu")


@pytest.fixture
def two_cores():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_in_parallel_keeps_the_order_and_gives_each_item_one_core(two_cores):
    found = list(in_parallel(lambda i: (i, torch.get_num_threads(), threading.current_thread().name), range(9), CPU))
    assert [i for i, *_ in found] == list(range(9))
    assert {cores for _, cores, _ in found} == {1}
    assert all(name.startswith("one-core") for *_, name in found)


def test_in_parallel_leaves_the_cores_of_others_alone(two_cores):
    list(in_parallel(abs, [1, 2, 3], CPU))
    later = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert [torch.get_num_threads(), *later] == [2, 2]


def test_in_parallel_raises_what_the_work_raises_and_drops_the_rest(two_cores):
    begun = []

    def work(i):
        begun.append(i)
        if i == 1:
            raise UsageError("not this one")
        return i

    with pytest.raises(UsageError, match="not this one"):
        list(in_parallel(work, range(10_000), CPU))
    assert len(begun) < 10_000


def test_an_unknown_device_is_named():
    with pytest.raises(UsageError, match="abacus"):
        choose_device("abacus")


def test_in_parallel_draws_no_more_than_the_cores_can_begin(two_cores):
    drawn = []
    found = in_parallel(abs, (drawn.append(i) or i for i in range(1000)), CPU)
    assert next(found) == 0
    assert len(drawn) <= 4
    assert sum(1 for _ in found) == 999

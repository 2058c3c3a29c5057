"""Results that are kept: what tells one call from another, and that functions do not share a store."""

import pytest
import streamlit as st

from dashboard.services.cache import cached_data, cached_resource


class Model:
    """Streamlit could not hash it."""

    def __init__(self, name):
        self.hash = name
        self.lock = (each for each in ())


@pytest.fixture(autouse=True)
def empty():
    st.cache_data.clear()
    st.cache_resource.clear()


def test_calls_whose_keys_are_alike_are_one_and_others_are_not():
    calls = []

    @cached_data(lambda model, share: (model.hash, share), max_entries=4)
    def measure(model, share=0.5, read=None):
        calls.append((model.hash, share))
        return [share]

    assert measure(Model("a")) == measure(Model("a"), 0.5, read=len) == measure(model=Model("a"), share=0.5) == [0.5]
    assert calls == [("a", 0.5)]
    measure(Model("b"))
    measure(Model("a"), 0.25)
    assert calls == [("a", 0.5), ("b", 0.5), ("a", 0.25)]


def test_two_functions_of_one_key_have_a_store_each():
    @cached_data(lambda one: one, max_entries=4)
    def first(one):
        return f"first {one}"

    @cached_data(lambda one: one, max_entries=4)
    def second(one):
        return f"second {one}"

    assert first(1) == "first 1" and second(1) == "second 1"


def test_data_is_copied_and_a_resource_is_not():
    @cached_data(lambda one: one, max_entries=4)
    def copied(one):
        return [one]

    @cached_resource(lambda one: one, max_entries=4)
    def shared(one):
        return [one]

    assert copied(1) is not copied(1) and shared(1) is shared(1)


def test_of_too_many_the_oldest_is_released():
    released = []

    @cached_resource(lambda one: one, max_entries=2, on_release=released.append)
    def keep(one):
        return f"the {one}"

    for one in (1, 2, 3):
        keep(one)
    assert released == ["the 1"]


def test_what_was_raised_is_not_kept_and_a_store_can_be_emptied():
    calls = []

    @cached_data(lambda one: one, max_entries=4)
    def fail(one):
        calls.append(one)
        if len(calls) == 1:
            raise ValueError("at first")
        return one

    with pytest.raises(ValueError, match="at first"):
        fail(1)
    assert fail(1) == fail(1) == 1 and calls == [1, 1]
    fail.clear()
    assert fail(1) == 1 and calls == [1, 1, 1]

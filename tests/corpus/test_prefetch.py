"""A source that a thread reads ahead: its order, its errors, its end."""

import itertools
import queue
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affect.corpus.prefetch import prefetch

WAIT_S = 120.0


def counted(seen: queue.Queue, num: int) -> Iterator[int]:
    """Numbers, each told when it is made."""
    for n in range(num):
        seen.put(n)
        yield n


def others() -> set[threading.Thread]:
    """Threads alive."""
    return set(threading.enumerate())


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.booleans(), st.integers(), st.text())), st.integers(1, 5))
def test_items_come_unchanged_and_in_order_whatever_they_are(items: list, size: int):
    assert list(prefetch(items, size)) == items


def test_the_source_is_read_by_one_other_thread_which_then_ends():
    before = others()
    readers = list(prefetch((threading.current_thread() for _ in range(10)), 2))
    assert len(set(readers)) == 1 and readers[0] not in before and others() == before


def test_work_goes_on_while_an_item_is_used_but_not_far():
    seen: queue.Queue[int] = queue.Queue()
    items = prefetch(counted(seen, 100), 3)
    assert next(items) == 0
    assert [seen.get(timeout=WAIT_S) for _ in range(4)] == [0, 1, 2, 3]  # the one in use and three that wait
    made = 4
    while True:
        try:
            made = seen.get(timeout=0.3) + 1
        except queue.Empty:
            break
    assert made <= 5  # one more may be in the thread's hand
    assert list(items) == list(range(1, 100))


def test_nothing_is_read_before_the_first_item_is_asked_for():
    seen: queue.Queue[int] = queue.Queue()
    before = others()
    items = prefetch(counted(seen, 3), 2)
    assert others() == before and seen.empty()
    assert list(items) == [0, 1, 2]


@settings(deadline=None)
@given(st.integers(0, 6), st.integers(1, 4))
def test_an_error_of_the_source_comes_after_the_items_before_it(good: int, size: int):
    def source() -> Iterator[int]:
        yield from range(good)
        raise OSError("the disk is gone")

    got = []
    with pytest.raises(OSError, match="the disk is gone"):
        for item in prefetch(source(), size):
            got.append(item)
    assert got == list(range(good))


def test_an_error_says_where_in_the_source_it_arose():
    def broken() -> Iterator[int]:
        yield 1 // 0

    with pytest.raises(ZeroDivisionError) as raised:
        list(prefetch(broken(), 1))
    assert raised.traceback[-1].name == "broken"


def test_errors_that_are_no_exceptions_are_raised_here_too():
    def source() -> Iterator[int]:
        yield 0
        raise KeyboardInterrupt

    items = prefetch(source(), 1)
    assert next(items) == 0
    with pytest.raises(KeyboardInterrupt):
        next(items)


@pytest.mark.parametrize("taken", [1, 5])
def test_leaving_early_ends_the_thread_and_lets_the_source_clean_up(taken: int):
    closed = threading.Event()

    def source() -> Iterator[int]:
        try:
            yield from range(10**9)
        finally:
            closed.set()

    before = others()
    items = prefetch(source(), 2)
    assert [next(items) for _ in range(taken)] == list(range(taken))
    assert others() - before
    items.close()
    assert others() == before
    del items
    assert closed.is_set()


def test_an_error_of_the_reader_ends_the_thread():
    before = others()
    with pytest.raises(ValueError, match="enough"):
        for item in prefetch(range(10**9), 2):
            if item == 3:
                raise ValueError("enough")
    assert others() == before


def test_two_of_them_do_not_disturb_each_other():
    one, two = prefetch(range(50), 2), prefetch(range(100, 150), 3)
    assert list(zip(one, two, strict=True)) == list(zip(range(50), range(100, 150), strict=True))


def test_an_error_between_two_threads_ends_both():
    before = threading.active_count()

    def broken() -> Iterator[int]:
        with closing(prefetch(itertools.count(), 2)) as numbers:
            for number in numbers:
                if number == 3:
                    raise ValueError("planted")
                yield number

    with pytest.raises(ValueError, match="planted") as raised:
        list(prefetch(broken(), 2))
    assert threading.active_count() == before and raised.value.__traceback__

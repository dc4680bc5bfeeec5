"""Prefetching in a thread, so that decoding runs while a model computes."""

import queue
import threading
import time
from collections.abc import Generator, Iterable
from typing import Any, TypeVar

from affect import totals

Item = TypeVar("Item")


def prefetch(items: Iterable[Item], size: int, *, counted: bool = False) -> Generator[Item, None, None]:
    """Yields items in order while a thread reads up to ``size`` of them in advance.

    An exception of the source is raised here, after the items before it. Closing the iterator stops the thread and
    closes the source.

    Args:
        items: the source; only the thread reads it.
        size: largest number of waiting items, at least 1; the thread may hold one more.
        counted: whether the reader is a model whose waiting for decoded frames is counted (:mod:`affect.totals`).
    """
    assert size > 0
    waiting: queue.Queue[tuple[bool, Any]] = queue.Queue(maxsize=size)
    closed = threading.Event()

    def put(more: bool, value: object) -> bool:
        while not closed.is_set():
            try:
                waiting.put((more, value), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(True, item):
                    return
            put(False, None)
        except BaseException as error:  # raised where the items are read
            put(False, error)
        finally:
            if isinstance(items, Generator):
                items.close()  # here, because the thread that runs a generator has to close it

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            start = time.monotonic()
            more, value = waiting.get()
            if counted:
                totals.count(totals.DECODE_WAIT_S, time.monotonic() - start)
            if more:
                yield value
            elif value is None:
                return
            else:
                try:
                    raise value
                finally:
                    del value  # else the exception keeps this frame, and the frame the exception
    finally:
        closed.set()
        thread.join()

"""Work ahead in a thread: decoding goes on while a model computes."""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")


def ahead(items: Iterable[Item], size: int) -> Iterator[Item]:
    """Yield items that a thread makes up to ``size`` of in advance, in order.

    An exception of the source is raised here, after the items before it. Leaving early stops the thread.

    Args:
        items: the source; only the thread touches it.
        size: items that wait at most, one or more; one more is in the thread's hands.
    """
    assert size > 0
    waiting: queue.Queue[tuple[bool, Any]] = queue.Queue(maxsize=size)
    left = threading.Event()

    def put(more: bool, value: object) -> bool:
        while not left.is_set():
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

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            more, value = waiting.get()
            if more:
                yield value
            elif value is None:
                return
            else:
                raise value
    finally:
        left.set()
        thread.join()

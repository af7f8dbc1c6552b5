"""Work ahead of its reader: the same items and errors in the same order, no further ahead than allowed, gone with its reader."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from fedtalk.ahead import NotWanted, ahead, check_wanted


def _workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("fedtalk-ahead")]


def test_the_same_items_in_the_same_order_from_one_other_thread() -> None:
    threads = set()

    def work() -> Iterator[int]:
        for number in range(50):
            threads.add(threading.get_ident())
            yield number

    assert list(ahead(work(), 3)) == list(range(50))
    assert len(threads) == 1 and threading.get_ident() not in threads
    assert not _workers()


def test_it_never_gets_further_ahead_than_allowed() -> None:
    made = 0

    def work() -> Iterator[int]:
        nonlocal made
        for number in range(20):
            made = number + 1
            yield number

    for read, number in enumerate(ahead(work(), 3), 1):
        time.sleep(0.005)  # the worker could run away now
        assert read == number + 1 and made <= read + 3


def test_the_reader_works_while_the_next_item_is_made() -> None:
    """Each waits for the other's sign: one thread alone would wait for ever."""
    reading, making = threading.Event(), threading.Event()

    def work() -> Iterator[int]:
        yield 0
        making.set()
        assert reading.wait(20)
        yield 1

    stream = ahead(work(), 1)
    assert next(stream) == 0
    assert making.wait(20)
    reading.set()
    assert list(stream) == [1]


def test_an_error_comes_after_the_items_before_it() -> None:
    def work() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("the third")

    stream = ahead(work(), 5)
    assert [next(stream), next(stream)] == [1, 2]
    with pytest.raises(ValueError, match="the third"):
        next(stream)
    assert not _workers()


def test_long_work_is_abandoned_and_closed_when_its_reader_stops() -> None:
    said: list[str] = []
    started = threading.Event()

    def work() -> Iterator[int]:
        try:
            yield 0
            started.set()
            while True:
                time.sleep(0.001)
                check_wanted()
        except NotWanted:
            said.append("not wanted")
            raise
        finally:
            said.append("closed")

    stream = ahead(work(), 2)
    next(stream)
    assert started.wait(20)
    stream.close()  # type: ignore[attr-defined]
    assert said == ["not wanted", "closed"]
    assert not _workers()


def test_work_is_closed_with_a_reader_that_is_dropped() -> None:
    closed = False

    def work() -> Iterator[int]:
        nonlocal closed
        try:
            yield from range(10)
        finally:
            closed = True

    stream = ahead(work(), 2)
    next(stream)
    del stream
    assert closed and not _workers()


def test_outside_of_such_a_thread_work_is_always_wanted() -> None:
    check_wanted()

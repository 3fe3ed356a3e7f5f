"""What runs beside the rest begins again after a mistake, and ends when it is told."""

import asyncio
import threading

import pytest

from fleet_server import threads
from fleet_server.threads import Looped, Resumed, Threads, until

WAIT_S = 10.0


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "AGAIN_S", 0.0)


def test_after_a_mistake_it_begins_again() -> None:
    begun: list[int] = []
    third = threading.Event()

    def work(stopping: threading.Event) -> None:
        begun.append(len(begun))
        if len(begun) < 3:
            raise ValueError("a mistake")
        third.set()
        stopping.wait(WAIT_S)

    running = Resumed("work", work)
    running.start()
    assert third.wait(WAIT_S)
    running.stop()
    assert begun == [0, 1, 2]


def test_told_to_end_it_is_woken_and_waited_for() -> None:
    woken, ended = threading.Event(), threading.Event()

    def work(stopping: threading.Event) -> None:
        assert woken.wait(WAIT_S)
        assert stopping.is_set()
        ended.set()

    running = Resumed("work", work, wake=woken.set)
    running.start()
    running.stop()
    assert ended.is_set()


def test_what_was_never_started_ends_at_once() -> None:
    Resumed("work", lambda _stopping: None).stop()


def test_a_loop_of_its_own_ends_by_the_event_it_was_given() -> None:
    serving, ended = threading.Event(), threading.Event()

    async def serve(stop: asyncio.Event) -> None:
        serving.set()
        await stop.wait()
        ended.set()

    running = Looped("serve", serve)
    running.start()
    assert serving.wait(WAIT_S)
    running.stop()
    assert ended.is_set()


def test_a_loop_that_is_told_to_end_before_it_began_does_not_begin() -> None:
    served: list[int] = []

    async def serve(stop: asyncio.Event) -> None:
        served.append(1)

    running = Looped("serve", serve)
    running._stopping.set()
    running.start()
    running.stop()
    assert served == []


async def test_works_go_on_until_they_are_told_to_stop_and_are_cancelled_then() -> None:
    stop, begun, cancelled = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    serving = asyncio.create_task(until(stop, {"work": work()}))
    await begun.wait()
    assert not serving.done()
    stop.set()
    await serving
    assert cancelled.is_set()


async def test_a_mistake_in_one_work_ends_the_others_and_is_told() -> None:
    cancelled = asyncio.Event()

    async def mistaken() -> None:
        raise ValueError("a mistake")

    async def other() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(ValueError, match="a mistake"):
        await until(asyncio.Event(), {"other": other(), "mistaken": mistaken()})
    assert cancelled.is_set()


async def test_a_thread_does_one_thing_after_the_other_and_another_thread_does_not_wait_for_it() -> None:
    named, go, order = Threads("slow", "quick"), threading.Event(), []

    def slow() -> None:
        assert go.wait(WAIT_S)
        order.append("slow")

    first = asyncio.create_task(named.run("slow", slow))
    second = asyncio.create_task(named.run("slow", order.append, "after"))
    await named.run("quick", order.append, "quick")
    go.set()
    await asyncio.gather(first, second)
    named.close()
    assert order == ["quick", "slow", "after"]

"""The threads behind what comes, over a transfer that a test holds."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

import pytest

from broker_config.ids import DeviceId
from fleet_server.evidence.groups import Group
from fleet_server.evidence.transfer import Transfer
from fleet_server.evidence.underway import Outcome, Put, Said
from fleet_server.evidence.writing import GROUP_BYTES_MAX, UNSETTLED_MAX, Waiting, Writing
from tests.fleet_server.telemetry.service_rig import until

CAMERA = DeviceId("cam-1")
WAIT_S = 10.0


class Held(Transfer):
    """Tells in which order it was asked for what; its disk is busy until ``disk`` is set."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int]] = []
        self.threads: dict[str, set[str]] = {}
        self.disk = threading.Event()
        self.broken = False

    def _did(self, step: str, number: int) -> None:
        self.steps.append((step, number))
        self.threads.setdefault(step, set()).add(threading.current_thread().name)

    def write(self, said: Sequence[Said | Put], *, now_ms: int, now_s: float) -> Group:
        if self.broken:
            raise AssertionError("a mistake of ours")
        group = Group(1 + sum(step == "write" for step, _ in self.steps))
        self._did("write", group.number)
        return group

    def sync(self, group: Group) -> None:
        assert self.disk.wait(WAIT_S)
        self._did("sync", group.number)

    def commit(self, group: Group, *, now_ms: int) -> None:
        self._did("commit", group.number)

    def settle(self, group: Group, *, now_ms: int, now_s: float) -> Outcome:
        self._did("settle", group.number)
        return group.out

    def numbers(self, step: str) -> list[int]:
        return [number for each, number in self.steps if each == step]


class Run:
    """A writing with its transfer, and what was settled."""

    def __init__(self) -> None:
        self.transfer = Held()
        self.settled: list[Waiting] = []
        self.writing = Writing(
            self.transfer, lambda waited, _: self.settled.extend(waited), now_ms=lambda: 0, now_s=lambda: 0.0
        )

    def put(self, payload: bytes) -> Waiting:
        each = Waiting(Said(CAMERA, payload, chunk=True))
        self.writing.put(each)
        return each


@pytest.fixture
async def running() -> AsyncIterator[Run]:
    found = Run()
    yield found
    found.transfer.disk.set()
    found.writing.close()


async def test_groups_are_written_while_the_disk_is_busy_but_not_more_than_so_many(running: Run) -> None:
    put = [running.put(bytes(GROUP_BYTES_MAX)) for _ in range(UNSETTLED_MAX + 2)]
    await until(
        lambda: len(running.transfer.numbers("write")) == UNSETTLED_MAX, "as many as there may be are written"
    )
    await running.writing.beside(lambda: None)  # whatever that thread was given before is done
    assert running.transfer.steps == [("write", number + 1) for number in range(UNSETTLED_MAX)]
    assert (running.settled, running.writing.waiting_bytes) == ([], 2 * GROUP_BYTES_MAX)
    running.transfer.disk.set()
    await until(lambda: len(running.settled) == len(put), "all are settled")
    assert all(one is other for one, other in zip(running.settled, put, strict=True))
    assert running.writing.waiting_bytes == 0


async def test_every_step_is_taken_in_the_order_of_the_groups_and_each_on_its_thread(running: Run) -> None:
    running.transfer.disk.set()
    for _ in range(40):
        running.put(bytes(GROUP_BYTES_MAX))
    await until(lambda: len(running.settled) == 40, "all are settled")
    for step in ("write", "sync", "commit", "settle"):
        assert running.transfer.numbers(step) == list(range(1, 41))
        assert len(running.transfer.threads[step]) == 1
    assert running.transfer.threads["write"] == running.transfer.threads["settle"]


async def test_what_comes_while_all_are_busy_is_one_group(running: Run) -> None:
    for _ in range(UNSETTLED_MAX):
        running.put(bytes(GROUP_BYTES_MAX))
    for _ in range(100):
        running.put(b"x")
    running.transfer.disk.set()
    await until(lambda: len(running.settled) == UNSETTLED_MAX + 100, "all are settled")
    assert len(running.transfer.numbers("settle")) == UNSETTLED_MAX + 1


async def test_a_mistake_of_ours_is_told(running: Run) -> None:
    running.transfer.broken = True
    running.put(b"x")
    with pytest.raises(AssertionError, match="a mistake of ours"):
        await asyncio.wait_for(running.writing.run(), WAIT_S)

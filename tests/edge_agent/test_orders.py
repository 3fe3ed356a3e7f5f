"""An order has its effect at most once, whatever dies when; and it is checked by a process that surely ends."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from broker_config import device_classes
from broker_config.messages import CommandStatus
from broker_config.signing import Command, Kind, Refusal
from edge_agent.adapters import checking
from edge_agent.adapters.checking import CheckError
from edge_agent.adapters.counters import Counters, CountersError
from edge_agent.commanding import Commands
from edge_agent.commands import Outcome
from edge_agent.journal import Data
from edge_agent.journal import Kind as Noted
from edge_agent.obeying import Order
from edge_agent.orders import WAITING_MAX, Orders, Times
from edge_agent.verify import REQUEST_BYTES_MAX
from tests.edge_agent.test_obeying import read
from tests.orders import CAR, ID, NOW_MS, ROOTS, SECOND, SERVER, claims, command, order

ROOT = Path(__file__).parents[2]
NEW = NOW_MS + 500
"""A counter above the floor of a store that was made at NOW_MS."""


# The store ------------------------------------------------------------------------------------------------------


def test_what_was_begun_is_known_after_a_restart(tmp_path: Path) -> None:
    counters = Counters(tmp_path / "orders.db")
    assert counters.load() == ({}, None, {})
    counters.raise_floor(NOW_MS)
    counters.begin(Kind.COMMAND, NEW, ID)
    assert Counters(tmp_path / "orders.db").load() == ({Kind.COMMAND: NEW}, NOW_MS, {Kind.COMMAND: ID})
    counters.end(Kind.COMMAND)
    assert Counters(tmp_path / "orders.db").load() == ({Kind.COMMAND: NEW}, NOW_MS, {})


@pytest.mark.parametrize("damage", [b"", b"no database" * 100, b"SQLite format 3\0" + b"\xff" * 4000])
def test_a_damaged_store_is_set_aside_and_knows_that_it_knows_nothing(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "orders.db"
    Counters(path).begin(Kind.COMMAND, NEW, ID)
    path.write_bytes(damage)
    assert Counters(path).load() == ({}, None, {})


def test_a_store_that_cannot_be_read_is_an_error_and_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "orders.db").mkdir()
    with pytest.raises(CountersError):
        Counters(tmp_path / "orders.db").load()


# One order after the other --------------------------------------------------------------------------------------


TIMES = Times(0, NOW_MS + 1_000, NOW_MS)


async def identify(command: Command) -> Outcome:
    return Outcome()


def numbered(number: int) -> bytes:
    """An order of a command of its own."""
    return order(claims(command(order_id=f"{number:016x}"), counter=NEW + number))


class Device:
    """Orders whose journal and clock are the test's."""

    def __init__(
        self,
        path: Path,
        check: Callable[[Order], Awaitable[frozenset[str]]] | None = None,
        *,
        times: Times = TIMES,
    ) -> None:
        self.noted: list[tuple[Noted, Data]] = []
        self.told: list[CommandStatus] = []
        self.times = times
        self.checks = 0
        self._changed = asyncio.Event()
        self._check = check
        counters = Counters(path)
        self.commands = Commands(
            device_classes.load("host"),
            frozenset({"identify"}),
            lambda: {"identify": identify},
            counters,
            journal=self,
            tell=self.tell,
            boot="b" * 16,
            mono_ms=lambda: self.times.mono_ms,
            now_ms=lambda: self.times.now_ms,
        )
        self.orders = Orders(
            CAR, ROOTS, self.commands, counters, journal=self, tell=self.tell, times=lambda: self.times,
            check=self.check, penalty_s=0,
        )  # fmt: skip
        self.orders.turn()

    def note(self, kind: Noted, data: Data) -> None:
        self.noted.append((kind, data))

    def seal(self) -> None:
        pass

    def tell(self, status: CommandStatus) -> None:
        self.told.append(status)
        self._changed.set()

    async def check(self, order: Order) -> frozenset[str]:
        self.checks += 1
        return order.keyids if self._check is None else await self._check(order)

    async def hear(self, *data: bytes, channel: Kind = Kind.COMMAND) -> list[str]:
        """What becomes of each, in the order in which it is known."""
        before = len(self.told)
        for each in data:
            self.orders.told(channel, each)
        running = asyncio.create_task(self.orders.run())
        while len([s for s in self.told[before:] if s.state in {"done", "refused"}]) < len(data):
            self._changed.clear()
            await self._changed.wait()
        running.cancel()
        return [status.reason or status.state for status in self.told[before:]]


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "orders.db")


GOOD = order(claims(counter=NEW))


async def test_an_order_is_obeyed_and_told(device: Device) -> None:
    assert await device.hear(GOOD) == ["obeyed", "done"]
    assert [status.id for status in device.told] == [ID, ID]
    assert device.noted == [
        (Noted.COMMAND_OBEYED, {"id": ID, "name": "identify", "counter": NEW}),
        (Noted.COMMAND_DONE, {"id": ID, "name": "identify"}),
    ]


async def test_duplicates_are_obeyed_once_and_reordered_ones_not_at_all(device: Device) -> None:
    assert await device.hear(GOOD, GOOD, GOOD) == ["obeyed", "done", "replayed", "replayed"]
    assert await device.hear(numbered(1), GOOD) == ["replayed", "obeyed", "done"]
    assert device.checks == 2  # repetitions of what is over cost no process


async def test_who_sends_an_order_again_hears_what_became_of_it(device: Device) -> None:
    await device.hear(GOOD)
    await device.hear(GOOD)
    assert device.told[-1] == CommandStatus(1, ID, "done", "replayed")


async def test_a_command_that_is_signed_anew_is_not_done_a_second_time(device: Device, tmp_path: Path) -> None:
    anew = order(claims(counter=NEW + 1))
    assert await device.hear(GOOD) == ["obeyed", "done"]
    assert await device.hear(anew) == ["replayed"]
    assert await Device(tmp_path / "orders.db").hear(anew) == ["replayed"]
    assert [kind for kind, _ in device.noted].count(Noted.COMMAND_OBEYED) == 1


async def test_a_restart_forgets_nothing(device: Device, tmp_path: Path) -> None:
    await device.hear(GOOD)
    assert await Device(tmp_path / "orders.db").hear(GOOD) == ["replayed"]


async def test_a_store_that_was_lost_lets_nothing_be_repeated(device: Device, tmp_path: Path) -> None:
    await device.hear(GOOD)
    (tmp_path / "orders.db").unlink()
    again = Device(tmp_path / "orders.db", times=Times(0, NOW_MS + 1_000, NEW))
    assert await again.hear(GOOD) == ["replayed"]  # whatever was signed until now may have been obeyed
    assert await again.hear(numbered(1)) == ["obeyed", "done"]


async def test_without_the_servers_time_a_new_store_lets_nothing_be_obeyed(tmp_path: Path) -> None:
    device = Device(tmp_path / "orders.db", times=Times(0, NOW_MS + 1_000, None))
    assert await device.hear(GOOD) == ["not_kept"]
    device.times = Times(0, NOW_MS + 1_000, NOW_MS)
    device.orders.turn()
    assert await device.hear(GOOD) == ["obeyed", "done"]


async def test_a_clock_that_is_moved_back_lets_nothing_be_repeated(device: Device) -> None:
    await device.hear(GOOD)
    device.times = Times(0, NOW_MS, NOW_MS)
    assert await device.hear(GOOD) == ["replayed"]


async def test_a_counter_that_cannot_be_kept_is_not_obeyed(device: Device, tmp_path: Path) -> None:
    (tmp_path / "orders.db").unlink()
    (tmp_path / "orders.db").mkdir()
    assert await device.hear(GOOD) == ["not_kept"]
    assert [kind for kind, _ in device.noted] == [Noted.COMMAND_REFUSED]


async def test_more_than_may_wait_are_refused(device: Device) -> None:
    told = await device.hear(*[numbered(n) for n in range(WAITING_MAX + 3)])
    assert told[:3] == ["busy"] * 3
    assert told.count("done") == WAITING_MAX


async def test_a_check_that_fails_is_a_refusal(tmp_path: Path) -> None:
    async def fails(order: Order) -> frozenset[str]:
        raise CheckError("no process")

    assert await Device(tmp_path / "orders.db", fails).hear(GOOD) == ["unchecked"]


async def test_a_twin_that_nothing_applies_yet_is_only_in_the_journal(device: Device) -> None:
    device.orders.told(Kind.TWIN, order(claims({}, kind=Kind.TWIN, counter=NEW)))
    assert device.noted == [(Noted.COMMAND_REFUSED, {"reason": "unsupported", "count": 1})]
    assert device.told == []


async def test_a_flood_of_refusals_is_a_few_events(device: Device) -> None:
    for n in range(5_000):
        device.orders.told(Kind.COMMAND, b"x" * (n % 7))
    assert device.noted == [(Noted.COMMAND_REFUSED, {"reason": "malformed", "count": 1})]
    device.orders.turn(ending=True)
    assert device.noted[1:] == [(Noted.COMMAND_REFUSED, {"reason": "malformed", "count": 4_999})]


# Killed in between ----------------------------------------------------------------------------------------------


def obeyed(path: Path, step: str, counter: int = NEW) -> list[str]:
    """What one run notes before it ends or is cut."""
    command = [sys.executable, "-m", "tests.edge_agent.obeyer", str(path), str(counter), step]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=60)
    assert done.returncode == (-9 if step else 0), done.stderr
    return done.stdout.decode().split("\n")[:-1]


@pytest.mark.parametrize(
    ("step", "before"),
    [
        ("begun", []),  # after the counter is written down and before anything is done
        ("command.obeyed", ["command.obeyed "]),
        ("seal", ["command.obeyed "]),
        ("handler", ["command.obeyed "]),  # in the middle of what it does
        ("command.done", ["command.obeyed ", "command.done "]),
    ],
)
def test_killed_at_any_step_it_never_does_it_twice_and_says_that_it_was_interrupted(
    tmp_path: Path, step: str, before: list[str]
) -> None:
    path = tmp_path / "orders.db"
    assert obeyed(path, step) == before
    assert obeyed(path, "") == ["command.interrupted ", "command.refused replayed"]
    assert obeyed(path, "") == ["command.refused replayed"]
    assert obeyed(path, "", NEW + 1) == ["command.obeyed ", "command.done "]


def test_killed_when_its_end_is_written_down_it_tells_no_other_end(tmp_path: Path) -> None:
    path = tmp_path / "orders.db"
    assert obeyed(path, "kept done") == ["command.obeyed ", "command.done "]
    assert obeyed(path, "") == ["command.refused replayed"]


# The process that checks ----------------------------------------------------------------------------------------


async def test_the_child_tells_right_from_wrong() -> None:
    both = read(claims(command()), SERVER, SECOND)
    assert await checking.verified(both) == {SERVER.keyid, SECOND.keyid}
    swapped = both._replace(candidates=(both.candidates[0]._replace(sig=both.candidates[1].sig), both.candidates[1]))
    assert await checking.verified(swapped) == {SECOND.keyid}
    short = both._replace(candidates=(both.candidates[0]._replace(public=b"short"),))
    assert await checking.verified(short) == frozenset()


async def test_a_child_that_takes_too_long_is_killed_and_says_nothing() -> None:
    with pytest.raises(CheckError, match="within"):
        await checking.verified(read(claims()), seconds_max=0.001)
    assert not any("edge_agent.verify" in command for command in children())


def children() -> list[str]:
    """Their command lines."""
    path = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    return [Path(f"/proc/{pid}/cmdline").read_text() for pid in path.read_text().split()]


@pytest.mark.parametrize("request_bytes", [b"", b"{}", b"[" * 100_000, b"x" * (REQUEST_BYTES_MAX + 1)])
def test_a_request_that_is_none_gets_no_answer(request_bytes: bytes) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-m", "edge_agent.verify"], input=request_bytes, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, b"")


def test_the_childs_memory_is_bounded() -> None:
    code = "from edge_agent import verify; verify._bound(); bytearray(verify.MEMORY_BYTES_MAX)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert b"MemoryError" in done.stderr


def test_the_agent_does_not_load_the_library_that_checks() -> None:
    code = "import sys, edge_agent.agent; print([m for m in sys.modules if m.startswith('cryptography')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"[]\n"


def test_every_refusal_has_a_name_that_the_status_can_carry() -> None:
    assert all(len(reason.value) <= 64 for reason in Refusal)

"""A command is begun once, waits for whom it has to, and its end is known whatever dies when."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from broker_config import device_classes, signing
from broker_config.messages import CommandStatus
from broker_config.signing import Command, Kind, Refusal
from edge_agent import commands, obeying
from edge_agent.adapters import program
from edge_agent.adapters.counters import Counters
from edge_agent.adapters.program import ProgramError
from edge_agent.commanding import Commands
from edge_agent.commands import (
    DEFERRED_MAX,
    FORGET_MS,
    KEPT_MAX,
    RESTART_MS_MAX,
    RUNNING_MAX,
    Due,
    Outcome,
    Row,
    State,
)
from edge_agent.journal import Data
from edge_agent.journal import Kind as Noted
from edge_agent.obeying import Facts, Order
from tests.edge_agent.rig import poll
from tests.orders import CAR, NOW_MS, ROOTS, SECOND, SERVER, SITE, Key, claims, order, signer

BOOT = "b" * 16
OTHER_BOOT = "c" * 16
ROW = Row("0" * 15 + "1", "identify", NOW_MS, NOW_MS + 60_000, State.OBEYED, boot=BOOT, mono_ms=5)


# What is decided ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "boot", "then"),
    [
        (State.DEFERRED, OTHER_BOOT, State.DEFERRED),  # it waits on
        (State.OBEYED, BOOT, State.INTERRUPTED),
        (State.OBEYED, OTHER_BOOT, State.INTERRUPTED),
        (State.RESTARTING, BOOT, State.RESTARTING),  # the agent only; the board may still be about to
        (State.RESTARTING, OTHER_BOOT, State.DONE),
        (State.DONE, OTHER_BOOT, State.DONE),
        (State.FAILED, OTHER_BOOT, State.FAILED),
        (State.INTERRUPTED, OTHER_BOOT, State.INTERRUPTED),
    ],
)
def test_what_a_new_run_makes_of_what_it_finds(state: State, boot: str, then: State) -> None:
    assert commands.found(replace(ROW, state=state), boot).state is then


@pytest.mark.parametrize(
    ("now_ms", "lease", "running", "due"),
    [
        (None, "", 0, Due.NOTHING),  # unknown is no
        (NOW_MS, "", 0, Due.BEGIN),
        (NOW_MS, "on_call", 0, Due.NOTHING),
        (NOW_MS, "", RUNNING_MAX, Due.NOTHING),
        (NOW_MS + 59_999, "", 0, Due.BEGIN),
        (NOW_MS + 60_000, "", 0, Due.EXPIRED),
        (NOW_MS + 60_000, "on_call", 0, Due.EXPIRED),
    ],
)
def test_when_one_that_waits_is_begun(now_ms: int | None, lease: str, running: int, due: Due) -> None:
    assert commands.due(replace(ROW, state=State.DEFERRED), now_ms=now_ms, lease=lease, running=running) is due


def test_a_row_stays_until_its_order_has_expired_and_then_makes_room() -> None:
    rows = [replace(ROW, id=f"{n:016x}", state=State.DONE) for n in range(KEPT_MAX)]
    assert commands.busy(rows, lease="", now_ms=NOW_MS) is Refusal.BUSY
    assert commands.busy(rows, lease="", now_ms=None) is Refusal.BUSY
    assert commands.busy(rows, lease="", now_ms=NOW_MS + 60_000 + FORGET_MS) is None
    assert commands.room(rows, now_ms=NOW_MS + 60_000 + FORGET_MS) == tuple(row.id for row in rows)


@pytest.mark.parametrize(
    ("state", "count", "lease", "refused"),
    [
        (State.OBEYED, RUNNING_MAX - 1, "", None),
        (State.OBEYED, RUNNING_MAX, "", Refusal.BUSY),
        (State.OBEYED, RUNNING_MAX, "on_call", None),  # it waits anyway
        (State.DEFERRED, DEFERRED_MAX, "on_call", Refusal.BUSY),
    ],
)
def test_how_many_may_run_and_wait(state: State, count: int, lease: str, refused: Refusal | None) -> None:
    rows = [replace(ROW, id=f"{n:016x}", state=state) for n in range(count)]
    assert commands.busy(rows, lease=lease, now_ms=NOW_MS) is refused


# Carried out --------------------------------------------------------------------------------------------------------


class Board:
    """Commands of a body camera whose clock, leases and handlers are the test's."""

    def __init__(self, path: Path, *, boot: str = BOOT) -> None:
        self.noted: list[tuple[Noted, Data]] = []
        self.told: list[CommandStatus] = []
        self.lease = ""
        self.now_ms: int | None = NOW_MS + 1_000
        self.mono_ms = 1_000
        self.roots = ROOTS
        self.did: list[str] = []
        self.outcome = Outcome(result={"n": 1})
        self.hold = asyncio.Event()
        self.hold.set()
        names = ("identify", "restart", "reboot", "recording.start", "locate")
        self.commands = Commands(
            device_classes.load("body_camera"),
            frozenset(names),
            lambda: dict.fromkeys(names, self._handler),
            Counters(path),
            journal=self,
            tell=self.told.append,
            boot=boot,
            mono_ms=lambda: self.mono_ms,
            now_ms=lambda: self.now_ms,
            lease=lambda: self.lease,
        )
        self.commands.load()

    async def _handler(self, command: Command) -> Outcome:
        self.did.append(command.name)
        await self.hold.wait()
        return self.outcome

    def note(self, kind: Noted, data: Data) -> None:
        self.noted.append((kind, data))

    def seal(self) -> None:
        pass

    def facts(self) -> Facts:
        return Facts(CAR, self.roots, self.commands.safety, {}, 0, self.now_ms, {}, self.commands.unable)

    def take(self, name: str, number: int = 1, *keys: Key, **parameters: bool | float | str) -> Refusal | None:
        body = Command(1, f"{number:016x}", name, parameters)
        found = obeying.read(order(claims(body, counter=NOW_MS + number), *keys), Kind.COMMAND, ROOTS)
        assert isinstance(found, Order)
        refused = obeying.hopeless(found, self.facts())
        return refused.reason if refused else self.commands.take(found)

    async def turn(self) -> None:
        self.commands.turn(self.facts())
        for _ in range(3):
            await asyncio.sleep(0)
        self.commands.turn(self.facts())

    @property
    def states(self) -> list[str]:
        return [each.state for each in self.told]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "orders.db"


@pytest.fixture
async def board(path: Path) -> Board:
    return Board(path)


async def test_its_end_is_told_and_in_the_journal_with_what_was_found(board: Board) -> None:
    assert board.take("identify") is None
    await board.turn()
    assert board.told[-1] == CommandStatus(1, "0" * 15 + "1", "done", result={"n": 1})
    assert board.noted[-1] == (Noted.COMMAND_DONE, {"n": 1, "id": "0" * 15 + "1", "name": "identify"})


async def test_one_that_fails_says_why(board: Board) -> None:
    board.outcome = Outcome("exit_code", {"exit_code": 3})
    assert board.take("identify") is None
    await board.turn()
    assert (board.told[-1].state, board.told[-1].reason) == ("failed", "exit_code")
    assert board.noted[-1][0] is Noted.COMMAND_FAILED
    assert board.noted[-1][1]["exit_code"] == 3


@pytest.mark.parametrize(
    ("name", "parameters", "refused"),
    [
        ("locate", {"for_s": 5}, None),
        ("locate", {"for_s": 500}, Refusal.MALFORMED),
        ("locate", {"for_s": "long"}, Refusal.MALFORMED),
        ("identify", {"loud": True}, Refusal.MALFORMED),
        ("self.test", {}, Refusal.UNSUPPORTED),  # it has no handler here
    ],
)
async def test_parameters_are_what_the_class_says(
    board: Board, name: str, parameters: dict[str, bool | int | float | str], refused: Refusal | None
) -> None:
    assert board.take(name, 1, SERVER, **parameters) is refused


async def test_what_is_disruptive_waits_for_the_lease_and_harmless_does_not(board: Board) -> None:
    board.lease = "on_call"
    assert board.take("restart", 1) is None
    assert board.take("identify", 2) is None
    await board.turn()
    assert board.did == ["identify"]
    assert board.told[0] == CommandStatus(1, "0" * 15 + "1", "deferred", waits_for="on_call")
    assert (Noted.COMMAND_DEFERRED, {"id": "0" * 15 + "1", "name": "restart", "waits_for": "on_call"}) in board.noted
    board.lease = ""
    await board.turn()
    assert board.did == ["identify", "restart"]
    assert board.states[-2:] == ["obeyed", "done"]


async def test_one_that_waits_says_so_anew_when_it_waits_for_another_lease(board: Board) -> None:
    board.lease = "on_call"
    board.take("restart")
    board.lease = "recording"
    await board.turn()
    assert [each.waits_for for each in board.told] == ["on_call", "recording"]


async def test_one_that_waits_survives_a_restart_and_is_done_once(board: Board, path: Path) -> None:
    board.lease = "on_call"
    board.take("restart")
    again = Board(path, boot=OTHER_BOOT)
    assert again.take("restart") is Refusal.REPLAYED
    again.lease = "on_call"
    await again.turn()
    assert again.did == []
    again.lease = ""
    await again.turn()
    assert again.states[-1] == "done"
    third = Board(path)
    await third.turn()
    assert (third.did, third.told) == ([], [])


async def test_one_that_waits_expires_with_its_order_and_says_so(board: Board) -> None:
    board.lease = "on_call"
    board.take("restart")
    board.now_ms = NOW_MS + 60_000
    await board.turn()
    assert (board.told[-1].state, board.told[-1].reason) == ("failed", "expired")
    assert board.noted[-1][0] is Noted.COMMAND_FAILED
    board.lease = ""
    await board.turn()
    assert board.did == []


async def test_one_that_waits_is_not_begun_while_nobody_vouches_for_the_time(board: Board) -> None:
    board.lease = "on_call"
    board.take("restart")
    board.lease, board.now_ms = "", None
    await board.turn()
    assert board.did == []


async def test_whose_signer_is_gone_meanwhile_is_not_begun(board: Board) -> None:
    board.lease = "on_call"
    board.take("restart")
    board.lease, board.roots = "", signing.Roots(1, 2, SITE, (signer(SECOND),))
    await board.turn()
    assert board.did == []
    assert (board.told[-1].state, board.told[-1].reason) == ("failed", "unknown_key")


async def test_what_is_hazardous_waits_too_and_needs_its_two_signers_still(board: Board) -> None:
    board.lease = "on_call"
    assert board.take("recording.start", 1, SERVER, reason="x") is Refusal.TOO_FEW_SIGNERS
    assert board.take("recording.start", 1, SERVER, SECOND, reason="x") is None
    board.lease, board.roots = "", signing.Roots(1, 2, SITE, (signer(SERVER),))
    await board.turn()
    assert (board.did, board.told[-1].reason) == ([], "too_few_signers")


async def test_a_restart_is_done_when_the_board_comes_back_with_another_boot(board: Board, path: Path) -> None:
    board.outcome = Outcome()
    board.take("reboot")
    await board.turn()
    assert board.states == ["obeyed"]
    await board.commands.stop()
    same = Board(path)  # the agent was stopped sooner than the board
    assert same.told == []
    other = Board(path, boot=OTHER_BOOT)
    assert other.told == [CommandStatus(1, "0" * 15 + "1", "done", result={"boot": OTHER_BOOT})]
    assert other.noted[-1][0] is Noted.COMMAND_DONE


async def test_a_restart_that_does_not_come_has_failed(board: Board) -> None:
    board.outcome = Outcome()
    board.take("reboot")
    await board.turn()
    board.mono_ms += RESTART_MS_MAX
    await board.turn()
    assert (board.told[-1].state, board.told[-1].reason) == ("failed", "no_restart")


async def test_what_runs_when_the_agent_stops_is_interrupted_and_not_begun_again(board: Board, path: Path) -> None:
    board.hold.clear()
    board.take("restart")
    await board.turn()
    await board.commands.stop()
    assert board.states == ["obeyed", "interrupted"]
    again = Board(path)
    await again.turn()
    assert (again.did, again.told) == ([], [])


async def test_more_than_may_run_are_refused_as_busy(board: Board) -> None:
    board.hold.clear()
    took = [board.take("identify", n) for n in range(1, RUNNING_MAX + 2)]
    assert took == [None] * RUNNING_MAX + [Refusal.BUSY]
    board.hold.set()
    await board.turn()
    assert board.take("identify", 9) is None


# Programs -----------------------------------------------------------------------------------------------------------


def script(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "script.py"
    file.write_text(text)
    return [sys.executable, "-I", str(file)]


async def test_a_program_gets_the_parameters_and_its_exit_code_and_output_count(tmp_path: Path) -> None:
    argv = script(tmp_path, "import sys; print(sys.stdin.read()); sys.stderr.write('no'); sys.exit(3)")
    ran = await program.run(argv, json.dumps({"for_s": 5}).encode(), seconds_max=20)
    assert ran.code == 3
    assert b'{"for_s": 5}' in ran.output
    assert b"no" in ran.output


async def test_of_what_a_program_says_only_the_beginning_is_kept(tmp_path: Path) -> None:
    ran = await program.run(script(tmp_path, "print('x' * 10_000_000)"), b"", seconds_max=20)
    assert ran == (0, b"x" * program.OUTPUT_BYTES_MAX)


async def test_a_program_that_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    text = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "time.sleep(600)\n"
    )
    with pytest.raises(ProgramError, match="no end within"):
        await program.run(script(tmp_path, text), b"", seconds_max=3)
    for pid in pids.read_text().split():
        await poll(lambda pid=int(pid): gone(pid), "it is gone")  # type: ignore[misc]


async def test_a_program_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ProgramError):
        await program.run([str(tmp_path / "none")], b"", seconds_max=1)


def gone(pid: int) -> bool:
    """A zombie that nobody waits for is as good as gone."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return True
    return state == "Z" or os.getpid() == pid

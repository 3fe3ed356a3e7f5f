"""Carries commands out: those that may begin at once, those that waited for a lease; each in a task of its own.

What :mod:`edge_agent.commands` decides is written down before it is done. The journal tells it, durably; the status
on ``up/command`` only tells it sooner.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol, TypeAlias

from msgspec.structs import replace

from broker_config import signing
from broker_config.device_classes import DeviceClass
from broker_config.messages import CommandStatus
from broker_config.signing import Command, Kind, Refusal
from broker_config.text import shown
from edge_agent import commands, obeying
from edge_agent.adapters.counters import Counters, CountersError
from edge_agent.commands import Due, Outcome, Row, State
from edge_agent.journal import Data
from edge_agent.journal import Kind as Noted
from edge_agent.obeying import Facts, Order

logger = logging.getLogger(__name__)

Handler: TypeAlias = Callable[[Command], Awaitable[Outcome]]
"""Does what a command says. What it raises is a mistake of ours and ends the agent."""
_OF_THE_EVENT: Final = frozenset({"id", "name", "reason", "waits_for", "counter"})


class Journal(Protocol):
    """Where it is written what was done."""

    def note(self, kind: Noted, data: Data) -> None:
        """An event, as of now."""

    def seal(self) -> None:
        """What was noted so far becomes durable, if the disk takes it."""


class Commands:
    """All calls are the agent's loop's. ``lease``: what defers commands now, empty if nothing does."""

    def __init__(
        self,
        device_class: DeviceClass,
        supported: frozenset[str],
        handlers: Callable[[], Mapping[str, Handler]],
        counters: Counters,
        *,
        journal: Journal,
        tell: Callable[[CommandStatus], None],
        boot: str,
        mono_ms: Callable[[], int],
        now_ms: Callable[[], int | None],
        lease: Callable[[], str] = lambda: "",
    ) -> None:
        """*handlers*: what does each of those *supported*; asked for with the first command, because most runs see
        none. *now_ms*: the time, if somebody vouches for it.
        """
        self._device_class = device_class
        self._supported = supported
        self._handlers = handlers
        self._loaded: Mapping[str, Handler] | None = None
        self._counters = counters
        self._journal = journal
        self._tell = tell
        self._boot = boot
        self._mono_ms = mono_ms
        self._now_ms = now_ms
        self._lease = lease
        self._rows: dict[str, Row] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.safety = {name: command.safety_class for name, command in device_class.commands.items()}

    # What the orders ask -----------------------------------------------------------------------------------------

    def unable(self, command: Command) -> Refusal | None:
        """Why it cannot be taken on now."""
        if command.id in self._rows:
            return Refusal.REPLAYED  # under another counter: it was signed anew
        if command.name not in self._supported:
            return Refusal.UNSUPPORTED
        if self._device_class.parameter_faults(command.name, command.parameters):
            return Refusal.MALFORMED
        return commands.busy(self._rows.values(), lease=self._waits_for(command.name), now_ms=self._now_ms())

    def known(self, name: str) -> CommandStatus | None:
        """What became of the command of that id, if its order came before."""
        row = self._rows.get(name)
        return None if row is None else commands.status(row, again=True)

    def take(self, order: Order) -> Refusal | None:
        """Obey it, now or when it may be: its signatures, device, time and counter were right. Returns why not."""
        command = order.command
        assert command is not None, "orders of other kinds go elsewhere"
        row = commands.admitted(
            command,
            order.claims,
            lease=self._waits_for(command.name),
            order=signing.encode(order.envelope),
            boot=self._boot,
            mono_ms=self._mono_ms(),
        )
        forget = commands.room(self._rows.values(), now_ms=self._now_ms()) or ()
        try:
            self._counters.begin_command(row, forget)
        except CountersError as error:
            logger.warning("counter not kept", extra={"why": shown(error)})
            return Refusal.NOT_KEPT
        for name in forget:
            self._rows.pop(name, None)
        self._rows[row.id] = row
        if row.state is State.DEFERRED:
            logger.info("command waits", extra={"id": row.id, "command": row.name, "waits_for": row.waits_for})
            self._note(Noted.COMMAND_DEFERRED, row, waits_for=row.waits_for)
            self._journal.seal()
            self._tell(commands.status(row))
        else:
            self._start(row, command)
        return None

    def _waits_for(self, name: str) -> str:
        safety = self.safety.get(name)
        return self._lease() if safety is not None and commands.waits(safety) else ""

    # What time makes due ------------------------------------------------------------------------------------------

    def load(self) -> None:
        """What an earlier run left. Raises CountersError."""
        self._rows = self._counters.commands()
        for row in list(self._rows.values()):
            now = commands.found(row, self._boot)
            if now is not row:
                self._end(now)

    def turn(self, facts: Facts) -> None:
        """Whatever is due; *facts* are those of the orders."""
        for name, task in list(self._tasks.items()):
            if task.done():
                del self._tasks[name]
                task.result()  # a mistake of ours ends the agent
        for row in list(self._rows.values()):
            if row.state is State.RESTARTING:
                now = commands.overdue(row, mono_ms=self._mono_ms())
                if now is not row:
                    self._end(now)
            elif row.state is State.DEFERRED:
                self._look_again(row, facts)

    def _look_again(self, row: Row, facts: Facts) -> None:
        lease = self._waits_for(row.name)
        under_way = sum(each.state in {State.OBEYED, State.RESTARTING} for each in self._rows.values())
        match commands.due(row, now_ms=facts.now_ms, lease=lease, running=under_way):
            case Due.EXPIRED:
                self._end(commands.ended(row, Outcome(Refusal.EXPIRED.value)))
            case Due.BEGIN:
                self._begin(row, facts)
            case Due.NOTHING:
                if lease and lease != row.waits_for:
                    self._rows[row.id] = now = replace(row, waits_for=lease)
                    self._tell(commands.status(now))

    def _begin(self, row: Row, facts: Facts) -> None:
        order = obeying.read(row.order, Kind.COMMAND, facts.roots)
        # its signatures were right when it came; whose they are may count no more
        refused = order.reason if isinstance(order, obeying.Refuse) else obeying.no_more(order, facts)
        if refused is not None or isinstance(order, obeying.Refuse) or order.command is None:
            self._end(commands.ended(row, Outcome((refused or Refusal.MALFORMED).value)))
            return
        now = commands.begun(row, boot=self._boot, mono_ms=self._mono_ms())
        if self._keep(now):
            self._start(now, order.command)
        else:
            self._rows[row.id] = row  # and is tried again

    # Carrying out ------------------------------------------------------------------------------------------------

    def _start(self, row: Row, command: Command) -> None:
        logger.info("order obeyed", extra={"id": row.id, "command": row.name})
        self._note(Noted.COMMAND_OBEYED, row, counter=row.counter)
        self._journal.seal()
        self._tell(commands.status(row))
        self._tasks[row.id] = asyncio.create_task(self._carry_out(row, command))

    async def _carry_out(self, row: Row, command: Command) -> None:
        if self._loaded is None:
            self._loaded = self._handlers()
        outcome = await self._loaded[command.name](command)
        now = commands.ended(row, outcome)
        if now is not row:
            self._end(now)

    def _end(self, row: Row) -> None:
        """Told, then written down: a power cut between the two tells another end behind it, and the first counts."""
        log = logger.info if row.state is State.DONE else logger.warning
        log("command ended", extra={"id": row.id, "command": row.name, "state": row.state, "reason": row.reason})
        match row.state:
            case State.DONE:
                self._note(Noted.COMMAND_DONE, row)
            case State.FAILED:
                self._note(Noted.COMMAND_FAILED, row, reason=row.reason)
            case _:
                self._journal.note(Noted.COMMAND_INTERRUPTED, {"id": row.id, "kind": Kind.COMMAND.value})
        self._journal.seal()
        self._keep(row)
        self._tell(commands.status(row))

    def _note(self, kind: Noted, row: Row, **more: str | float) -> None:
        found = {name: value for name, value in row.result.items() if name not in _OF_THE_EVENT}
        self._journal.note(kind, {**found, "id": row.id, "name": row.name, **more})

    def _keep(self, row: Row) -> bool:
        self._rows[row.id] = row
        try:
            self._counters.keep(row)
        except CountersError as error:
            logger.warning("not written down", extra={"id": row.id, "why": shown(error)})
            return False
        return True

    async def stop(self) -> None:
        """The agent stops: what runs is interrupted."""
        tasks, self._tasks = self._tasks, {}
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        for name in tasks:
            row = self._rows[name]
            if row.state is State.OBEYED:
                self._end(commands.found(row, self._boot))

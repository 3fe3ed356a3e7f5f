"""Takes what the device is ordered to do, one after the other: read, have checked, decide, write down, obey.

What was done is in the journal, durably and under the spool's rules. The status on ``up/command`` is only the sooner
word of it, said once and not kept: a hostile broker may lose it, and the journal tells all the same.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple, Protocol

from broker_config.ids import DeviceId
from broker_config.messages import CommandStatus
from broker_config.signing import Claims, Kind, Refusal, Roots
from broker_config.text import shown
from edge_agent import obeying
from edge_agent.adapters import checking
from edge_agent.adapters.checking import CheckError
from edge_agent.adapters.counters import Counters, CountersError
from edge_agent.commanding import Commands, Journal
from edge_agent.journal import Kind as Noted
from edge_agent.obeying import Facts, Obey, Order, Refuse

logger = logging.getLogger(__name__)

WAITING_MAX: Final = 16
"""Orders that wait for their check; what comes beyond is refused, and said again by who wants it done."""
PENALTY_S: Final = 1.0
"""After a check that ended in a refusal the next one waits: forged orders cannot keep the processor busy."""

Check = Callable[[Order], Awaitable[frozenset[str]]]


class Times(NamedTuple):
    """``now_ms``: if anybody vouches for it; ``served_ms``: by the server's own authentic word."""

    mono_ms: int
    now_ms: int | None
    served_ms: int | None


class Carrier(Protocol):
    """Carries out the orders of a kind that is no command. What it does may be repeated, and may be lost: it is then
    ordered anew, perhaps under the same counter.
    """

    def fits(self, claims: Claims) -> bool:
        """Whether the body is what its kind says."""

    def carry_out(self, order: Order) -> bool:
        """Do it: its signatures, device, time and counter were right, and the counter is written down. False: it was
        not done, and may come again.
        """


class Orders:
    """``tell`` says on ``up/command``, ``times`` reads the clocks. All calls are the agent's loop's."""

    def __init__(
        self,
        device: DeviceId,
        roots: Roots | None,
        commands: Commands,
        counters: Counters,
        *,
        journal: Journal,
        tell: Callable[[CommandStatus], None],
        times: Callable[[], Times],
        carriers: Mapping[Kind, Carrier] | None = None,
        check: Check = checking.verified,
        penalty_s: float = PENALTY_S,
    ) -> None:
        """*commands* carries commands out; *carriers*: orders of other kinds."""
        self._device = device
        self._roots = roots
        self._commands = commands
        self._counters = counters
        self._journal = journal
        self._tell = tell
        self._times = times
        self._carriers = carriers or {}
        self._check = check
        self._penalty_s = penalty_s
        self._last: dict[Kind, int] = {}
        self._floor: int | None = None
        self._loaded = False
        self._refusals = obeying.Refusals()
        self._waiting: asyncio.Queue[Order] = asyncio.Queue(WAITING_MAX)

    # Called by the agent ----------------------------------------------------------------------------------------

    def told(self, channel: Kind, data: bytes) -> None:
        """An order came. Refused at once, or taken up for :meth:`run`."""
        order = obeying.read(data, channel, self._roots)
        if isinstance(order, Refuse):
            self._refuse(channel, order)
        elif refused := obeying.hopeless(order, self._facts()):
            self._refuse(channel, refused)
        else:
            try:
                self._waiting.put_nowait(order)
            except asyncio.QueueFull:
                self._refuse(channel, Refuse(Refusal.BUSY))

    def trust(self, roots: Roots) -> None:
        """Whose orders count from now on, those that wait among them."""
        self._roots = roots

    @property
    def ready(self) -> bool:
        """Whether an order that is signed now could be obeyed."""
        return self._floor is not None and self._times().now_ms is not None

    def turn(self, *, ending: bool = False) -> None:
        """What time alone makes due; *ending*: nothing is kept back for later."""
        if not self._loaded:
            self._load()
        self._raise_floor()
        self._tell_refusals(everything=ending)
        if self._loaded and not ending:
            self._commands.turn(self._facts())

    def _tell_refusals(self, *, everything: bool = False) -> None:
        if not self._refusals:
            return
        for reason, count in self._refusals.due(self._times().mono_ms, everything=everything).items():
            logger.warning("orders refused", extra={"reason": reason.value, "count": count})
            self._journal.note(Noted.COMMAND_REFUSED, {"reason": reason.value, "count": count})

    async def run(self) -> None:
        """Take one order after the other until cancelled."""
        while True:
            await self._take(await self._waiting.get())
            await asyncio.sleep(0)  # what was begun has its turn before the next is looked at

    # One order --------------------------------------------------------------------------------------------------

    async def _take(self, order: Order) -> None:
        # another one may have been obeyed, or the time have passed, while this one waited
        refused = obeying.hopeless(order, self._facts())
        if refused is not None:
            self._refuse(order.claims.kind, refused)
            return
        decision = await self._checked(order)
        if isinstance(decision, Refuse):
            self._refuse(order.claims.kind, decision)
            await asyncio.sleep(self._penalty_s)
        else:
            self._obey(order, decision)

    async def _checked(self, order: Order) -> obeying.Decision:
        try:
            verified = await self._check(order)
        except CheckError as error:
            logger.warning("signatures not checked", extra={"why": shown(error)})
            return Refuse(Refusal.UNCHECKED)
        return obeying.decide(order, verified, self._facts())

    def _facts(self) -> Facts:
        bodies = {kind: carrier.fits for kind, carrier in self._carriers.items()}
        now_ms = self._times().now_ms
        return Facts(
            self._device,
            self._roots,
            self._commands.safety,
            self._last,
            self._floor,
            now_ms,
            bodies,
            self._commands.unable,
        )

    def _refuse(self, channel: Kind, refused: Refuse) -> None:
        logger.debug("order refused", extra={"reason": refused.reason.value, "kind": channel.value})
        self._refusals.add(refused.reason)
        self._tell_refusals()
        if channel is Kind.COMMAND:
            known = self._commands.known(refused.id) if refused.reason is Refusal.REPLAYED else None
            self._tell(known or CommandStatus(1, refused.id, "refused", refused.reason.value))

    def _obey(self, order: Order, obey: Obey) -> None:
        claims = obey.claims
        if obey.command is not None:
            refused = self._commands.take(order)
            if refused is not None:
                self._refuse(claims.kind, Refuse(refused, obey.command.id))
            else:
                self._last[claims.kind] = claims.counter
            return
        try:
            self._counters.begin(claims.kind, claims.counter, "")
        except CountersError as error:
            logger.warning("counter not kept", extra={"why": shown(error)})
            self._refuse(claims.kind, Refuse(Refusal.NOT_KEPT))
            return
        self._last[claims.kind] = claims.counter
        if not self._carriers[claims.kind].carry_out(order):
            self._last[claims.kind] = claims.counter - 1
            return
        self._journal.seal()
        self._end(claims.kind)

    def _end(self, kind: Kind) -> None:
        try:
            self._counters.end(kind)
        except CountersError as error:
            logger.warning("not written down as done", extra={"why": shown(error)})

    # What was obeyed before -------------------------------------------------------------------------------------

    def _load(self) -> None:
        try:
            kept = self._counters.load()
            self._commands.load()
        except CountersError as error:
            logger.debug("counters cannot be read", extra={"why": shown(error)})
            return
        self._last, self._floor, self._loaded = kept.last, kept.floor, True
        for kind, name in kept.interrupted.items():
            if kind is not Kind.COMMAND:  # nobody waits for word of it; it may come again, and be repeated
                self._last[kind] -= 1
                continue
            self._journal.note(Noted.COMMAND_INTERRUPTED, {"id": name, "kind": kind.value})
            self._tell(CommandStatus(1, name, "interrupted"))
            self._end(kind)

    def _raise_floor(self) -> None:
        """Counters follow the clock: where none were kept, whatever was signed until now may have been obeyed. Only
        by the server's word: a board's clock that is years ahead would lock out every order.
        """
        now_ms = self._times().served_ms if self._loaded and self._floor is None else None
        if now_ms is None:
            return
        try:
            self._counters.raise_floor(now_ms)
        except CountersError as error:
            logger.debug("floor not kept", extra={"why": shown(error)})
            return
        self._floor = now_ms

"""What the server says: who vouches for it, and to whom it goes. Time is asked for here, too."""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from broker_config import mac, messages, topics
from broker_config.ids import ContractError, shard_of
from broker_config.mac import MacKey, Purpose
from broker_config.messages import AskTime, Receipt, ServerState, Time
from broker_config.signing import Kind
from broker_config.text import shown
from broker_config.topics import Down
from edge_agent import clock
from edge_agent.adapters import files
from edge_agent.adapters.mqtt import Incoming
from edge_agent.adapters.system import System, random_hex16
from edge_agent.config import Settings
from edge_agent.configuring import Configuring
from edge_agent.keeper import Keeper
from edge_agent.orders import Orders
from edge_agent.renewing import Hint
from edge_agent.window import Window

if TYPE_CHECKING:
    from edge_agent.adapters.release_relay import ReleaseRelay
    from edge_agent.uploading import Uploading

logger = logging.getLogger(__name__)

M = TypeVar("M", Receipt, Time, ServerState)


class Hearing:
    """``keys``: what the server's word is checked with. ``birth_wanted``: it should be told anew what is held here.
    ``spread_s``: over how long it wants its devices to come back.
    """

    def __init__(
        self,
        settings: Settings,
        system: System,
        keys: files.DeviceKeys,
        keeper: Keeper,
        window: Window,
        orders: Orders,
        configuring: Configuring,
        uploading: "Uploading | None",
        relay: "ReleaseRelay | None",
        hint: Hint,
        *,
        wake: Callable[[], None],
    ) -> None:
        """*wake*: has the agent look at what is due."""
        self._settings = settings
        self._system = system
        self._keeper = keeper
        self._window = window
        self._orders = orders
        self._configuring = configuring
        self._uploading = uploading
        self._relay = relay
        self._hint = hint
        self._wake = wake
        self._server_epochs: tuple[int, int] | None = None
        self._asked_mono_ms: int | None = None
        self._time_told = asyncio.Event()
        self.keys = keys
        self.birth_wanted = False
        self.spread_s = 0.0

    # Keys -------------------------------------------------------------------------------------------------------

    @property
    def version(self) -> int:
        """Of whose orders count; 0: nobody's."""
        return 0 if self.keys.roots is None else self.keys.roots.version

    def look_at_keys(self) -> None:
        """A child may have brought newer ones. The birth tells which receipts are to be made with, so what was made
        with the former key meanwhile is made again.
        """
        try:
            keys = files.read_all_keys(self._settings.mac_file, self._settings.signers_file)
        except files.BadKeysError as error:
            logger.warning("keys stay as they were", extra={"why": shown(error)})
            return
        if keys == self.keys:
            return
        self.keys = keys
        if keys.roots is not None:
            self._orders.trust(keys.roots)
        logger.info("newer keys", extra={"signers": self.version, "kid": keys.receipt.kid})
        self.birth_wanted = True
        self._wake()

    # Time -------------------------------------------------------------------------------------------------------

    def ask_time(self) -> bytes:
        """The question, which is to be said."""
        nonce = random_hex16()
        self._asked_mono_ms = self._system.mono_ms()
        self._keeper.clock = clock.ask(self._keeper.clock, nonce, self._asked_mono_ms)
        self._time_told.clear()
        return messages.encode(AskTime(1, nonce))

    def asks_time(self) -> bool:
        """Whether it is to be asked now."""
        wait_s = clock.next_ask_s(
            self._keeper.clock,
            mono_ms=self._system.mono_ms(),
            last_ask_mono_ms=self._asked_mono_ms,
            every_s=self._settings.file.clock.ask_every_s,
        )
        return wait_s <= 0

    async def time_told(self) -> int | None:
        """How far the board's clock was off, ms, by the answer; None if none was believed."""
        try:
            async with asyncio.timeout(self._settings.file.clock.rtt_ms_max / 1000):
                await self._time_told.wait()
        except TimeoutError:
            return None
        return clock.off(self._keeper.clock, self._system.facts())

    # What it says -----------------------------------------------------------------------------------------------

    def told(self, message: Incoming) -> None:
        """A message from the broker, whoever said it."""
        device = self._settings.device
        if message.topic == topics.down(device, Down.RECEIPT):
            receipt = self._authentic(message, self.keys.receipt, Purpose.RECEIPT, Receipt)
            if receipt is not None:
                self._told_receipt(receipt)
        elif message.topic == topics.down(device, Down.TIME):
            time = self._authentic(message, self.keys.time, Purpose.TIME, Time)
            if time is not None:
                self._told_time(time)
        elif message.topic == topics.down(device, Down.COMMAND):
            self._orders.told(Kind.COMMAND, message.payload)
        elif message.topic == topics.down(device, Down.TWIN):
            if not self._configuring.told(message.payload):
                self._orders.told(Kind.TWIN, message.payload)
        elif message.topic == topics.down(device, Down.UPLOAD):
            if self._uploading is not None and not self._uploading.told(message.payload):
                self._orders.told(Kind.EVIDENCE_RECEIPT, message.payload)
        elif message.topic == topics.down(device, Down.CHUNK):
            if self._relay is not None:
                self._relay.told(message.payload)
        elif message.topic == topics.SERVER_STATE:
            state = self._decoded(message, ServerState)
            if state is not None:
                self._told_server(state)

    def _authentic(self, message: Incoming, key: MacKey, purpose: Purpose, kind: type[M]) -> M | None:
        if not mac.authentic(key, purpose, message.topic, message.payload, message.properties):
            logger.warning("not authentic, ignored", extra={"topic": shown(message.topic)})
            return None
        return self._decoded(message, kind)

    @staticmethod
    def _decoded(message: Incoming, kind: type[M]) -> M | None:
        try:
            return messages.decode(message.payload, kind)
        except ContractError as error:
            logger.warning("not understood", extra={"topic": shown(message.topic), "why": shown(error)})
            return None

    def _told_receipt(self, receipt: Receipt) -> None:
        at = (receipt.stream, receipt.life)
        ledger = next((x for x in self._keeper.ledgers() if (x.stream, x.life) == at), None)
        if ledger is not None:
            diverged = self._window.doubts(receipt) and self._keeper.differs(receipt)
            receipt = self._window.doubted(ledger, receipt, diverged=diverged)
        marked = self._keeper.mark(receipt)
        if marked is None:
            return
        if marked.epoch_raised:
            logger.warning("another store; offering again", extra={"store_epoch": receipt.store_epoch})
            self._window.offer_again(self._system.mono_s())
            self.birth_wanted = True
            if self._uploading is not None:
                self._uploading.store_changed()
        if marked.life_changed:
            logger.error("conflict; new batches take a new life", extra={"stream": receipt.stream})
        ledger = next((x for x in self._keeper.ledgers() if (x.stream, x.life) == at), None)
        if ledger is not None and not marked.ignored:  # a life that is over may just have been forgotten
            self.birth_wanted |= self._window.told(ledger, receipt)
        self._wake()

    def _told_time(self, time: Time) -> None:
        facts = self._system.facts()
        state, refused = clock.answered(
            self._keeper.clock,
            nonce=time.nonce,
            t_ms=time.t_ms,
            unc_ms=time.unc_ms,
            mono_ms=facts.mono_ms,
            rtt_ms_max=self._settings.file.clock.rtt_ms_max,
        )
        self._keeper.clock = state
        if refused is not None:
            logger.info("time answer ignored", extra={"why": refused})
            return
        logger.debug("time", extra={"off_ms": clock.off(state, facts)})
        self._keeper.look(facts)
        self._time_told.set()
        self._configuring.heard_server()
        self._wake()

    def _told_server(self, state: ServerState) -> None:
        """A server that may be another one, or has lost what it had in memory. Nobody vouches for this message, so it
        can only make the agent repeat itself, and come back later, within a bound.
        """
        if state.state == "up":
            self.spread_s = state.spread_ms / 1000
            if state.signers > self.version or state.kid not in {"", self.keys.receipt.kid}:
                self._hint.give(self.spread_s)
        shard = int(shard_of(self._settings.device), 16)
        owned = next((s.epoch for s in state.shards if s.first <= shard <= s.last), 0)
        epochs = (state.store_epoch, owned)
        if self._server_epochs is not None and epochs != self._server_epochs:
            self._window.offer_again(self._system.mono_s())
            self.birth_wanted = True
            if self._uploading is not None:
                self._uploading.server_changed()
            self._wake()
        self._server_epochs = epochs

"""The connection to the broker: one attempt after the other, each with what is in force when it begins."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from broker_config import messages, topics
from broker_config.ids import Hex16
from broker_config.messages import Will
from broker_config.telemetry import CONTENT_JSON
from broker_config.topics import Up
from edge_agent import session
from edge_agent.adapters import files, mqtt
from edge_agent.adapters.mqtt import DatesRefusedError, Endpoint, Incoming, Link, LinkError, Outgoing
from edge_agent.adapters.system import random_hex16
from edge_agent.config import Settings
from edge_agent.configuring import Own
from edge_agent.identity import Pair
from edge_agent.session import Event
from edge_agent.settling import settling

logger = logging.getLogger(__name__)

FAREWELL_S: Final = 1.0


class Connecting:
    """``link`` None: there is none. ``epoch``: the nonce of the newest attempt. ``own``: with what it was made."""

    def __init__(
        self,
        settings: Settings,
        own: Own,
        uniform: Callable[[float, float], float],
        *,
        now_in_force: Callable[[], Own],
        hurry_s: Callable[[], float | None],
        spread_s: Callable[[], float],
        skips_dates: Callable[[], bool],
        happened: Callable[[Event], None],
        told: Callable[[Incoming], None],
        down: Callable[[], None],
    ) -> None:
        """*now_in_force*: asked as an attempt begins. *hurry_s*: how long may pass between two, if that matters.
        *spread_s*: over how long the server wants its devices to come back. *happened*: takes how an attempt ended,
        and that a connection stands. *down*: called when none does any more.
        """
        self._settings = settings
        self._uniform = uniform
        self._now_in_force = now_in_force
        self._hurry_s = hurry_s
        self._spread_s = spread_s
        self._skips_dates = skips_dates
        self._happened = happened
        self._told = told
        self._down = down
        self._retry: asyncio.TimerHandle | None = None
        self._new_settings = asyncio.Event()
        self.new_identity = asyncio.Event()
        self.left = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.link: Link | None = None
        self.epoch: Hex16 = random_hex16()
        self.failures = 0
        self.why_down = ""
        self.own = own

    def send(
        self,
        channel: Up,
        payload: bytes,
        content_type: str = CONTENT_JSON,
        properties: tuple[tuple[str, str], ...] = (),
        *,
        retain: bool = False,
        then: Callable[[], None] | None = None,
    ) -> bool:
        """Whether there is a connection to say it on. *then* is called when the broker has it, or never will."""
        if self.link is None:
            return False
        topic = topics.up(self._settings.device, channel)
        self.link.send(Outgoing(topic, payload, content_type, properties, retain), then)
        return True

    def begin(self) -> None:
        """An attempt, now."""
        self.task = asyncio.create_task(self._connect())

    def later(self, wait_s: session.Wait) -> None:
        """An attempt failed, or a connection was lost: another one after *wait_s*."""
        self.failures += 1
        backoff = self._settings.file.backoff
        bound_s = session.bound_s(self.failures, s_min=backoff.s_min, s_cap=backoff.s_cap)
        hurry_s, spread_s = self._hurry_s(), self._spread_s()
        if hurry_s is not None:  # else a change could not prove itself in its time
            bound_s, spread_s = min(bound_s, hurry_s), min(spread_s, hurry_s)
        delay_s = wait_s(bound_s, spread_s=spread_s, uniform=self._uniform)
        self._retry = asyncio.get_running_loop().call_later(delay_s, self._happened, Event.RETRY)

    def come_back(self, *, waiting: bool) -> None:
        """To where the settings say now. *waiting*: for the next attempt, which then comes as after a lost one."""
        self._new_settings.set()
        self.failures = 0  # they were of where it is to connect no more
        if waiting and self._retry is not None:
            self._retry.cancel()
            self.later(session.return_s)

    def leave(self) -> None:
        """No attempt any more; what was said last still goes out."""
        if self._retry is not None:
            self._retry.cancel()
        if self.link is None and self.task is not None:
            self.task.cancel()
        self.left.set()

    async def _connect(self) -> None:
        """One attempt, and the connection if it succeeds; tells the session how it ended."""
        device = self._settings.device
        self.own = self._now_in_force()
        self._new_settings.clear()
        own = Pair(self._settings.cert_file, self._settings.key_file)
        pairs = files.pairs(own)
        pair = pairs[self.failures % len(pairs)]  # a new one first, and at each failure the other one
        # read first: if another pair comes before the broker has this one, it is not taken for the one that connected
        cert = b"" if pair is own else files.certificate(pair)
        self.new_identity.clear()
        endpoint = Endpoint(
            self.own.host,
            self.own.port,
            device,
            self.own.keep_alive_s,
            self._settings.ca_file,
            pair.cert_file,
            pair.key_file,
        )
        self.epoch = random_hex16()
        will = messages.encode(Will(1, self.epoch, "lost"))
        ended = Event.FAILED
        try:
            async with mqtt.connected(
                endpoint,
                will=Outgoing(topics.up(device, Up.STATUS), will, CONTENT_JSON, retain=True),
                subscriptions=(topics.down_filter(device), topics.SERVER_STATE),
                skip_dates=self._skips_dates(),
            ) as link:
                self.link = link
                self._happened(Event.UP)
                ended = Event.LOST
                async with settling(own, cert):
                    await self._listen(link)
                return
        except DatesRefusedError as error:
            self.why_down = str(error)
            ended = Event.DATES_REFUSED
        except LinkError as error:
            self.why_down = str(error)
        finally:
            self.link = None
            self._down()
        if ended is not Event.LOST:
            log = logger.warning if self.failures == 0 else logger.debug
            log("cannot connect", extra={"why": self.why_down})
        if not self.left.is_set():
            self._happened(ended)

    async def _listen(self, link: Link) -> None:
        """Hear the broker until the connection ends (LinkError), the agent leaves, or there is something new to
        connect with.
        """

        async def hear() -> None:
            async for message in link.incoming():
                self._told(message)

        hearing = asyncio.create_task(hear())
        leaving = asyncio.create_task(self.left.wait())
        renewed = asyncio.create_task(self.new_identity.wait())
        changed = asyncio.create_task(self._new_settings.wait())
        tasks = (hearing, leaving, renewed, changed)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if hearing.done():
                await hearing
            elif renewed.done() and not leaving.done():
                raise LinkError("to come back with the new certificate")
            elif changed.done() and not leaving.done():
                await link.sent(FAREWELL_S)
                raise LinkError("to come back with the new settings")
            else:
                await link.sent(FAREWELL_S)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

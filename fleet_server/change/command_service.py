"""Commands at the broker: a connection of their own, a thread on the store, and one that has orders signed. The only
impure part.

An order is kept, marked as said, and said: whatever ends the server in between, it is said again with the device's
next birth, and births are heard anew with each link. What a device says is acknowledged once it is kept.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import mqtt5
import structlog

from broker_config import messages, signing, topics
from broker_config.ids import ContractError, DeviceId
from broker_config.messages import Birth, CommandStatus
from broker_config.signing import LIFETIME_MS_MAX
from broker_config.signing import Command as Ordered
from broker_config.text import shown
from broker_config.topics import BadTopicError, Down, Up, parse_up
from fleet_server.access.signing import Signer, SignerError, command_request
from fleet_server.adapters.mqtt import Link, LinkSettings, keep_linked, subscriptions
from fleet_server.change import commands as rules
from fleet_server.change.command_store import CommandStore, JournalOf, Signed
from fleet_server.change.commands import AGAIN_MS, LATE_MS, SILENT_MS, Command, Target, Word
from fleet_server.change.facts import CommandFacts
from fleet_server.telemetry.store import StoreError
from fleet_server.threads import Threads, until

log = structlog.get_logger()

IN_FLIGHT_MAX: Final = 256
"""Orders that were said in the last SILENT_MS and have no answer; a large fan-out waits for those."""
AT_ONCE_MAX: Final = 64
WAITING_MAX: Final = 2_000
"""Words for the store; beyond that the link is not read."""
SEND_LOOK_S: Final = 0.5
LOOK_S: Final = 1.0
AGAIN_S: Final = 1.0
"""After a store or a signer that takes nothing."""
JOURNAL_LOOKS: Final = 5
"""Journals are read at every so many looks."""
JOURNALS_MAX: Final = 20
"""Devices whose journal is read at one look, one after the other in turn."""
JOURNAL_SLACK_MS: Final = 600_000
"""A device's clock may be so far behind."""
JOURNAL_AHEAD_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class CommandSettings:
    """``shards``: first and last; others are another server's."""

    shards: tuple[int, int] = (0, 255)


class _Waiting(NamedTuple):
    word: Word
    packet_id: int | None


CHANNELS: Final = (Up.COMMAND, Up.STATUS)
"""What is listened to; births, so that a new link hears who is there."""


class CommandService:
    """``run`` it once; ``wake`` and ``facts`` from any thread."""

    def __init__(
        self,
        settings: CommandSettings,
        link_settings: LinkSettings,
        store: CommandStore,
        signer: Signer,
        journal_of: JournalOf,
        *,
        now_ms: Callable[[], int],
        rng: random.Random,
    ) -> None:
        self._settings = settings
        self._link_settings = link_settings
        self._store = store
        self._signer = signer
        self._journal_of = journal_of
        self._now_ms = now_ms
        self._rng = rng
        self._threads = Threads("commands", "orders")
        self._words: list[_Waiting] = []
        self._heard = asyncio.Event()
        self._work = asyncio.Event()
        self._known = asyncio.Event()
        self._devices: Mapping[str, int] = {}
        self._births: dict[str, str] = {}
        self._returned: set[DeviceId] = set()
        self._turn = 0
        self._counts: Counter[str] = Counter()
        self._link: Link | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until *stop* is set."""
        self._loop = asyncio.get_running_loop()
        works = {
            "link": self._keep_linked(),
            "hearing": self._keep_hearing(),
            "sending": self._keep_sending(),
            "looking": self._keep_looking(),
        }
        try:
            await until(stop, works)
        finally:
            if self._link is not None:
                self._link.disconnect()
            self._threads.close()

    def wake(self) -> None:
        """There is something to do."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._work.set)

    def facts(self) -> CommandFacts:
        """See :class:`CommandFacts`."""
        return CommandFacts(self._link is not None, len(self._devices), dict(self._counts))

    # the link

    async def _keep_linked(self) -> None:
        await self._known.wait()  # the births of who is there come with the link, and only once
        await keep_linked(
            self._link_settings,
            filters=subscriptions(CHANNELS, *self._settings.shards),
            will=None,
            on_packets=self._on_packets,
            up=self._linked,
            down=self._unlinked,
            rng=self._rng,
        )

    def _linked(self, link: Link) -> None:
        self._link = link
        self._work.set()

    def _unlinked(self) -> None:
        self._link = None
        # with the next link every birth is heard again, and what was said on this one is said again
        self._births.clear()
        # packet ids mean nothing on another connection; what was not acknowledged comes again
        self._words = [each._replace(packet_id=None) for each in self._words]

    def _on_packets(self, link: Link, packets: Iterable[mqtt5.PublishPacket]) -> None:
        done: list[int] = []
        for packet in packets:
            word = self._read(packet.topic, bytes(packet.payload or b""))
            if word is not None:
                self._words.append(_Waiting(word, packet.packet_id))
                self._heard.set()
            elif packet.packet_id is not None:
                done.append(packet.packet_id)
        if done:
            link.send(link.acknowledge(done))
        if len(self._words) > WAITING_MAX:
            link.pause()

    def _read(self, text: str, payload: bytes) -> Word | None:
        try:
            topic = parse_up(text)
        except BadTopicError:
            return None
        if topic.device not in self._devices:
            # of nobody who was told anything: births of a whole fleet are not even read
            return None if topic.channel is Up.STATUS else self._word(topic.device, payload)
        if topic.channel is Up.STATUS:
            self._born(topic.device, payload)
            return None
        return self._word(topic.device, payload)

    def _word(self, device: DeviceId, payload: bytes) -> Word | None:
        try:
            return rules.word_of(device, messages.decode(payload, CommandStatus))
        except ContractError as error:
            self._counts["malformed"] += 1
            log.warning("not understood", device=device, error=shown(error))
            return None

    def _born(self, device: DeviceId, payload: bytes) -> None:
        try:
            status = messages.decode_status(payload)
        except ContractError:
            return
        if isinstance(status, Birth) and self._births.get(device) != status.epoch:
            self._births[device] = status.epoch
            self._returned.add(device)
            self._work.set()

    # what devices say

    async def _keep_hearing(self) -> None:
        while True:
            await self._heard.wait()
            link, group = self._link, self._words[:WAITING_MAX]
            try:
                await self._hear([each.word for each in group])
            except StoreError as error:
                await self._failed("store_failures", error)
                continue
            del self._words[: len(group)]
            if not self._words:
                self._heard.clear()
            if link is not None and link is self._link:
                link.send(link.acknowledge([each.packet_id for each in group if each.packet_id is not None]))
                if len(self._words) < WAITING_MAX // 2:
                    link.resume()

    async def _hear(self, words: Sequence[Word]) -> None:
        changed = await self._threads.run("commands", self._store.hear, words, now_ms=self._now_ms())
        self._counts["heard"] += len(changed)
        for each in changed:
            log.info(
                "command", id=each.command, device=each.device, state=each.state.value, reason=shown(each.reason)
            )
        if changed:
            self._work.set()  # there may be room for others

    async def _failed(self, what: str, error: Exception) -> None:
        level = log.debug if self._counts[what] else log.error
        level("commands wait", why=what, error=shown(error))
        self._counts[what] += 1
        await asyncio.sleep(AGAIN_S)

    # what is said to devices

    async def _keep_sending(self) -> None:
        while True:
            try:
                async with asyncio.timeout(SEND_LOOK_S):
                    await self._work.wait()
            except TimeoutError:
                pass
            self._work.clear()
            try:
                while self._link is not None and await self._send_some():
                    pass
            except StoreError as error:
                await self._failed("store_failures", error)
            except SignerError as error:
                await self._failed("sign_failures", error)

    async def _send_some(self) -> bool:
        """Whether there may be more to do at once."""
        for device in [self._returned.pop() for _ in range(min(len(self._returned), AT_ONCE_MAX))]:
            self._say(await self._threads.run("commands", self._store.said_to, device))
        now_ms = self._now_ms()
        unheard = await self._threads.run("commands", self._store.unheard, since_ms=now_ms - SILENT_MS)
        room = min(IN_FLIGHT_MAX - unheard, AT_ONCE_MAX)
        if room <= 0:
            return bool(self._returned)
        wanted = await self._threads.run("commands", self._store.to_sign, rows_max=room)
        if wanted:
            signed = await self._threads.run("orders", self._signed, wanted, now_ms)
            await self._threads.run("commands", self._store.signed, signed)
        due = await self._threads.run("commands", self._store.to_send, rows_max=room)
        if due:
            await self._threads.run("commands", self._store.sent, due, now_ms=now_ms)
            self._devices = {**{each.device: now_ms for each in due}, **self._devices}
            for name in dict.fromkeys(each.device for each in due):
                # older ones first: a device that heard this one would refuse them
                self._say(await self._threads.run("commands", self._store.said_to, name))
        return bool(self._returned or due)

    def _signed(self, wanted: Sequence[tuple[Command, Target]], now_ms: int) -> list[Signed]:
        """Raises SignerError, if none of them was signed."""
        out: list[Signed] = []
        for command, target in wanted:
            if target.expires_ms <= now_ms:
                continue
            try:
                out.append(sign(self._signer, command, target.device, now_ms=now_ms))
            except SignerError:
                if not out:
                    raise
                break  # what is signed goes out
        return out

    def _say(self, targets: Iterable[Target]) -> None:
        """What the broker has no room for is said with the next birth, or the next link."""
        signed = [each for each in targets if each.order]
        said = [(topics.down(DeviceId(each.device), Down.COMMAND), each.order) for each in signed]
        heard = 0 if self._link is None else self._link.say(said)
        self._counts["said"] += heard
        for each in signed[heard:]:
            self._births.pop(each.device, None)

    # what time and journals say

    async def _keep_looking(self) -> None:
        looks = 0
        while True:
            try:
                now_ms = self._now_ms()
                late_ms = now_ms - LATE_MS
                self._counts["expired"] += await self._threads.run("commands", self._store.expire, now_ms=now_ms)
                self._devices = await self._threads.run("commands", self._store.waiting, late_after_ms=late_ms)
                self._known.set()
                again = await self._threads.run("commands", self._store.not_yet, before_ms=now_ms - AGAIN_MS)
                self._returned.update(map(DeviceId, again))
                if again:
                    self._work.set()
                if looks % JOURNAL_LOOKS == 0:
                    await self._read_journals(now_ms)
            except StoreError as error:
                await self._failed("store_failures", error)
            looks += 1
            await asyncio.sleep(LOOK_S)

    async def _read_journals(self, now_ms: int) -> None:
        """From when its command was said on: what comes late is of a time long ago."""
        names = sorted(self._devices)
        for at in range(min(len(names), JOURNALS_MAX)):
            device = names[(self._turn + at) % len(names)]
            from_ms = self._devices.get(device, now_ms) - JOURNAL_SLACK_MS
            words = await self._threads.run("orders", self._journal_of, device, from_ms, now_ms + JOURNAL_AHEAD_MS)
            if words:
                before = self._counts["heard"]
                await self._hear(words)
                self._counts["from_journal"] += self._counts["heard"] - before
        self._turn = (self._turn + JOURNALS_MAX) % max(1, len(names))


def sign(signer: Signer, command: Command, device: str, *, now_ms: int) -> Signed:
    """An order for one device, that ends when the command does. Raises SignerError."""
    body = Ordered(1, command.command, command.name, dict(command.parameters))
    lifetime_ms = min(LIFETIME_MS_MAX, command.expires_ms - now_ms)
    envelope = signer.sign(command_request(DeviceId(device), body, lifetime_ms=lifetime_ms))
    claims = signing.decode_claims(signing.decode_envelope(envelope))
    return Signed(command.command, device, claims.counter, envelope)

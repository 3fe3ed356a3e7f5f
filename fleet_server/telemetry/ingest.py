"""From messages to groups that one transaction stores, and to what devices are told once it has.

Values in, values out: no clock, no socket, no database. ``service`` feeds it packets and the time, commits each
:class:`Closed` in order, and only then sends its acknowledgements and receipts.

What a broker takes back is never relied on: a PUBACK goes out after the commit because that is the cheapest
back-pressure there is, and everything that is lost on the way comes again from the device's spool.
"""

import zlib
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, NamedTuple, Protocol

import msgspec

from broker_config import limits
from broker_config.ids import ContractError, DeviceId
from broker_config.mac import PROPERTY_KID, PROPERTY_MAC, MacKey, Purpose, mac
from broker_config.messages import (
    AskTime,
    BadMessageError,
    Birth,
    StreamState,
    Time,
    Will,
    decode,
    decode_status,
    encode,
)
from broker_config.telemetry import (
    PROPERTY_KEY,
    PROPERTY_LAST,
    BadBatchError,
    Clock,
    Events,
    Key,
    Reason,
    Record,
    key_text,
    parse_key,
)
from broker_config.telemetry import decode as decode_batch
from broker_config.topics import BadTopicError, Down, Up, UpTopic, down, parse_up
from fleet_server.telemetry import presence
from fleet_server.telemetry.admission import KnownStreams, admit
from fleet_server.telemetry.ledger import SILENCE_CADENCES, StreamLedger, Verdict
from fleet_server.telemetry.receipts import receipt, signed
from fleet_server.telemetry.store import (
    NO_TIME,
    EventFact,
    Gone,
    Group,
    Quarantined,
    QuarantineRow,
    Restored,
    StatusSeen,
    StreamKey,
)

# an enumeration's member costs a look-up each time it is named
TELEMETRY: Final = Up.TELEMETRY
EVENT: Final = Up.EVENT
NEW: Final = Verdict.NEW

ROUTES_MAX: Final = 200_000
"""Topics whose parse is remembered."""
LEDGERS_MAX: Final = 256
"""(stream, life) pairs kept of one device; more lives than that are somebody's mistake and go to quarantine."""
REPLIES_MAX: Final = 10_000
"""Time answers that wait for room at the broker; beyond that a device asks again."""
TIME_UNC_MS: Final = 50
"""What the server claims of its own clock."""
DETAIL_CHARS_MAX: Final = 300
SEQ_CHARS_MAX: Final = len(str(limits.SEQ_MAX))


class Arrived(Protocol):
    """A PUBLISH as the codec hands it over."""

    @property
    def topic(self) -> str: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def content_type(self) -> str | None: ...
    @property
    def user_properties(self) -> list[tuple[str, str]]: ...
    @property
    def packet_id(self) -> int | None: ...
    @property
    def retain(self) -> bool: ...
    @property
    def duplicate(self) -> bool: ...


class Publication(NamedTuple):
    """A message to send, QoS 1, never retained."""

    topic: str
    payload: bytes
    properties: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class IngestSettings:
    """Bounds and rhythm; see ``fleet_server.config``."""

    group_records_max: int
    receipt_every: int
    receipt_linger_ms: int
    quarantine_bytes_max: int
    group_records_min: int = 500


@dataclass(slots=True)
class Counters:
    """Since the server's start."""

    records_stored: int = 0
    records_duplicate: int = 0
    records_quarantined: int = 0
    quarantine_refused: int = 0
    messages_dropped: int = 0
    receipts_sent: int = 0


@dataclass(slots=True)
class DeviceState:
    """One device as ingest knows it."""

    device: DeviceId
    birth: Birth | None = None
    will: Will | None = None
    willed_ms: int | None = None
    connections_ms: deque[int] = field(default_factory=lambda: deque(maxlen=presence.CONNECTIONS_MAX))
    faults: presence.Faults = field(default_factory=dict)
    status_ms: int | None = None
    record_ms: int | None = None
    clock: Clock | None = None
    """Of the record that came last, since the server's start."""
    ledgers: dict[tuple[str, str], StreamLedger] = field(default_factory=dict)
    receipt_way: tuple[MacKey, str] | None = None
    """The key and the topic of its receipts, once there was one."""

    @property
    def kid(self) -> str:
        """Of the MAC keys that it said it has; empty if it did not."""
        return "" if self.birth is None else self.birth.kid

    def stated(self, stream: str, life: str) -> StreamState | None:
        """What the last birth said of a stream and life."""
        if self.birth is None:
            return None
        return next((s for s in self.birth.streams if s.stream == stream and s.life == life), None)


@dataclass(frozen=True, slots=True)
class Closed:
    """A group to commit, and what to send once that is durable: packet ids to acknowledge, messages to publish.

    ``oldest_ms``: when the first of the records came that the receipts among these are the first for; None: none is.
    """

    group: Group
    acks: list[int]
    publications: list[Publication]
    oldest_ms: int | None = None


class Status(msgspec.Struct, frozen=True):
    """How the store keeps what a device last said of itself."""

    birth: Birth | None
    will: Will | None
    willed_ms: int | None = None
    faults: dict[str, presence.Fault] = {}


_STATUS: Final = msgspec.json.Decoder(Status)


class Ingest:
    """See the module's docstring. One owner, one thread; the view reads it under the same interpreter lock.

    ``born``: devices whose birth is known.
    """

    def __init__(
        self,
        settings: IngestSettings,
        *,
        known: KnownStreams,
        mac_key: Callable[[Purpose, DeviceId, str], MacKey],
        sealed_crc: Callable[[StreamKey, int, int], int | None],
        restored: Restored,
    ) -> None:
        self.settings = settings
        self.counters = Counters()
        self.store_epoch = restored.store_epoch
        self.quarantine_bytes = restored.quarantine_bytes
        self.devices: dict[str, DeviceState] = {}
        self.news: dict[str, None] = {}
        """Devices that are new, or whose birth says something else of them than before; another thread takes them."""
        self.born = 0
        self.replies: list[Publication] = []
        self._known = known
        self._mac_key = mac_key
        self._sealed_crc = sealed_crc
        self._routes: dict[str, tuple[Up, DeviceState]] = {}
        self._group = Group(0)
        self._acks: list[int] = []
        self._touched: dict[StreamLedger, DeviceState] = {}
        self._ripe: dict[StreamLedger, DeviceState] = {}
        self._flush_ms = 0
        self._restore(restored)

    # what comes in

    def take(self, packet: Arrived, now_ms: int) -> None:
        """Take one message; whatever is wrong with it, nothing is raised and nothing else is disturbed."""
        packet_id = packet.packet_id
        if packet_id is not None:
            self._acks.append(packet_id)
        route = self._routes.get(packet.topic)
        if route is None:
            try:
                route = self._route(packet.topic)
            except BadTopicError:
                self.counters.messages_dropped += 1
                return
        channel, state = route
        if channel is TELEMETRY or channel is EVENT:
            self._batch(packet, channel, state, now_ms)
        elif channel is Up.STATUS:
            self._status(packet, state, now_ms)
        elif channel is Up.TIME:
            self._time(packet, state, now_ms)
        else:  # twins, commands and uploads have no taker yet
            self.counters.messages_dropped += 1

    def _route(self, text: str) -> tuple[Up, DeviceState]:
        topic = parse_up(text)
        if len(self._routes) >= ROUTES_MAX:
            self._routes.clear()
        route = self._routes[text] = (topic.channel, self._device(topic.device))
        return route

    def _device(self, device: DeviceId) -> DeviceState:
        state = self.devices.get(device)
        if state is None:
            state = self.devices[device] = DeviceState(device)
            self.news[device] = None
        return state

    def _ledger(self, state: DeviceState, stream: str, life: str) -> StreamLedger | None:
        ledger = state.ledgers.get((stream, life))
        if ledger is None and len(state.ledgers) < LEDGERS_MAX:
            ledger = state.ledgers[stream, life] = StreamLedger(StreamKey(state.device, stream, life))
            self._pace(ledger, state)
        return ledger

    def _batch(self, packet: Arrived, channel: Up, state: DeviceState, now_ms: int) -> None:
        key = last = None
        for name, value in packet.user_properties:
            if name == PROPERTY_KEY:
                key = value
            elif name == PROPERTY_LAST:
                last = value
        payload = packet.payload
        try:
            record = admit(payload, packet.content_type, key, channel, self._known, now_ms)
        except BadBatchError as error:
            self._poison(packet, channel, state, key, error, now_ms)
            return
        seq = record.seq
        ledger = state.ledgers.get((record.stream, record.life)) or self._ledger(state, record.stream, record.life)
        if ledger is None:
            many = BadBatchError(Reason.TOO_MANY_LIVES, f"expected at most {LEDGERS_MAX} streams and lives")
            self._poison(packet, channel, state, None, many, now_ms)
            return
        crc = zlib.crc32(payload)
        verdict = ledger.judge(seq, crc)
        if verdict is NEW:
            assert key is not None  # admission compared it
            self._store(ledger, key, record, payload, crc, now_ms)
            state.record_ms, state.clock = now_ms, record.clock
        else:
            self._again(packet, channel, state, ledger, record, crc)
        if last is not None and last != ledger.last_text and not (key and key.endswith(last)):
            _prove(ledger, last)
        self._due(ledger, state, now_ms)

    def _again(
        self, packet: Arrived, channel: Up, state: DeviceState, ledger: StreamLedger, record: Record, crc: int
    ) -> None:
        """A number that is held already: the same bytes again, or a conflict."""
        seq = record.seq
        verdict = ledger.judge(seq, crc)
        if verdict is Verdict.SEALED:
            stored = self._sealed_crc(ledger.key, seq, record.t0)
            verdict = Verdict.DUPLICATE if stored == crc else Verdict.CONFLICT
        if verdict is Verdict.DUPLICATE:
            self.counters.records_duplicate += 1
            return
        key = key_text(record.stream, record.life, seq)
        if self._quarantine(
            packet, channel, state, key, BadBatchError(Reason.CONFLICT, f"{key} has other bytes here")
        ):
            ledger.conflict(seq, crc)
            self._ripe[ledger] = state

    def _store(self, ledger: StreamLedger, key: str, record: Record, payload: bytes, crc: int, now_ms: int) -> None:
        group = self._group
        silences = ledger.hold(record.seq, crc, record)
        if silences:
            group.silences.extend(silences)
        ledger.heard_ms = now_ms
        if record.clock.src == "none":
            group.unset[len(group.payloads)] = record
            group.newest_ms.append(NO_TIME)
        else:
            group.newest_ms.append(record.t0 + record.dt[-1])
            if record.boot != ledger.set_boot:
                ledger.set_boot = record.boot
                group.boots.setdefault((ledger.key.device, record.boot), record.t0 - record.mono)
        group.streams.append(ledger.place)
        group.keys.append(key)
        group.payloads.append(payload)
        if type(record) is Events:
            self._events(ledger.key, record, now_ms)

    def _due(self, ledger: StreamLedger, state: DeviceState, now_ms: int) -> None:
        ledger.since_receipt += 1
        if ledger.since_receipt == 1:
            ledger.since_receipt_ms = now_ms
        if ledger.since_receipt >= self.settings.receipt_every:
            self._ripe[ledger] = state
        elif ledger.since_receipt == 1:
            self._touched[ledger] = state

    def _poison(
        self, packet: Arrived, channel: Up, state: DeviceState, key: str | None, error: BadBatchError, now_ms: int
    ) -> None:
        """Keep raw what cannot be stored; receipt it if its key can be read, so that the device need not hold it."""
        parsed = _key_or_none(key)
        ledger = self._ledger(state, parsed.stream, parsed.life) if parsed else None
        if parsed is None or ledger is None:
            self._quarantine(packet, channel, state, None, error)
            return
        crc = zlib.crc32(packet.payload)
        verdict = ledger.judge(parsed.seq, crc)
        if verdict is Verdict.NEW:
            if self._quarantine(packet, channel, state, key, error):
                ledger.quarantine(parsed.seq, crc)
                ledger.heard_ms = now_ms
        elif verdict is Verdict.DUPLICATE:
            self.counters.records_duplicate += 1
        elif self._quarantine(packet, channel, state, key, error):
            ledger.conflict(parsed.seq, crc)
            self._ripe[ledger] = state
        self._due(ledger, state, now_ms)

    def _quarantine(
        self, packet: Arrived, channel: Up, state: DeviceState, key: str | None, error: BadBatchError
    ) -> bool:
        """Whether there was room; without it the message is not kept, gets no receipt, and is offered again."""
        size = len(packet.payload)
        if self.quarantine_bytes + size > self.settings.quarantine_bytes_max:
            self.counters.quarantine_refused += 1
            return False
        self.quarantine_bytes += size
        self.counters.records_quarantined += 1
        self._group.quarantined.append(
            Quarantined(
                state.device,
                channel,
                key,
                error.reason,
                error.detail[:DETAIL_CHARS_MAX],
                packet.content_type or "",
                packet.payload,
            )
        )
        return True

    # status and time

    def _status(self, packet: Arrived, state: DeviceState, now_ms: int) -> None:
        if not packet.payload:
            return  # a cleared retained status says nothing
        try:
            status = decode_status(packet.payload)
        except BadMessageError as error:
            self._quarantine(packet, Up.STATUS, state, None, BadBatchError(Reason.MALFORMED, str(error)))
            return
        if isinstance(status, Will):
            # a clean start makes the broker publish the old session's will, perhaps after the new birth
            if state.birth is None or status.epoch != state.birth.epoch:
                return
            state.will, state.willed_ms = status, now_ms
        else:
            if packet.retain and state.will is not None and state.will.epoch == status.epoch:
                return  # a broker that forgot the will: the connection that said this has ended
            if state.birth is None or state.birth.epoch != status.epoch:
                state.connections_ms.append(now_ms)
            if state.birth is None or _of_itself(state.birth) != _of_itself(status):
                self.news[state.device] = None
            self.born += state.birth is None
            if state.kid != status.kid:
                state.receipt_way = None
            state.birth, state.will, state.willed_ms = status, None, None
            self._born(status, state, now_ms, fresh=not (packet.retain or packet.duplicate))
        state.status_ms = now_ms
        self._keep_status(state, now_ms)

    def _keep_status(self, state: DeviceState, at_ms: int) -> None:
        status = Status(state.birth, state.will, state.willed_ms, dict(state.faults))
        self._group.statuses.append(StatusSeen(state.device, at_ms, msgspec.json.encode(status)))

    def _events(self, key: StreamKey, record: Events, now_ms: int) -> None:
        """What a journal batch says: facts for queries, and whether something is wrong with the device."""
        self._group.events.extend(facts(key, record))
        state = self.devices[key.device]
        lives = [life for stream, life in state.ledgers if stream == key.stream]
        faults = presence.noted(state.faults, (lives.index(key.life), record.seq), record.events)
        if faults != state.faults:
            state.faults = faults
            self._keep_status(state, state.status_ms or now_ms)

    def _born(self, birth: Birth, state: DeviceState, now_ms: int, *, fresh: bool) -> None:
        """Answer each stream of a birth with a receipt; learn what is gone and what there is.

        Args:
            birth: what the device says.
            state: the device.
            now_ms: the server's clock.
            fresh: not retained and not delivered again: what is stored since would make an old birth look like a
                spool that was restored from an old image.
        """
        for stated in birth.streams:
            ledger = self._ledger(state, stated.stream, stated.life)
            if ledger is None:
                continue
            self._pace(ledger, state)
            ledger.heard_ms = ledger.heard_ms or now_ms  # from here on its silence counts
            news = ledger.declare_gone(stated.gone)
            if news:
                self._group.gone.append(Gone(ledger.key, news))
            highest = ledger.received.last
            if fresh:
                ledger.behind = (stated.last + 1, highest) if stated.last < highest else None
            ledger.last = max(ledger.last, stated.last)
            self._ripe[ledger] = state

    def _pace(self, ledger: StreamLedger, state: DeviceState) -> None:
        stated = state.stated(ledger.key.stream, ledger.key.life)
        if stated is not None and state.birth is not None and stated.every_ms:
            ledger.silence_ms = stated.every_ms * SILENCE_CADENCES + state.birth.seal_ms

    def _time(self, packet: Arrived, state: DeviceState, now_ms: int) -> None:
        try:
            asked = decode(packet.payload, AskTime)
        except BadMessageError:
            self.counters.messages_dropped += 1
            return
        if len(self.replies) >= REPLIES_MAX:
            self.counters.messages_dropped += 1
            return
        topic = down(state.device, Down.TIME)
        payload = encode(Time(1, asked.nonce, now_ms, TIME_UNC_MS))
        key = self._mac_key(Purpose.TIME, state.device, state.kid)
        properties = [(PROPERTY_KID, key.kid), (PROPERTY_MAC, mac(key.secret, Purpose.TIME, topic, payload))]
        self.replies.append(Publication(topic, payload, properties))

    # what goes out

    @property
    def full(self) -> bool:
        """Whether the open group is as large as one commit should be."""
        return len(self._group.payloads) + len(self._group.quarantined) >= self.settings.group_records_max

    @property
    def ready(self) -> bool:
        """Whether the open group is worth a commit of its own, if the writer has nothing else to do."""
        return len(self._group.payloads) >= self.settings.group_records_min

    @property
    def open_records(self) -> int:
        """Records of the open group."""
        return len(self._group.payloads)

    @property
    def open(self) -> bool:
        """Whether anything has come that no closed group holds."""
        return bool(self._group or self._acks)

    @property
    def pending(self) -> bool:
        """Whether closing now would yield anything."""
        return bool(self._group or self._acks or self._ripe or self._touched)

    def close(self, now_ms: int, *, receipts_max: int) -> Closed | None:
        """End the open group: what to commit, then to acknowledge and publish. None if there is nothing.

        Receipts beyond *receipts_max* stay due and go with a later group.
        """
        if now_ms >= self._flush_ms:
            self.ripen()
            self._flush_ms = now_ms + self.settings.receipt_linger_ms
        group, acks = self._group, self._acks
        if not group and not acks and not (self._ripe and receipts_max):
            return None
        group.at_ms = now_ms
        self.counters.records_stored += len(group.payloads)
        self._group, self._acks = Group(0), []
        publications: list[Publication] = []
        oldest_ms: int | None = None
        for ledger, state in list(islice(self._ripe.items(), receipts_max)):
            del self._ripe[ledger]
            if ledger.since_receipt:
                came_ms = ledger.since_receipt_ms
                oldest_ms = came_ms if oldest_ms is None else min(oldest_ms, came_ms)
            ledger.since_receipt = 0
            if state.receipt_way is None:
                key = self._mac_key(Purpose.RECEIPT, state.device, state.kid)
                state.receipt_way = key, down(state.device, Down.RECEIPT)
            publications.append(Publication(*signed(*state.receipt_way, receipt(ledger, self.store_epoch))))
        self.counters.receipts_sent += len(publications)
        return Closed(group, acks, publications, oldest_ms)

    def ripen(self) -> None:
        """Let every receipt that lingers go with the next group."""
        self._ripe.update(self._touched)
        self._touched.clear()

    def disconnected(self) -> None:
        """The connection is gone: packet ids of it must never be acknowledged on another, and its time is over."""
        self._acks.clear()
        self.replies.clear()

    def sealed(self, streams: Iterable[tuple[StreamKey, tuple[tuple[int, int], ...]]]) -> None:
        """The store has moved these into chunks; their checksums are to be asked for there."""
        for key, ranges in streams:
            state = self.devices.get(key.device)
            ledger = state.ledgers.get((key.stream, key.life)) if state else None
            if ledger is not None:
                ledger.sealed(ranges)

    def readmit(self, row: QuarantineRow, now_ms: int) -> str:
        """Put a quarantined batch into the open group if it is admissible by now; else say why it is not."""
        try:
            topic = UpTopic(DeviceId(row.device), Up(row.channel))
            record = admit(row.payload, row.content_type or None, row.key, topic.channel, self._known, now_ms)
        except (ContractError, ValueError) as error:
            return str(error)
        state = self._device(topic.device)
        ledger = self._ledger(state, record.stream, record.life)
        crc = zlib.crc32(row.payload)
        if ledger is None or row.key is None or ledger.quarantined_crcs.get(record.seq) != crc:
            return f"{row.reason}: the number is held with other bytes"
        ledger.quarantined.remove(record.seq)
        del ledger.quarantined_crcs[record.seq]
        self._store(ledger, row.key, record, row.payload, crc, now_ms)
        return "stored"

    # the way back after a restart

    def _restore(self, restored: Restored) -> None:
        for status in restored.statuses:
            state = self._device(DeviceId(status.device))
            state.status_ms = status.at_ms
            try:
                kept = _STATUS.decode(status.payload)
            except msgspec.MsgspecError:  # an older contract let it say so; the device will say it again
                continue
            state.birth, state.will, state.willed_ms = kept.birth, kept.will, kept.willed_ms
            self.born += kept.birth is not None
            state.faults = kept.faults
        for row in restored.ledger:
            ledger = self._restored(row.key)
            if ledger is not None:
                ledger.restore(row.held, row.tail_seq, (row.tail_boot, row.tail_mono, row.tail_ms), row.tail_crc)
                if row.tail_ms >= limits.CLOCK_MS_MIN:  # the device's own clock: near enough until it is heard again
                    ledger.heard_ms = row.tail_ms
        for commit in restored.unsealed:
            for device, text, payload in zip(commit.devices, commit.keys, commit.payloads, strict=True):
                key = parse_key(text)
                ledger = self._restored(StreamKey(device, key.stream, key.life))
                if ledger is not None:
                    _hold_again(ledger, key.seq, payload)
                    ledger.heard_ms = commit.at_ms
        for device, text, crc in restored.quarantined:
            key = parse_key(text)
            ledger = self._restored(StreamKey(device, key.stream, key.life))
            if ledger is None:
                continue
            verdict = ledger.judge(key.seq, crc)
            if verdict is Verdict.NEW:
                ledger.quarantine(key.seq, crc)
            elif verdict is Verdict.CONFLICT:
                ledger.conflict(key.seq, crc)
            # else it was replayed just before the server died, or is in a chunk by now
        for gone in restored.gone:
            ledger = self._restored(gone.key)
            if ledger is not None:
                ledger.declare_gone(gone.ranges)
        for state in self.devices.values():
            state.record_ms = max((ledger.heard_ms for ledger in state.ledgers.values()), default=0) or None
            for stated in state.birth.streams if state.birth else ():
                ledger = self._restored(StreamKey(state.device, stated.stream, stated.life))
                if ledger is not None:
                    ledger.last = max(ledger.last, stated.last)
                    ledger.heard_ms = ledger.heard_ms or state.status_ms or 0

    def _restored(self, key: StreamKey) -> StreamLedger | None:
        return self._ledger(self._device(DeviceId(key.device)), key.stream, key.life)


def _of_itself(birth: Birth) -> tuple[str, ...]:
    """What a birth says of the device, and not of this connection."""
    return birth.device_class, birth.agent, birth.hardware, birth.profile, birth.profile_digest


def facts(key: StreamKey, record: Events) -> list[EventFact]:
    """Each event of a journal batch with its own time."""
    return [
        EventFact(
            key,
            record.seq,
            place,
            record.t0 + after,
            record.boot,
            record.mono + after,
            event.kind,
            msgspec.json.encode(event.data).decode(),
        )
        for place, (after, event) in enumerate(zip(record.dt, record.events, strict=True))
    ]


def _prove(ledger: StreamLedger, last: str) -> None:
    """The device says how far it has numbered; nonsense proves nothing."""
    ledger.last_text = last
    if len(last) <= SEQ_CHARS_MAX and last.isascii() and last.isdigit():
        ledger.last = max(ledger.last, min(int(last), limits.SEQ_MAX))


def _hold_again(ledger: StreamLedger, seq: int, payload: bytes) -> None:
    crc = zlib.crc32(payload)
    try:
        record = decode_batch(payload, _sniffed(payload))
    except BadBatchError:  # an older contract admitted it
        ledger.hold_unread(seq, crc)
    else:
        ledger.hold(seq, crc, record)


def _key_or_none(text: str | None) -> Key | None:
    if text is None:
        return None
    try:
        return parse_key(text)
    except ContractError:
        return None


def _sniffed(payload: bytes) -> str | None:
    """The content type of a payload that was admitted once: JSON never begins with zlib's first byte."""
    return "application/zlib" if payload[:1] == b"\x78" else None

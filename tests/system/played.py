"""A device that is played: over a real broker it says what a test lets it say, by a clock that the test moves."""

import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import mqtt5
import msgspec

from broker_config import topics
from broker_config.ids import DeviceId
from broker_config.messages import Birth, Receipt, StreamState, decode, encode
from broker_config.telemetry import (
    CONTENT_JSON,
    GENESIS,
    JOURNAL,
    PROPERTY_KEY,
    PROPERTY_LAST,
    Clock,
    key_text,
)
from broker_config.topics import Down, Up
from broker_config.twin import ChangeState, Reported, SettingValue
from tests.contract.wire import Client
from tests.servers import Credentials, wait_until

KEEP_ALIVE_S: Final = 30
BROKER_KEEP_ALIVE_S: Final = 120
"""It does not ping: the test has other things to do meanwhile."""
RECEIPT_S_MAX: Final = 30.0
POISONED_LIFE: Final = "ab" * 8
SET_CLOCK: Final = Clock("ntp", 0, 10)


@dataclass
class _Stream:
    life: str
    every_ms: int = 0
    first: int = 1
    last: int = 0
    sealed: dict[int, bytes] = field(default_factory=dict)


class Played:
    """``readings``: what it says of each stream whenever it is asked to :meth:`tell`; ``cadences_s``: of streams that
    promise one; ``clock``: what it says of its own.
    """

    def __init__(
        self, device: DeviceId, device_class: str, port: int, credentials: Credentials, now_ms: Callable[[], int]
    ) -> None:
        self.device = device
        self.device_class = device_class
        self.readings: dict[str, dict[str, float]] = {}
        self.cadences_s: dict[str, int] = {}
        self.clock = SET_CLOCK
        self._port = port
        self._credentials = credentials
        self._now_ms = now_ms
        self._rng = random.Random(device)
        self._boot = self._hex16()
        self._booted_ms = now_ms() - 86_400_000
        self._streams: dict[str, _Stream] = {}
        self._prev = GENESIS
        self._client: Client | None = None
        self._epoch = ""
        self._receipts: list[Receipt] = []

    @property
    def connected(self) -> bool:
        return self._client is not None

    def connect(self) -> None:
        """And be born."""
        self._client = Client(self._port, self._credentials)
        self._client.connect(self.device, keep_alive_s=BROKER_KEEP_ALIVE_S)
        self._client.subscribe(topics.down_filter(self.device))
        self._epoch = self._hex16()
        self.bear()

    def vanish(self) -> None:
        """As in a tunnel; nobody says so."""
        if self._client is not None:
            self._client.vanish()
            self._client = None

    def bear(self) -> None:
        """Say that it is there, and what it has."""
        streams = tuple(
            StreamState(name, each.life, each.first, each.last, every_ms=1_000 * self.cadences_s.get(name, 0))
            for name, each in self._streams.items()
        )
        boot, mono = self._boot, self._mono()
        birth = Birth(1, self._epoch, boot, mono, KEEP_ALIVE_S, "played/1", self.device_class, "p", 0, 1_000, streams)
        self._publish(Up.STATUS, encode(birth), (), retain=True)

    def tell(self) -> None:
        """That it is there, and its readings."""
        for stream, values in self.readings.items():
            self.say(stream, values)
        self.bear()
        self._hear()

    def say(self, stream: str, values: Mapping[str, float], *, ago_s: float = 0) -> int:
        """One reading; its number. *ago_s*: when it was taken."""
        fields: dict[str, object] = {"t": "batch", "fields": list(values), "rows": [list(values.values())]}
        return self._seal(stream, fields, ago_s=ago_s)

    def happens(self, kind: str, *, ago_s: float = 0, **data: object) -> int:
        """An event of its journal; earlier ones first."""
        events: dict[str, object] = {"t": "events", "prev": self._prev, "events": [{"kind": kind, "data": data}]}
        seq = self._seal(JOURNAL, events, ago_s=ago_s)
        self._prev = hashlib.sha256(self._streams[JOURNAL].sealed[seq]).hexdigest()
        return seq

    def again(self, stream: str, first: int, last: int) -> None:
        """Send what was sent before, as who found an old card."""
        for seq in range(first, last + 1):
            self._send(stream, seq)

    def poison(self, payload: bytes, seq: int) -> None:
        """What is no batch, under a number of a life of its own."""
        properties = ((PROPERTY_KEY, key_text("cpu", POISONED_LIFE, seq)), (PROPERTY_LAST, str(seq)))
        self._publish(Up.TELEMETRY, payload, properties)

    def trim(self, stream: str) -> None:
        """Hold nothing any more of what was receipted."""
        each = self._streams[stream]
        each.first = each.last + 1

    def report(self, config: Mapping[str, SettingValue], *, desired: int = 0) -> None:
        """What is so: *desired* is in force, with *config*."""
        now_ms = self._now_ms()
        said = Reported(1, now_ms, self._boot, desired, desired, ChangeState.CURRENT, dict(config))
        self._publish(Up.TWIN, msgspec.json.encode(said), ())

    def receipted(self, stream: str) -> None:
        """Wait until all of it is."""
        each = self._streams[stream]

        def covered() -> bool:
            self._hear()
            return any(
                (told.stream, told.life) == (stream, each.life) and told.up_to >= each.last and not told.missing
                for told in self._receipts
            )

        wait_until(covered, f"{stream} of {self.device} is receipted", RECEIPT_S_MAX)

    def _seal(self, stream: str, fields: Mapping[str, object], *, ago_s: float) -> int:
        each = self._streams.setdefault(stream, _Stream(self._hex16()))
        each.last += 1
        ago_ms = int(1_000 * ago_s)
        body = {
            "v": 1,
            "stream": stream,
            "life": each.life,
            "seq": each.last,
            "boot": self._boot,
            "t0": self._now_ms() - ago_ms,
            "mono": self._mono() - ago_ms,
            "clock": self.clock,
            "dt": [0],
            **fields,
        }
        each.sealed[each.last] = msgspec.json.encode(body)
        self._send(stream, each.last)
        return each.last

    def _send(self, stream: str, seq: int) -> None:
        each = self._streams[stream]
        properties = ((PROPERTY_KEY, key_text(stream, each.life, seq)), (PROPERTY_LAST, str(each.last)))
        self._publish(Up.EVENT if stream == JOURNAL else Up.TELEMETRY, each.sealed[seq], properties)

    def _publish(
        self, channel: Up, payload: bytes, properties: tuple[tuple[str, str], ...], *, retain: bool = False
    ) -> None:
        client = self._client
        assert client is not None, f"{self.device} is away"
        packet = mqtt5.PublishPacket(
            topics.up(self.device, channel),
            payload,
            qos=mqtt5.QoS.AT_LEAST_ONCE,
            packet_id=client._new_id(),
            retain=retain,
            content_type=CONTENT_JSON,
            user_properties=list(properties),
        )
        client.send(packet.write())
        client._next(mqtt5.PubAckPacket)

    def _hear(self) -> None:
        client = self._client
        assert client is not None
        client.ping()
        while client.pending():
            message = client.receive()
            if message.topic == topics.down(self.device, Down.RECEIPT):
                self._receipts.append(decode(bytes(message.payload), Receipt))

    def _mono(self) -> int:
        return self._now_ms() - self._booted_ms

    def _hex16(self) -> str:
        return f"{self._rng.getrandbits(64):016x}"
